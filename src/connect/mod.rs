//! The leaf of the line, and the only part that touches a socket: [`Connection`].
//!
//! One task per connection makes it, checks that it leads to a master, probes it and replaces it;
//! callers take the one there is or fail at once. No call waits for a connection to be made, and
//! none holds a lock that another needs.
//!
//! Each connection published is a new *generation*. It is given up, and the calls that wait on it
//! end, when
//!
//! - its socket closes,
//! - several calls in a row get no answer within the response timeout, or one probe gets none: a
//!   socket whose packets are swallowed looks healthy otherwise,
//! - Redis answers READONLY anywhere, in a transaction or a script too: the master is elsewhere,
//! - Redis no longer takes the user and password, or is loading its data,
//! - the sentinels have another master, which says that it is one.
//!
//! The next attempt follows at once if the connection had lasted, and after growing, partly random
//! delays if not: also when there is a server that turns out to be a replica, to be loading, or not
//! to take the password.
//!
//! # Sentinel
//!
//! With `redis+sentinel://` the master is looked for, and kept an eye on:
//!
//! - All sentinels are asked at once, the first answer that holds is taken, and none is believed by
//!   itself: a master is a server that says so to ROLE on the connection that is then used. The later
//!   *epoch* wins, so a sentinel that has missed a failover does not lead back to the old master.
//! - There is a small connection to each sentinel, also to those that are only learnt from the
//!   others, at most 32. It hears `+switch-master`, and asks once a second as a net below that. So a
//!   master that accepts connections and never answers is left as soon as there is another one, and
//!   an idle client follows without any traffic.
//! - While a new master is checked, the old connection goes on if it works; no call waits for a
//!   search.
//! - With no sentinel to ask, the connection there is stays in use, and its own probe decides. If it
//!   breaks, the masters of before are tried, the latest first, and one that says it is a master is
//!   taken; the metrics and an event tell. That is right when only the sentinels are down. It is
//!   wrong if there has been a failover that nobody could tell of, and the old master, alone on our
//!   side of a network, does not know: what it takes is lost when it is made a replica. The first
//!   sentinel that answers puts an end to it.
//! - A master's name that the sentinels do not know is an error at the start:
//!   [`check`](Connection::check).
//!
//! Sentinels of Redis 6.2 or later, since they have to announce and answer on one connection (RESP3).
//!
//! # Cluster
//!
//! With `redis+cluster://` each primary has a connection as above, with its own loop, probe and
//! suspicion. What is special:
//!
//! - **A call goes to the node that has its keys.** Keys in several hash slots are an error before
//!   anything is sent, [`CrossSlot`](crate::error::ErrorKind::CrossSlot), in a pipeline and a script
//!   too. A command that names no key goes to any one primary: `DBSIZE` counts that one's keys.
//! - **Redirections are followed** within the time of one attempt: MOVED, and ASK for a command or a
//!   script. They say that nothing was done, so it is safe for any call. What a moving slot refuses
//!   otherwise (TRYAGAIN, a transaction's ASK) is transient, and left to retry.
//! - **The map of the slots is read** from all primaries at once, and what most say is taken: at the
//!   start from the hosts of the URL, after a redirection, when a primary is lost, while one is away,
//!   and every 10 s. If no primary is left, any node is asked that was ever heard of.
//! - **One node's trouble is no outage.** A call whose primary is away, or refuses, fails as
//!   transient and not sent as long as the cluster serves with others, so that the one breaker above
//!   does not shut the way to them. Only calls that get no answer count against it, until that node is
//!   given up. When no primary is connected, or the cluster says that it takes nothing, it is an
//!   outage: [`ClusterDown`](Trouble::ClusterDown).
//! - **Up** means that some primary is connected and the cluster serves. Each new connection to a
//!   primary is one more generation, and so is a primary that has gone: lanes then ask how far Redis
//!   is.
//! - **An exclusive connection** leads to one node: [`exclusive_for`](Connection::exclusive_for).
//! - The user needs `+cluster|slots` and `+cluster|info` as well.
//!
//! # Default
//!
//! ```no_run
//! use seawall::{RedisCall, connect::{ConnectOptions, Connection}};
//! use tower::{Service, ServiceExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ConnectOptions::from_url("redis://localhost:6379")?;
//! let mut connection = Connection::open(options)?;
//! let call = RedisCall::new("read", redis::cmd("GET").arg("greeting"));
//! let greeting: Option<String> = connection.ready().await?.call(call).await?.decode()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! ```no_run
//! use std::time::Duration;
//! use redis::AsyncCommands;
//! use seawall::connect::{ConnectOptions, Connection};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ConnectOptions::from_url("rediss://app@redis.example/2?protocol=resp3")?
//!     .with_password(std::env::var("REDIS_PASSWORD")?)
//!     .with_response_timeout(Duration::from_millis(200))
//!     .with_probe(Duration::from_millis(500), Duration::from_millis(200));
//! let connection = Connection::open(options)?;
//! // At start-up it may be worth a moment to find Redis there.
//! connection.wait_ready(Duration::from_secs(2)).await?;
//! // A blocking read needs a connection to itself.
//! let mut exclusive = connection.exclusive().await?;
//! let job: Option<(String, String)> = exclusive.brpop("jobs", 30.0).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Three sentinels with a password of their own, and reads that may be a little old:
//!
//! ```no_run
//! use std::time::Duration;
//! use seawall::{RedisCall, connect::{ConnectOptions, Connection}};
//! use tower::ServiceExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ConnectOptions::from_url("redis+sentinel://app@s1,s2,s3:26380/mymaster/0")?
//!     .with_password(std::env::var("REDIS_PASSWORD")?)
//!     .with_sentinel_password(std::env::var("SENTINEL_PASSWORD")?)
//!     .with_sentinel_poll(Duration::from_millis(500))
//!     .with_replica_reads(true);
//! let connection = Connection::open(options)?;
//! connection.check(Duration::from_millis(500)).await?;
//! let call = RedisCall::new("profile", redis::cmd("GET").arg("user:1")).with_replica_read();
//! let profile: Option<String> = connection.oneshot(call).await?.decode()?;
//! # Ok(())
//! # }
//! ```

mod cluster;
mod deployment;
mod dial;
mod error;
mod exchange;
mod exclusive;
mod generation;
mod hosts;
mod meters;
mod options;
mod pace;
mod readings;
mod replicas;
mod route;
mod sentinel;
mod service;
mod shared;
mod status;
mod supervisor;
#[cfg(feature = "tls")]
mod tls;
mod url;

pub use self::{
    error::ConnectError,
    exclusive::Exclusive,
    options::ConnectOptions,
    service::{Connection, ResponseFuture},
    status::{Status, Trouble},
};

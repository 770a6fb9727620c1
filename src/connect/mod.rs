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
//! - Redis no longer takes the user and password, or is loading its data.
//!
//! The next attempt follows at once if the connection had lasted, and after growing, partly random
//! delays if not: also when there is a server that turns out to be a replica, to be loading, or not
//! to take the password.
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

mod deployment;
mod dial;
mod error;
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

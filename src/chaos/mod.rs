//! Real servers to hurt, a network that fails on command, and the books to judge by.
//!
//! **Not a stable part of the API**: this module, behind the feature `chaos`, is for tests and may
//! change in any release. It needs a unix system; the promise that a port stays reserved needs
//! Linux.
//!
//! - [`RedisServer`]: a `redis-server` process to kill, freeze and restart, with or without its
//!   data
//! - [`RedisCluster`]: primaries and replicas that form a Redis Cluster, with slots to move about
//! - [`SentinelSet`]: a primary, its replicas and their sentinels, to fail over by command, by kill,
//!   by freeze and by partition
//! - [`FaultProxy`]: a TCP proxy with a [`Fault`] that is switched while connections are open, for
//!   all of them or for those of one address
//! - [`Nemesis`]: a seeded schedule of [`Attack`]s on any [`Target`], of which a [`SentinelSet`] is
//!   one and a [`ProxiedServer`] another
//! - [`Books`]: what was attempted, acknowledged and delivered, and their [`Balance`]
//! - [`wait_until`]: waits for a thing, not for a time
//!
//! Nothing outlives its test: when a test process ends, even by SIGKILL or a panic that aborts,
//! its servers are killed and their directories removed. A `redis-server` that is not installed is
//! an error that says how to install it, so that a test fails rather than passes unseen.
//!
//! `examples/chaos_test.rs` is a test to copy: a load, a fault, and the books.
//!
//! # Default
//!
//! An outage from the first job to the last, and its balance:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use seawall::chaos::{Books, RedisServer};
//!
//! let mut redis = RedisServer::builder().durable().start().await?;
//! let books = Books::new();
//! for number in 1..=100_u64 {
//!     if number == 50 {
//!         redis.kill().await?;
//!         redis.restart().await?;
//!     }
//!     books.attempt(("emails", number));
//!     let push = redis::cmd("RPUSH").arg("emails").arg(number).to_owned();
//!     if redis.command::<()>(&push).await.is_ok() {
//!         books.acknowledge(("emails", number));
//!     }
//! }
//! let all: Vec<u64> = redis.command(redis::cmd("LRANGE").arg("emails").arg(0).arg(-1)).await?;
//! for number in all {
//!     books.deliver(("emails", number));
//! }
//! let balance = books.balance();
//! assert!(balance.is_clean(), "{balance}");
//! # Ok(()) }
//! ```
//!
//! # Customised
//!
//! A server of special settings behind a proxy, and a reply that is lost after its request was
//! executed:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use seawall::chaos::{Fault, FaultProxy, RedisServer, wait_until};
//!
//! let redis = RedisServer::builder().durable().arg("maxmemory", "64mb").start().await?;
//! let proxy = FaultProxy::start(redis.addr()).await?;
//! let client = redis::Client::open(proxy.url())?;
//! let mut connection = client.get_multiplexed_async_connection().await?;
//!
//! proxy.set(Fault::DropNextReply);
//! let push = redis::cmd("RPUSH").arg("emails").arg("hello").to_owned();
//! assert!(push.query_async::<()>(&mut connection).await.is_err());
//! wait_until("the push that was cut off", Duration::from_secs(10), || async {
//!     redis.command::<usize>(redis::cmd("LLEN").arg("emails")).await == Ok(1)
//! })
//! .await?;
//! # Ok(()) }
//! ```
//!
//! The write that a failover loses: the primary acknowledges what no replica has, and dies. A
//! client that is not prepared for it fails this test:
//!
//! ```no_run
//! # async fn send(_: &str, _: u64) -> bool { true }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use seawall::chaos::{Books, SentinelSet};
//!
//! let mut set = SentinelSet::builder().durable().proxied().start().await?;
//! let (url, books) = (set.url(), Books::new());
//! for number in 1..=100_u64 {
//!     if number == 50 {
//!         set.cut_replication(0);
//!     }
//!     books.attempt(("emails", number));
//!     if send(&url, number).await {
//!         books.acknowledge(("emails", number));
//!     }
//! }
//! let old = set.kill_primary().await?;
//! let new = set.wait_for_primary_other_than(old).await?;
//! // ... the client finds out, and repairs what was lost ...
//! let list = redis::cmd("LRANGE").arg("emails").arg(0).arg(-1).to_owned();
//! for number in set.node(new).command::<Vec<u64>>(&list).await? {
//!     books.deliver(("emails", number));
//! }
//! assert!(books.balance().is_clean(), "{}", books.balance());
//! # Ok(()) }
//! ```

mod balance;
mod books;
mod builder;
mod cluster;
mod connection;
mod fault;
mod migration;
mod nemesis;
mod nodes;
mod port;
mod process;
mod proxy;
mod resp;
mod rules;
mod sentinel;
mod server;
mod wait;

pub use balance::Balance;
pub use books::{Books, Entry};
pub use builder::{RedisServerBuilder, StartError};
pub use cluster::{RedisCluster, RedisClusterBuilder};
pub use fault::Fault;
pub use migration::SlotMigration;
pub use nemesis::{Attack, AttackError, Deed, Nemesis, ProxiedServer, Strike, Target};
pub use proxy::{Counts, FaultProxy};
pub use sentinel::{SentinelSet, SentinelSetBuilder};
pub use server::RedisServer;
pub use wait::{NotMet, wait_until};

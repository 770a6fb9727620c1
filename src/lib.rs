//! `async fn(Job) -> Result<Receipt, Error>`, Redis up or down.
//!
//! seawall keeps an application's Redis calls and job enqueues working through a Redis outage.
//!
//! ```text
//! Job -> spool -> sequence -> retry -> breaker -> connect -> Redis         enqueue
//! RedisCall -----> observe -> retry -> breaker -> connect -> Redis         any other Redis call
//! ```
//!
//! ```no_run
//! use seawall::{Job, Seawall};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let seawall = Seawall::builder("redis://localhost", "/var/lib/app/spool")?.connect().await?;
//! let receipt = seawall.enqueue(Job::new("emails", "hello")).await?;
//! println!("{:?}", receipt.place()); // Delivered, or Spooled while Redis is out
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | module | changes when |
//! |---|---|
//! | [`stack`] | the order of the line changes: [`Seawall`] and its builder |
//! | [`worker`] | how jobs are run changes |
//! | [`job`] | what a job is, or becomes in Redis, changes |
//! | [`sequence`] | the scripts that apply a batch change |
//! | [`wrap`] | how somebody else's client is made the end of the line changes |
//! | [`spool`] | how a record survives us changes |
//! | [`retry`] | when to try again changes |
//! | [`breaker`] | when to stop trying changes |
//! | [`connect`] | how Redis is reached changes |
//! | [`observe`] | what is counted of a call changes |
//! | [`error`] | what callers may ask of a failure changes |
//! | [`classify`] | how a failure is read changes |
//! | [`metrics`] | the published catalogue of metrics changes |
//! | [`call`] | what a call carries changes |
//! | [`replicas`] | how it is told what replicas have changes |
//! | `chaos` | how we hurt Redis in tests changes |
//!
//! A module imports only from those further down this list, and never from its neighbours.
//!
//! # What survives what
//!
//! | | in memory, no receipt yet | on disk (`Spooled`) | in Redis (`Delivered`) |
//! |---|---|---|---|
//! | Redis is killed, frozen, unreachable | goes to disk within `spool_after` | kept | as durable as Redis is |
//! | Redis fails over, and has lost what it acknowledged | - | kept until its replicas have it | [sent again](spool::TailOptions) |
//! | the process is killed | lost; the caller had no receipt | kept | kept |
//! | the machine loses power | lost | kept, with [`Durability::PowerLoss`](spool::Durability) | as durable as Redis is |
//! | the disk is full or fails | an error | what was synced is kept | kept |
//!
//! # Cancel safety
//!
//! A dropped future takes nothing back: a call may be carried out all the same, and a job that was
//! handed in is delivered. Nothing else is disturbed by it.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `tls` (default) | `rediss://` through rustls |
//! | `encrypt` | encryption of what is on disk: `spool::Keys` |
//! | `cli` | the command `seawall`, which looks after a spool by hand: see `docs/operations.md` |
//! | `chaos` | real servers to hurt, a fault proxy and the books, for tests |
//!
//! # Stability
//!
//! The format on disk is versioned and stays readable. `chaos` may change in any release.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod breaker;
pub mod call;
#[cfg(feature = "chaos")]
pub mod chaos;
pub mod classify;
pub mod connect;
pub mod error;
pub mod job;
pub mod metrics;
pub mod observe;
pub mod replicas;
pub mod retry;
pub mod sequence;
pub mod spool;
pub mod stack;
pub mod worker;
pub mod wrap;

pub use self::{
    call::{RedisCall, Reply},
    error::Error,
    job::Job,
    stack::Seawall,
};

/// The README's code is compiled like any other.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! The whole line in one value: [`Seawall`].
//!
//! ```text
//! Job -> spool -> sequence -> retry -> breaker -> connect -> Redis         enqueue
//! RedisCall -----> observe -> retry -> breaker -> connect -> Redis         any other Redis call
//! ```
//!
//! Both share the retry budget, the breaker and the connection. The order is literally the code: see
//! the source of [`Builder::connect`], and `examples/layers.rs` for the same by hand.
//!
//! # Default
//!
//! ```no_run
//! use seawall::{Job, RedisCall, Seawall};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let seawall = Seawall::builder("redis://localhost", "/var/lib/app/spool")?.connect().await?;
//! let receipt = seawall.enqueue(Job::new("emails", "hello")).await?;
//! println!("{:?}", receipt.place()); // Delivered, or Spooled while Redis is out
//! let users: u64 = seawall
//!     .call(RedisCall::new("count_users", redis::cmd("SCARD").arg("users")))
//!     .await?
//!     .decode()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! ```no_run
//! use std::time::Duration;
//! use seawall::{Seawall, breaker::BreakerOptions, retry::RetryPolicy, spool::Overflow};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = prometheus::Registry::new();
//! let seawall = Seawall::builder("rediss://app@redis.example/2", "/var/lib/app/spool")?
//!     .connection(|options| options.with_response_timeout(Duration::from_millis(200)))
//!     .retry(RetryPolicy::default().with_max_retries(2))
//!     .breaker(BreakerOptions::default().with_consecutive_failures(3))
//!     .spool(|options| options.with_overflow(Overflow::Block { timeout: Duration::from_secs(1) }))
//!     .metrics(&registry)
//!     .connect()
//!     .await?;
//! // .. and at the end of the program:
//! seawall.shutdown(Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod recovery;
mod settings;

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower::{Service, ServiceExt, retry::Retry};

use self::recovery::Recovery;
pub use self::{
    builder::{BuildError, Builder},
    settings::SETTINGS,
};
use crate::{
    breaker::{Breaker, BreakerHandle, State},
    call::{RedisCall, Reply},
    connect::Connection,
    error::Error,
    observe::Observe,
    retry::RetryPolicy,
    sequence::Write,
    spool::{Readiness, Receipt, Spool, SpoolDir, SpoolStats, Spooling, future::ResponseFuture},
};

/// Redis calls and job enqueues that keep working through a Redis outage.
///
/// Cheap to clone. When the last clone and pending call is dropped, everything it runs ends;
/// [`shutdown`](Self::shutdown) is the orderly end. See the [module docs](self) for examples.
#[derive(Clone)]
pub struct Seawall {
    inner: Arc<Inner>,
}

struct Inner {
    enqueue: Spooling<Write>,
    call: CallLine,
    spool: Spool<Write>,
    connection: Connection,
    breaker: BreakerHandle,
    _recovery: Recovery,
}

/// The line of any call that is not an enqueue.
pub type CallLine = Observe<Retry<RetryPolicy, Breaker<Connection>>>;

impl Seawall {
    /// Settings for the Redis at `url`, with the spool in the directory `spool_dir`: a path, or a
    /// [`SpoolDir`] that many processes share.
    ///
    /// The URL's query may hold settings as well: see [`SETTINGS`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the URL, or a setting in it, is wrong.
    pub fn builder(url: &str, spool_dir: impl Into<SpoolDir>) -> Result<Builder, BuildError> {
        Builder::new(url, Some(spool_dir.into()))
    }

    /// Settings from one URL, of which `spool_dir` in the query is the one that must be there:
    /// `redis://localhost/0?spool_dir=/var/lib/app/spool&spool_after=100ms`.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that is wrong or missing.
    pub fn from_url(url: &str) -> Result<Builder, BuildError> {
        Builder::new(url, None)
    }

    /// Settings from the environment: `SEAWALL_REDIS_URL`, `SEAWALL_SPOOL_DIR`, and the others of
    /// [`SETTINGS`]. A variable overrides the same setting in the URL.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the variable that is wrong or missing.
    pub fn from_env() -> Result<Builder, BuildError> {
        Builder::from_vars(std::env::vars_os())
    }

    /// Hands in a job, or a [`Write`] of your own.
    ///
    /// Answers in bounded time, Redis up or down, with a receipt that says where the job is: in Redis,
    /// or on the local disk. Either way it is delivered, exactly once and in order with the others of
    /// its queue.
    ///
    /// # Errors
    ///
    /// [`Error::kind`] says which: [`Invalid`](crate::error::ErrorKind::Invalid) or
    /// [`Expired`](crate::error::ErrorKind::Expired) jobs, [`Redis`](crate::error::ErrorKind::Redis)
    /// if it refuses this one for good, [`SpoolFull`](crate::error::ErrorKind::SpoolFull),
    /// [`Spool`](crate::error::ErrorKind::Spool) if the disk failed,
    /// [`Closed`](crate::error::ErrorKind::Closed). A job with an error is not delivered later, unless
    /// the error [may have landed](Error::may_have_landed).
    ///
    /// # Cancel safety
    ///
    /// The job is handed in by this call, not by the future it returns: dropping that takes nothing
    /// back, except a job that still waits for memory.
    pub fn enqueue<J>(&self, job: J) -> ResponseFuture<Write>
    where
        J: TryInto<Write>,
        J::Error: Into<Error>,
    {
        match job.try_into() {
            Ok(write) => self.inner.enqueue.clone().call(write),
            Err(error) => ResponseFuture::refused(error.into()),
        }
    }

    /// Hands in many jobs in one go, and answers when the last has its receipt, in their order.
    ///
    /// Cancel safety is that of [`enqueue`](Self::enqueue).
    pub fn enqueue_all<I, J>(
        &self,
        jobs: I,
    ) -> impl Future<Output = Vec<Result<Receipt, Error>>> + Send + use<I, J>
    where
        I: IntoIterator<Item = J>,
        J: TryInto<Write>,
        J::Error: Into<Error>,
    {
        // Not lazily: all are in before the first is waited for.
        let receipts: Vec<_> = jobs.into_iter().map(|job| self.enqueue(job)).collect();
        async move {
            let mut answers = Vec::with_capacity(receipts.len());
            for receipt in receipts {
                answers.push(receipt.await);
            }
            answers
        }
    }

    /// Any other Redis call: tried again as far as it may be, refused at once while Redis is out.
    ///
    /// # Errors
    ///
    /// The last attempt's error, with the number of attempts. See
    /// [`may_have_landed`](Error::may_have_landed) for calls that are not repeat-safe.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not be carried out.
    pub fn call(
        &self,
        call: RedisCall,
    ) -> impl Future<Output = Result<Reply, Error>> + Send + 'static {
        self.inner.call.clone().oneshot(call)
    }

    /// How things stand, from what is known already: it asks nobody and takes no time.
    pub fn health(&self) -> Health {
        let inner = &self.inner;
        Health {
            up: inner.connection.is_up(),
            breaker: inner.breaker.state(),
            outage_since: inner.breaker.outage().map(|outage| outage.wall_clock),
            readiness: inner.spool.readiness(),
            spool: inner.spool.stats(),
        }
    }

    /// Whether it is safe to enqueue: whether a job that is handed in now is kept, whatever happens to
    /// Redis. From what is known already: it asks nobody and takes no time.
    ///
    /// [`Spool::watch_readiness`] tells of changes, [`Spool::readiness_of`] of one queue.
    pub fn readiness(&self) -> Readiness {
        self.inner.spool.readiness()
    }

    /// Waits until nothing is left in memory or on disk: see [`Spool::flush`].
    pub async fn flush(&self) {
        self.inner.spool.flush().await;
    }

    /// Ends in order: takes no more jobs, delivers what it can within `within`, leaves the rest on disk
    /// for the next run, and says how many those are. See [`Spool::shutdown`].
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn shutdown(&self, within: Duration) -> Result<u64, Error> {
        self.inner.spool.shutdown(within).await
    }

    /// The spool.
    pub fn spool(&self) -> &Spool<Write> {
        &self.inner.spool
    }

    /// The circuit breaker.
    pub fn breaker(&self) -> &BreakerHandle {
        &self.inner.breaker
    }

    /// The connection, for blocking reads and transactions: see [`Connection::exclusive`].
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }
}

impl fmt::Debug for Seawall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seawall")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// How things stand. Made by [`Seawall::health`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Health {
    /// There is a working connection to Redis.
    pub up: bool,
    /// The circuit breaker's state.
    pub breaker: State,
    /// When the outage in progress began.
    pub outage_since: Option<SystemTime>,
    /// Whether it is safe to enqueue.
    pub readiness: Readiness,
    /// What the spool holds.
    pub spool: SpoolStats,
}

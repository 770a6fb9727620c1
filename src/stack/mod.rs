//! The whole line in one value: [`Seawall`].
//!
//! ```text
//! Job -> spool -> sequence -> retry -> breaker -> connect -> Redis         enqueue
//! RedisCall -----> observe -> retry -> breaker -> connect -> Redis         any other Redis call
//! ```
//!
//! Both share the retry budget, the breaker and the connection. The order is literally the code: see
//! the source of `Arm::open`, and `examples/layers.rs` for the same by hand.
//!
//! Of several deployments each has such a pair of lines to itself, with a spool of its own, and one pair is
//! in use at a time: see [`Topology`].
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

mod arm;
mod arms;
mod builder;
mod checks;
mod directory;
mod failover;
mod health;
mod identity;
mod queue;
mod recovery;
mod settings;
mod target;
mod topology;
mod transfer;
mod worker;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tower::{Service, ServiceExt};

use self::arms::Arms;
pub use self::{
    arm::CallLine,
    builder::{BuildError, Builder},
    health::Health,
    settings::SETTINGS,
    target::Target,
    topology::Topology,
};
use crate::{
    breaker::BreakerHandle,
    call::{RedisCall, Reply},
    connect::Connection,
    error::Error,
    sequence::Write,
    spool::{Readiness, Receipt, Spool, SpoolDir, future::ResponseFuture},
};

/// Redis calls and job enqueues that keep working through a Redis outage.
///
/// Cheap to clone. When the last clone and pending call is dropped, everything it runs ends;
/// [`shutdown`](Self::shutdown) is the orderly end. See the [module docs](self) for examples.
#[derive(Clone)]
pub struct Seawall {
    arms: Arc<Arms>,
}

impl Seawall {
    /// Settings for the Redis at a URL, or for the several ones of a [`Topology`], with the spool in the
    /// directory `spool_dir`: a path, or a [`SpoolDir`] that many processes share.
    ///
    /// The URL's query may hold settings as well: see [`SETTINGS`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a URL, a setting in it, or the topology is wrong.
    pub fn builder(
        topology: impl Into<Topology>,
        spool_dir: impl Into<SpoolDir>,
    ) -> Result<Builder, BuildError> {
        Builder::new(topology.into(), Some(spool_dir.into()))
    }

    /// Settings from one URL, of which `spool_dir` in the query is the one that must be there:
    /// `redis://localhost/0?spool_dir=/var/lib/app/spool&spool_after=100ms`.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that is wrong or missing.
    pub fn from_url(url: &str) -> Result<Builder, BuildError> {
        Builder::new(url.into(), None)
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
            Ok(write) => self.arms.active().enqueue.clone().call(write),
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
        self.arms.active().call.clone().oneshot(call)
    }

    /// How things stand, from what is known already: it asks nobody and takes no time.
    pub fn health(&self) -> Health {
        Health::of_all(&self.arms)
    }

    /// Whether it is safe to enqueue: whether a job that is handed in now is kept, whatever happens to
    /// Redis. From what is known already: it asks nobody and takes no time.
    ///
    /// [`Spool::watch_readiness`] tells of changes, [`Spool::readiness_of`] of one queue. Of several targets
    /// it is the active one's.
    pub fn readiness(&self) -> Readiness {
        self.arms.active().spool.readiness()
    }

    /// Waits until nothing is left in memory or on disk, for any target: see [`Spool::flush`].
    pub async fn flush(&self) {
        let arms = self.arms.all().iter();
        join_all(arms.map(|arm| arm.spool.flush())).await;
    }

    /// Ends in order: takes no more jobs, delivers what it can within `within`, leaves the rest on disk
    /// for the next run, and says how many those are. See [`Spool::shutdown`].
    ///
    /// Several targets end at the same time, and it is the sum of all.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn shutdown(&self, within: Duration) -> Result<u64, Error> {
        let arms = self.arms.all().iter();
        let left = join_all(arms.map(|arm| arm.spool.shutdown(within))).await;
        left.into_iter().sum()
    }

    /// The targets of the [`Topology`], the most preferred one first: one, unless there are several.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = Target<'_>> {
        Target::all(&self.arms)
    }

    /// The target of this name.
    pub fn target(&self, name: &str) -> Option<Target<'_>> {
        self.targets().find(|target| target.name() == name)
    }

    /// Hands all that waits on disk for the target `from` over to the target `to`, and says how many records
    /// those were: for a deployment that will not be back soon enough.
    ///
    /// The records are handed in anew, in their order, behind what `to` has of each queue, and are in Redis or
    /// on disk there before they leave the disk here. Nothing does this unless it is asked for.
    ///
    /// - **Between the two it is at least once.** A record whose answer was lost may be in `from` already, and is
    ///   moved all the same; when the process dies meanwhile, some may be left in both.
    /// - What `to` refuses for good is parked, and stays with `from`. What has been parked before stays there, too.
    /// - It takes as long as `to` takes to have room for them. Records that wait for `from` in memory, after a
    ///   call that has just failed, go with the others.
    ///
    /// # Errors
    ///
    /// - [`Invalid`](crate::error::ErrorKind::Invalid): there is no such target, `from` is the active one, or
    ///   becomes it meanwhile, or another move is under way.
    /// - What an [`enqueue`](Self::enqueue) at `to` fails with, such as
    ///   [`SpoolFull`](crate::error::ErrorKind::SpoolFull).
    ///
    /// Some may have been moved by then; the others wait for `from` as before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the move, with the same result as an error.
    pub async fn move_spooled(&self, from: &str, to: &str) -> Result<u64, Error> {
        self.arms.move_spooled(from, to).await
    }

    /// The spool: of several targets, the active one's. See [`target`](Self::target).
    pub fn spool(&self) -> &Spool<Write> {
        &self.arms.active().spool
    }

    /// The circuit breaker: of several targets, the active one's. See [`target`](Self::target).
    pub fn breaker(&self) -> &BreakerHandle {
        &self.arms.active().breaker
    }

    /// The connection, for blocking reads and transactions: see [`Connection::exclusive`]. Of several targets
    /// the active one's: see [`target`](Self::target).
    pub fn connection(&self) -> &Connection {
        &self.arms.active().connection
    }
}

impl fmt::Debug for Seawall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seawall")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

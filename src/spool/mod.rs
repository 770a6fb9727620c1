//! Keeps records on the local disk while Redis is out, and sends them on, once and in order, when it
//! is back.
//!
//! A [`Spool`] is a directory. Its [`SpoolLayer`] goes in front of a service that takes [`Batch`]es,
//! and makes of it one that takes records and answers each with a [`Receipt`]: `Delivered`, in Redis,
//! or `Spooled`, on disk.
//!
//! # Lanes
//!
//! Each queue is a *lane*: a stream of records numbered 1, 2, 3 .. What has gathered is sent as one
//! batch, with one batch in flight, and the next gathers meanwhile: a record alone goes at once, and under load batches grow by themselves. A lane is
//! *direct* until a batch does not get through within
//! [`spool_after`](SpoolOptions::with_spool_after); then that batch, with the numbers it has, and all
//! that comes after it go to disk: the lane is *spooling*. What waits is replayed from the moment of
//! opening, also what an earlier run left, batch by batch, with slow start and jitter, until the disk
//! is drained and the lane is direct again.
//!
//! The numbers make it exactly once: the far end ([`sequence`](crate::sequence)) keeps the last number
//! of each lane and skips what it has seen. A far end that can't, one made by
//! [`wrap`](crate::wrap), gets each record at least once, in order.
//!
//! # Bounds
//!
//! Time per record, memory, records and bytes on disk, size of the files, age and size of a record,
//! number of queues: see [`SpoolOptions`], and [`QueueLimits`] for one queue by itself. A record with no
//! room is refused with [`SpoolFull`](crate::error::ErrorKind::SpoolFull), waits for some, or, where that
//! is asked for, costs the oldest ones or is dropped itself: [`Overflow`]. Whether it is safe to enqueue
//! is [one call](Spool::readiness), and [a signal](Spool::watch_readiness).
//!
//! A record that Redis will never take (its key has the wrong type, say) is returned to the caller that waits for
//! it, or *parked*: kept aside on disk with its reason, to be [listed](Spool::parked_page),
//! [sent again](Spool::unpark) or [deleted](Spool::delete_parked). When Redis refuses a
//! batch as a whole (no permission for scripts), the lane is *blocked*: it tries again, loudly, and
//! keeps its records.
//!
//! # Many processes
//!
//! A directory belongs to one process at a time, or is [shared](SpoolDir::shared): then each process has a
//! slot of it, and what one leaves behind that has ended is delivered by the others.
//!
//! # Encryption
//!
//! With the feature `encrypt` and `SpoolOptions::with_keys`, records are encrypted before they are written:
//! see `Keys`.
//!
//! # Cancel safety
//!
//! Dropping the future of a call does not take its record back: see [`future::ResponseFuture`].
//!
//! # Default
//!
//! ```no_run
//! use seawall::{connect::{ConnectOptions, Connection}, sequence::{SequenceLayer, Write}};
//! use seawall::spool::{Spool, SpoolLayer, SpoolOptions};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let spool = Spool::open(SpoolOptions::new("/var/lib/app/spool")).await?;
//! let redis = Connection::open(ConnectOptions::from_url("redis://localhost")?)?;
//! let mut line = ServiceBuilder::new()
//!     .layer(SpoolLayer::new(&spool))
//!     .layer(SequenceLayer::new())
//!     .service(redis);
//! let receipt = line.ready().await?.call(Write::push_back("emails", "hello")).await?;
//! println!("{:?}", receipt.place());
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! ```no_run
//! use std::time::Duration;
//! use seawall::{sequence::Write, spool::{Ack, Overflow, Replay, Spool, SpoolOptions}};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let options = SpoolOptions::new("/var/lib/app/spool")
//!     .with_ack(Ack::Spooled) // on disk first, always
//!     .with_max_records(5_000_000)
//!     .with_overflow(Overflow::Block { timeout: Duration::from_secs(2) })
//!     .with_replay(Replay::new().with_rate(20_000));
//! let spool: Spool<Write> = Spool::open(options).await?;
//! // .. and at the end of the program:
//! let left = spool.shutdown(Duration::from_secs(10)).await?;
//! println!("{left} records stay on disk for the next run");
//! # Ok(())
//! # }
//! ```

mod applied;
mod audit;
mod batch;
mod chunk;
mod commit;
mod crypt;
mod detour;
mod dir;
mod driver;
mod ending;
mod error;
pub mod future;
mod intake;
mod lane;
mod layer;
mod limits;
mod options;
mod pace;
mod parking;
mod queue;
mod readiness;
mod replay;
mod service;
mod shared;
mod slots;
pub mod stopped;
mod store;
mod tail;
mod usage;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "encrypt")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypt")))]
pub use self::crypt::{InvalidKey, Key, Keys};
pub(crate) use self::detour::Detour;
pub use self::{
    applied::Applied,
    audit::{LaneLoss, Recovery},
    batch::{Asks, Batch, Place, Receipt, Spoolable, Undecodable},
    chunk::{LaneId, Parked},
    commit::Durability,
    crypt::KeyProblem,
    error::OpenError,
    layer::SpoolLayer,
    limits::{Bound, Overflow, QueueLimits, WhenOld},
    options::{Ack, Replay, SpoolOptions},
    parking::{InvalidParkedId, ParkedFilter, ParkedId},
    readiness::Readiness,
    service::Spooling,
    slots::SpoolDir,
    tail::TailOptions,
};
use self::{shared::Shared, slots::Adoption};
use crate::{
    classify::{Class, Verdict},
    error::{Error, ErrorKind},
};

/// An open spool.
///
/// A handle: cloning it is cheap. When the last handle, service and pending call is dropped, the
/// spool's tasks end where they are; what is on disk stays there. [`shutdown`](Self::shutdown) is the
/// orderly end.
pub struct Spool<T> {
    owner: Arc<Owner<T>>,
}

impl<T: Spoolable> Spool<T> {
    /// Opens the spool's directory, and makes it if it is missing.
    ///
    /// What an earlier run left there is delivered as soon as a [`SpoolLayer`] gives it a way out.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong with the directory and what to do: another process has it
    /// open, it can't be written, its format is of a newer version, a key is missing, it is damaged.
    pub async fn open(options: SpoolOptions) -> Result<Self, OpenError> {
        let opened = slots::open(&options).await?;
        let left = &opened.left;
        if !left.lanes.is_empty() {
            tracing::info!(
                records = left.lanes.iter().map(|lane| lane.records).sum::<u64>(),
                lanes = left.lanes.len(),
                parked = left.parked,
                "the spool holds records of an earlier run"
            );
        }
        let shared = Arc::new(Shared::new(options, opened, CancellationToken::new()));
        shared.watch_disk();
        let adoption = Adoption::default();
        Ok(Self {
            owner: Arc::new(Owner { shared, adoption }),
        })
    }

    /// Waits until nothing is left in memory or on disk: all is in Redis, or parked.
    ///
    /// While Redis is out that takes as long as the outage.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn flush(&self) {
        self.owner.shared.flush().await;
    }

    /// Ends in order: takes no more records, delivers what it can within `within`, writes the rest to
    /// disk, and closes the directory. Says how many records are there for the next run: those that wait, and
    /// those that Redis has and its replicas lack. A slot that was taken over from another process is given back
    /// as it is.
    ///
    /// # Errors
    ///
    /// The disk failed. Records without a receipt may be lost; their callers have an error, too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the spool closed to new records and otherwise at work.
    pub async fn shutdown(&self, within: Duration) -> Result<u64, Error> {
        let shared = &self.owner.shared;
        // For ever is a year.
        let deadline = Instant::now() + within.min(options::DAY * 365);
        let latest = deadline + shared.options.disk_timeout;
        let adoption = timeout_at(latest, self.owner.adoption.end());
        let (_, ()) = tokio::join!(adoption, shared.end_queues(deadline));
        shared.close_disk(deadline).await
    }

    /// Where it is: the directory, or the slot that it has of one that [many share](SpoolDir::shared).
    pub fn path(&self) -> PathBuf {
        self.owner.shared.place.path()
    }

    /// Whether it is safe to enqueue, from what is known already: it asks nobody and takes no time.
    pub fn readiness(&self) -> Readiness {
        let shared = &self.owner.shared;
        shared.usage.observe((&shared.disk.condition()).into());
        shared.usage.readiness()
    }

    /// The same for one queue, whose own bounds count as well: see [`QueueLimits`].
    pub fn readiness_of(&self, queue: &str) -> Readiness {
        let shared = &self.owner.shared;
        match (self.readiness(), shared.known(queue)) {
            (Readiness::Ready, Some(queue)) => shared.usage.readiness_of(queue.slot),
            (readiness, _) => readiness,
        }
    }

    /// The [readiness](Self::readiness) as it changes: once for each change, not for each record. For a
    /// readiness probe, or for a producer that would rather stop reading than be refused.
    pub fn watch_readiness(&self) -> watch::Receiver<Readiness> {
        self.owner.shared.usage.watch()
    }

    /// What was found when it was opened, or when it last had to be opened again with something missing.
    pub fn recovery(&self) -> Recovery {
        self.owner.shared.disk.recovery()
    }

    /// The ids of the keys that are needed: those that something on disk is encrypted with, and the
    /// current one. Empty if nothing is encrypted.
    ///
    /// A key that is replaced stays in this list until all that was written with it is delivered and its
    /// file is removed; a parked record keeps it there. Then it need not be given any more.
    ///
    /// # Errors
    ///
    /// The disk failed, or the spool has been shut down.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed by asking.
    pub async fn keys_in_use(&self) -> Result<Vec<u32>, Error> {
        let keys = self.owner.shared.disk.keys_in_use().await;
        let keys = keys.map_err(|error| disk_failed(&error))?;
        Ok(keys.into_iter().collect())
    }

    /// How much it holds, now.
    pub fn stats(&self) -> SpoolStats {
        let shared = &self.owner.shared;
        SpoolStats {
            records: shared.usage.waiting(),
            tail: shared.usage.tail(),
            bytes: shared.usage.bytes(),
            disk_bytes: shared.disk.bytes(),
            parked: shared.usage.parked(),
            lost: shared.disk.recovery().lost,
            oldest: shared
                .oldest_ms()
                .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
            accepting: !shared.is_closed() && !shared.disk.is_poisoned(),
        }
    }
}

fn disk_failed(error: &error::StoreError) -> Error {
    Error::new(
        ErrorKind::Spool,
        Verdict::new(Class::Outage, error.landed()),
    )
    .with_cause(error.to_string())
}

impl<T> Clone for Spool<T> {
    fn clone(&self) -> Self {
        Self {
            owner: self.owner.clone(),
        }
    }
}

impl<T> fmt::Debug for Spool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("options", &self.owner.shared.options)
            .finish()
    }
}

/// How much a [`Spool`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Records on disk that wait for Redis, and those on their way to disk: only a receipt says that one is there.
    pub records: u64,
    /// Records on disk that Redis has acknowledged and its replicas may lack, kept for the case that Redis loses
    /// them: see [`TailOptions`].
    pub tail: u64,
    /// Bytes of the records on disk, parked ones and those of a tail included.
    pub bytes: u64,
    /// The size of the spool's files.
    pub disk_bytes: u64,
    /// Records on disk that Redis will never take.
    pub parked: u64,
    /// Records that had to be on disk when it was opened, and were not: see [`Spool::recovery`].
    pub lost: u64,
    /// When the oldest record that waits was written.
    pub oldest: Option<SystemTime>,
    /// Whether it takes records: it does not once it is shut down, or once the disk has failed.
    pub accepting: bool,
}

/// What handles, services and pending calls share; the tasks end with the last of them.
#[derive(Debug)]
pub(crate) struct Owner<T> {
    shared: Arc<Shared<T>>,
    adoption: Adoption,
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

//! The one thread that owns the store, and group commit.
//!
//! Whatever has gathered while the disk was busy becomes one write: one batch, one flush, one
//! `fdatasync`, and then everyone who waited for it is answered at once. There is no timer in the
//! way of a write: alone it goes at once.
//!
//! After a write that fails the disk is *poisoned*: what an operating system keeps of a
//! failed write is anybody's guess, so nothing is written any more until the thread has opened the store
//! anew and has read what is really there. It tries, with growing delays, until that works.

mod ledger;
mod opening;
mod read;
#[cfg(test)]
mod tests;
mod thread;
mod watchdog;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub(super) use self::read::{Left, LeftLane};
use self::{thread::Committer, watchdog::Watchdog};
use super::{
    audit::Recovery,
    chunk::{Chunk, Held, Key, Kind, LaneId, Parked},
    crypt::{KeyId, Ring},
    dir::{Directory, failed},
    error::{OpenError, StoreError},
    parking::ParkedId,
    store::{Opened, Opener, Store},
};
use crate::metrics::SpoolMetrics;

/// What a record on disk is safe from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The machine losing its power: each write is followed by an `fdatasync`. This is the default.
    #[default]
    PowerLoss,
    /// The process being killed, and no more: the operating system is told, the disk is not asked.
    ProcessCrash,
}

/// What a disk is opened with.
#[derive(Clone, Debug)]
pub(super) struct DiskOptions {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    /// Missing records are an error, not a report.
    pub(super) strict: bool,
    /// A network file system will do.
    pub(super) network: bool,
    pub(super) generation_bytes: u64,
    /// Nothing is taken in with less room than this; `None` for the default.
    pub(super) min_free: Option<u64>,
    /// How long one step of the disk may take before it counts as stalled.
    pub(super) stalled_after: Duration,
    pub(super) ring: Arc<Ring>,
    pub(super) metrics: SpoolMetrics,
}

/// How the disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    #[default]
    Fine,
    /// It has so many bytes of room left: too few.
    Low(u64),
    /// It has not answered for too long.
    Stalled,
    /// It has failed, for this reason.
    Failed(Arc<str>),
}

/// Records of a lane that are done with: delivered, parked, expired or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) lane: LaneId,
    /// Everything up to this number.
    pub(super) through: u64,
    /// How many records on disk that newly is.
    pub(super) records: u64,
}

/// A handle to the thread; the last one to go ends it.
///
/// Ending takes one more commit, for the removals that have gathered, and happens on the thread
/// itself: dropping a handle never waits. [`close`](Self::close) waits.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    ring: Arc<Ring>,
}

impl Disk {
    /// Opens or makes the spool, and says what an earlier run has left in it.
    ///
    /// Blocks, for as long as it takes to read all that is left.
    pub(super) fn open(options: &DiskOptions) -> Result<(Self, Left), OpenError> {
        let directory = Arc::new(Directory::open(&options.path, options.network)?);
        let opener = Opener {
            directory,
            strict: options.strict,
            generation_bytes: options.generation_bytes,
            ring: options.ring.clone(),
        };
        Self::start(options, move || opener.open())
    }

    /// What opening the spool would find. Writes to none of its files.
    ///
    /// Without keys, what is encrypted is looked at as far as its checksums go.
    ///
    /// Blocks, as [`open`](Self::open) does.
    pub(super) fn verify(options: &DiskOptions) -> Result<Recovery, OpenError> {
        let opener = Opener {
            directory: Arc::new(Directory::open(&options.path, options.network)?),
            // Nothing is set aside.
            strict: true,
            generation_bytes: options.generation_bytes,
            ring: options.ring.clone(),
        };
        let opened = opening::read(&options.ring, &mut || opener.open())?;
        let verdict = opened.audit.conclude(opened.clean.as_ref(), None);
        if options.ring.current().is_some() {
            opening::check_keys(options, &verdict)?;
        }
        Ok(verdict.recovery)
    }

    /// As [`open`](Self::open), over any store; `open` runs on the thread that will own it, and again after a failure.
    pub(super) fn start<S: Store>(
        options: &DiskOptions,
        open: impl FnMut() -> Result<Opened<S>, OpenError> + Send + 'static,
    ) -> Result<(Self, Left), OpenError> {
        let (commands, inbox) = mpsc::channel();
        let (report, opened) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let watchdog = Watchdog::start(&shared, options)?;
        let thread = {
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            move || {
                let _watchdog = watchdog;
                match Committer::open(options, open, shared) {
                    Ok((committer, left)) => {
                        // Nobody listens any more if the one who opens has been cancelled.
                        if report.send(Ok(left)).is_ok() {
                            committer.run(&inbox);
                        }
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("seawall-spool".to_owned())
            .spawn(thread)
            .map_err(failed("start the thread for", &options.path))?;
        let left = opened
            .recv()
            .expect("the thread reports before it ends, also when the store panics")?;
        let disk = Self {
            commands,
            room: Arc::new(Semaphore::new(ROOM_UNITS as usize)),
            shared,
            ring: options.ring.clone(),
        };
        Ok((disk, left))
    }

    /// Writes chunks, all or none, and comes back once they are durable.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, it may or may not be done. It is not undone.
    pub(super) async fn append(&self, chunks: Vec<Chunk>) -> Result<(), StoreError> {
        if let Condition::Low(free) = self.condition() {
            return Err(StoreError::Full(free));
        }
        self.write(chunks, None, Vec::new()).await
    }

    /// Keeps refused records apart, consecutive ones of one lane. Where they waited they are
    /// [done](Self::done) with in the same step.
    ///
    /// A commit that is torn parks none of them: what still waits may be taken the next time, and would be
    /// there twice. Says which of them had been parked before.
    ///
    /// # Cancel safety
    ///
    /// As with [`append`](Self::append).
    pub(super) async fn park(
        &self,
        parked: Vec<Parked>,
        done: Done,
    ) -> Result<Replaced, StoreError> {
        let mut replaced = Replaced::default();
        if let Some(first) = parked.first() {
            let before = ParkedId::new(first.lane, first.number.saturating_sub(1));
            let mut same = self.parked(Some(before), parked.len(), usize::MAX).await?;
            same.retain(|there| parked.iter().any(|parked| parked.id() == there.id()));
            replaced.records = same.len() as u64;
            replaced.bytes = same.iter().map(Parked::bytes).sum();
        }
        let put = parked.iter().flat_map(Parked::encode);
        let put = put.map(Chunk::all_or_nothing).collect();
        self.write(put, Some(done), Vec::new()).await?;
        Ok(replaced)
    }

    /// Lets go of the parked records `which` and writes `put`, all or nothing, and comes back once that is
    /// durable. Those of `which` that are not there are no error.
    ///
    /// # Cancel safety
    ///
    /// As with [`append`](Self::append).
    pub(super) async fn unpark(
        &self,
        which: Vec<ParkedId>,
        put: Vec<Chunk>,
    ) -> Result<(), StoreError> {
        let put = put.into_iter().map(Chunk::all_or_nothing).collect();
        let gone = which.into_iter();
        let gone = gone.map(|id| Key::new(Kind::Parked, id.lane(), id.number(), 0));
        self.write(put, None, gone.collect()).await
    }

    /// Comes back once all that was handed over before is durable, what is done with included.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        self.write(Vec::new(), None, Vec::new()).await
    }

    /// Records are done with; nobody waits for that.
    ///
    /// It is noted with the next write, or by itself when 64 have gathered or 0.1 s have passed. Until
    /// then they can still be read; if the process dies first, they are delivered twice.
    pub(super) fn done(&self, done: Done) {
        let mut gathered = self.shared.done.lock();
        let first = gathered.count == 0;
        gathered.add(done);
        drop(gathered);
        if first {
            // If the thread has ended, so has the use of noting it.
            let _ = self.commands.send(Command::Wake);
        }
    }

    /// The records of a lane in their order, from the chunk that has number `from`, or from the
    /// next one. Stops with the chunk that reaches one of the limits: at least one if there is any.
    pub(super) async fn read(
        &self,
        lane: LaneId,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Held>, StoreError> {
        let wanted = Wanted {
            lane,
            from,
            max_records,
            max_bytes,
        };
        self.ask(1, |room, answer| Command::Read(wanted, room, answer))
            .await?
    }

    /// The refused records that are kept, by lane and number, the oldest lane first: those that follow
    /// `after`. Stops with the one that reaches one of the limits: at least one if there is any.
    pub(super) async fn parked(
        &self,
        after: Option<ParkedId>,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Parked>, StoreError> {
        let page = Page {
            after,
            max_records,
            max_bytes,
        };
        self.ask(1, |room, answer| Command::Parked(page, room, answer))
            .await?
    }

    /// The ids of the keys that something on disk is encrypted with, and of the one that is written with.
    pub(super) async fn keys_in_use(&self) -> Result<BTreeSet<KeyId>, StoreError> {
        let mut keys = self.ask(1, Command::Keys).await??;
        keys.extend(self.ring.current());
        Ok(keys)
    }

    /// What encryption adds to each chunk, in bytes: those who make chunks leave it free.
    pub(super) fn overhead(&self) -> usize {
        self.ring.overhead()
    }

    /// Makes what was handed over durable, ends the thread and gives the directory back.
    ///
    /// The other handles are closed with it.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.ask(1, Command::Close).await?
    }

    /// How it is now.
    pub(super) fn condition(&self) -> Condition {
        self.shared.condition.borrow().clone()
    }

    /// Changes with how it is.
    pub(super) fn watch_condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    pub(super) fn is_poisoned(&self) -> bool {
        matches!(&*self.shared.condition.borrow(), Condition::Failed(_))
    }

    /// The size of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// What was found when it was opened, the last time that something was amiss.
    pub(super) fn recovery(&self) -> Recovery {
        self.shared.recovery.lock().clone()
    }

    /// Encrypted here, in the caller's task: the thread has enough to do.
    async fn write(
        &self,
        mut put: Vec<Chunk>,
        done: Option<Done>,
        gone: Vec<Key>,
    ) -> Result<(), StoreError> {
        if let Condition::Failed(why) = self.condition() {
            return Err(StoreError::Poisoned(why));
        }
        self.ring.encrypt(&mut put)?;
        let bytes = put.iter().map(Chunk::bytes).sum::<u64>() / UNIT_BYTES;
        let units = u32::try_from(bytes).map_or(ROOM_UNITS, |units| (units + 1).min(ROOM_UNITS));
        self.ask(units, |room, answer| {
            Command::Write(Write {
                put,
                done,
                gone,
                answer,
                room,
            })
        })
        .await
        .unwrap_or_else(|lost| Err(lost.into_write()))
    }

    /// Waits for room, hands a command over, and waits for its answer.
    async fn ask<T>(
        &self,
        units: u32,
        command: impl FnOnce(OwnedSemaphorePermit, oneshot::Sender<T>) -> Command,
    ) -> Result<T, Lost> {
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        let room = room.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(room, answer))
            .map_err(|_| Lost::Refused)?;
        answered.await.map_err(|_| Lost::Unanswered)
    }
}

/// The thread has ended.
enum Lost {
    /// Before it was asked.
    Refused,
    /// While it was asked.
    Unanswered,
}

impl Lost {
    fn into_write(self) -> StoreError {
        match self {
            Self::Refused => StoreError::Closed,
            Self::Unanswered => StoreError::Unknown("its thread has ended".into()),
        }
    }
}

impl From<Lost> for StoreError {
    fn from(_: Lost) -> Self {
        Self::Closed
    }
}

/// What handles and threads see.
#[derive(Debug, Default)]
struct Shared {
    /// What is to be noted with the next commit.
    done: Mutex<Gathered>,
    condition: watch::Sender<Condition>,
    bytes: AtomicU64,
    recovery: Mutex<Recovery>,
    pulse: watchdog::Pulse,
}

/// What is done with, by lane: as many entries as there are lanes.
#[derive(Debug, Default)]
struct Gathered {
    lanes: BTreeMap<LaneId, Done>,
    /// How often something was added.
    count: usize,
}

impl Gathered {
    fn add(&mut self, done: Done) {
        let sum = self
            .lanes
            .entry(done.lane)
            .or_insert(Done { records: 0, ..done });
        sum.through = sum.through.max(done.through);
        sum.records += done.records;
        self.count += 1;
    }
}

/// What the thread is asked to do. Each holds its share of the queue's room until it is done.
enum Command {
    Write(Write),
    Read(
        Wanted,
        OwnedSemaphorePermit,
        oneshot::Sender<Result<Vec<Held>, StoreError>>,
    ),
    Parked(
        Page,
        OwnedSemaphorePermit,
        oneshot::Sender<Result<Vec<Parked>, StoreError>>,
    ),
    Keys(
        OwnedSemaphorePermit,
        oneshot::Sender<Result<BTreeSet<KeyId>, StoreError>>,
    ),
    Close(
        OwnedSemaphorePermit,
        oneshot::Sender<Result<(), StoreError>>,
    ),
    /// Something is done with. Takes no room: there is at most one for each commit.
    Wake,
}

struct Write {
    put: Vec<Chunk>,
    done: Option<Done>,
    gone: Vec<Key>,
    answer: oneshot::Sender<Result<(), StoreError>>,
    room: OwnedSemaphorePermit,
}

/// Which records are to be read.
#[derive(Clone, Copy)]
struct Wanted {
    lane: LaneId,
    from: u64,
    max_records: usize,
    max_bytes: usize,
}

/// Which parked records are to be read.
#[derive(Clone, Copy)]
struct Page {
    after: Option<ParkedId>,
    max_records: usize,
    max_bytes: usize,
}

/// What has taken the place of the same records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// The queue to the thread holds 1,024 small commands, or 64 MiB; more wait outside.
const ROOM_UNITS: u32 = 1024;
const UNIT_BYTES: u64 = 64 * 1024;

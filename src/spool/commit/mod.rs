//! The one thread that owns the store, and group commit.
//!
//! Whatever has gathered while the disk was busy becomes one write: one batch, one flush, one
//! `fdatasync`, and then everyone who waited for it is answered at once. There is no timer in the
//! way of a write: alone it goes at once.
//!
//! After the first write that fails the disk is *poisoned*: what an operating system keeps of a
//! failed write is anybody's guess, so nothing is written any more until the spool has been opened
//! anew and has read what is really there.

mod read;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, mpsc},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub(super) use self::read::{Left, LeftLane};
use self::thread::Committer;
use super::{
    chunk::{Chunk, Held, Key, LaneId, Parked},
    dir::{Directory, failed},
    error::{OpenError, StoreError},
    parking::ParkedId,
    store::{Changes, SledStore, Store},
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
    pub(super) metrics: SpoolMetrics,
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
}

impl Disk {
    /// Opens or makes the spool, and says what an earlier run has left in it.
    ///
    /// Blocks, for as long as it takes to read all that is left.
    pub(super) fn open(options: &DiskOptions) -> Result<(Self, Left), OpenError> {
        let directory = Directory::open(&options.path)?;
        Self::start(options, move || SledStore::open(directory))
    }

    /// The same, over any store; `open` runs on the thread that will own it.
    pub(super) fn start<S: Store>(
        options: &DiskOptions,
        open: impl FnOnce() -> Result<S, OpenError> + Send + 'static,
    ) -> Result<(Self, Left), OpenError> {
        let (commands, inbox) = mpsc::channel();
        let (report, opened) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let thread = {
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            move || match Committer::open(&options, open, shared) {
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
        };
        Ok((disk, left))
    }

    /// Writes chunks, all or none, and comes back once they are durable.
    ///
    /// # Cancel safety
    ///
    /// Dropped after its first poll, it may or may not be done. It is not undone.
    pub(super) async fn append(&self, chunks: Vec<Chunk>) -> Result<(), StoreError> {
        self.write(chunks, Vec::new()).await
    }

    /// Keeps refused records apart, consecutive ones of one lane, with the chunks they came in removed in
    /// the same step.
    ///
    /// Says which of them had been parked before, by a run that died before it removed them.
    ///
    /// # Cancel safety
    ///
    /// As with [`append`](Self::append).
    pub(super) async fn park(
        &self,
        parked: Vec<Parked>,
        remove: Vec<Key>,
    ) -> Result<Replaced, StoreError> {
        let mut replaced = Replaced::default();
        if let Some(first) = parked.first() {
            let before = ParkedId::new(first.lane, first.number.saturating_sub(1));
            let mut same = self.parked(Some(before), parked.len(), usize::MAX).await?;
            same.retain(|there| parked.iter().any(|parked| parked.id() == there.id()));
            replaced.records = same.len() as u64;
            replaced.bytes = same.iter().map(Parked::bytes).sum();
        }
        self.write(parked.iter().flat_map(Parked::encode).collect(), remove)
            .await?;
        Ok(replaced)
    }

    /// Drops the parked records `which` and writes `put`, all or nothing, and comes back once that is
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
        self.change(put, Vec::new(), |write| Command::Unpark(which, write))
            .await
    }

    /// Comes back once all that was handed over before is durable, removals included.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        self.write(Vec::new(), Vec::new()).await
    }

    /// Drops chunks whose records are delivered; nobody waits for that.
    ///
    /// It goes with the next write, or by itself when 64 have gathered or 0.1 s have passed. Until
    /// then they can still be read; if the process dies first, they are delivered twice.
    pub(super) fn remove(&self, keys: Vec<Key>) {
        if keys.is_empty() || self.is_poisoned() {
            return;
        }
        // As many as there are chunks on disk at most, 27 bytes each.
        let mut removed = self.shared.removed.lock();
        let first = removed.is_empty();
        removed.extend(keys);
        drop(removed);
        if first {
            // If the thread has ended, so has the use of removing.
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

    /// Makes what was handed over durable, ends the thread and gives the directory back.
    ///
    /// The other handles are closed with it.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.ask(1, Command::Close).await?
    }

    /// A write has failed, and no other will be tried.
    pub(super) fn is_poisoned(&self) -> bool {
        self.shared.poison.get().is_some()
    }

    async fn write(&self, put: Vec<Chunk>, remove: Vec<Key>) -> Result<(), StoreError> {
        self.change(put, remove, Command::Write).await
    }

    async fn change(
        &self,
        put: Vec<Chunk>,
        remove: Vec<Key>,
        command: impl FnOnce(Write) -> Command,
    ) -> Result<(), StoreError> {
        let bytes = put.iter().map(Chunk::bytes).sum::<u64>() / UNIT_BYTES;
        let units = u32::try_from(bytes).map_or(ROOM_UNITS, |units| (units + 1).min(ROOM_UNITS));
        self.ask(units, |room, answer| {
            let changes = Changes { remove, put };
            command(Write {
                changes,
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

/// What handles and thread both see.
#[derive(Debug, Default)]
struct Shared {
    /// Chunks to drop with the next commit.
    removed: Mutex<Vec<Key>>,
    /// Why the disk is poisoned, once it is.
    poison: OnceLock<Arc<str>>,
}

/// What the thread is asked to do. Each holds its share of the queue's room until it is done.
enum Command {
    Write(Write),
    Read(
        Wanted,
        OwnedSemaphorePermit,
        oneshot::Sender<Result<Vec<Held>, StoreError>>,
    ),
    /// The parked records that are to be dropped with the write.
    Unpark(Vec<ParkedId>, Write),
    Parked(
        Page,
        OwnedSemaphorePermit,
        oneshot::Sender<Result<Vec<Parked>, StoreError>>,
    ),
    Close(
        OwnedSemaphorePermit,
        oneshot::Sender<Result<(), StoreError>>,
    ),
    /// There are chunks to drop. Takes no room: there is at most one for each commit.
    Wake,
}

struct Write {
    changes: Changes,
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

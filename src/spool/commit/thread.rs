//! What the thread does: gather, read, commit, answer.

use std::{
    any::Any,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Command, DiskOptions, Durability, Left, Shared, Write,
    read::{left, parked, parked_keys, read},
};
use crate::{
    metrics::SpoolMetrics,
    spool::{
        chunk::Key,
        error::{OpenError, StoreError},
        store::{Changes, Store},
    },
};

/// The store, and what it takes to commit to it.
pub(super) struct Committer<S> {
    store: S,
    durability: Durability,
    metrics: SpoolMetrics,
    shared: Arc<Shared>,
    /// When the oldest of the removals that have gathered was noticed.
    removing_since: Option<Instant>,
}

impl<S: Store> Committer<S> {
    /// Opens the store and looks through it. A store that panics over what it finds is damaged.
    pub(super) fn open(
        options: &DiskOptions,
        open: impl FnOnce() -> Result<S, OpenError>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Left), OpenError> {
        let damaged = |what: String| OpenError::Damaged {
            path: options.path.clone(),
            what,
        };
        let look = || {
            let store = open()?;
            let left = left(&store).map_err(|error| damaged(error.to_string()))?;
            Ok((store, left))
        };
        let (store, left) = catch_unwind(AssertUnwindSafe(look))
            .map_err(|_| damaged("the store panicked while it was opened".to_owned()))??;
        let committer = Self {
            store,
            durability: options.durability,
            metrics: options.metrics.clone(),
            shared,
            removing_since: None,
        };
        committer.metrics.poisoned.set(0);
        committer.measure();
        Ok((committer, left))
    }

    /// Serves until it is told to close, or until no handle is left.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let closed = loop {
            let first = match self.next(inbox) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.commit(Vec::new());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit(Vec::new());
                    break None;
                }
            };
            let mut gathered = Gathered::default();
            let mut next = Some(first);
            while let Some(command) = next {
                next = match self.take(command, &mut gathered) {
                    ControlFlow::Continue(()) => inbox.try_recv().ok(),
                    ControlFlow::Break(()) => None,
                };
            }
            let enough = self.shared.removed.lock().len() >= REMOVALS;
            if enough || !gathered.writes.is_empty() || gathered.close.is_some() {
                self.commit(gathered.writes);
            }
            if gathered.close.is_some() {
                break gathered.close;
            }
        };
        let result = self.poison().map_or(Ok(()), Err);
        // Closing writes once more, and the directory is free only then.
        let ended = catch_unwind(AssertUnwindSafe(|| drop(self.store)));
        let result = ended.map_or_else(
            |panic| Err(StoreError::Unknown(panicked(&*panic))),
            |()| result,
        );
        if let Some(answer) = closed {
            let _ = answer.send(result);
        }
    }

    /// The next command; no later than when the removals that have gathered are due.
    fn next(&mut self, inbox: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        match self.removing_since {
            Some(since) => inbox.recv_timeout(REMOVAL_DELAY.saturating_sub(Instant::now() - since)),
            None => inbox.recv().map_err(RecvTimeoutError::from),
        }
    }

    /// Reads at once and keeps writes for the commit; breaks off when that is large enough.
    ///
    /// So a read never waits for writes that came after it. What was answered before it was asked,
    /// it sees.
    fn take(&mut self, command: Command, gathered: &mut Gathered) -> ControlFlow<()> {
        match command {
            Command::Read(wanted, _room, answer) => {
                let _ = answer.send(self.look(|store| read(store, wanted)));
            }
            Command::Parked(page, _room, answer) => {
                let _ = answer.send(self.look(|store| parked(store, page)));
            }
            Command::Write(write) => gathered.add(write),
            Command::Unpark(which, mut write) => {
                match self.look(|store| parked_keys(store, &which)) {
                    Ok(keys) => {
                        write.changes.remove.extend(keys);
                        gathered.add(write);
                    }
                    Err(error) => {
                        let _ = write.answer.send(Err(error));
                    }
                }
            }
            Command::Wake => self.removing_since = Some(Instant::now()),
            Command::Close(_room, answer) => {
                gathered.close = Some(answer);
                return ControlFlow::Break(());
            }
        }
        if gathered.bytes < COMMIT_BYTES {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    fn look<T>(&self, at: impl FnOnce(&S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        catch_unwind(AssertUnwindSafe(|| at(&self.store))).unwrap_or_else(|panic| {
            Err(self.poisoned_by(StoreError::Unreadable(panicked(&*panic))))
        })
    }

    /// One write to disk, with all removals that have gathered, and the answers to it.
    fn commit(&mut self, writes: Vec<Write>) {
        self.removing_since = None;
        let removed = std::mem::take(&mut *self.shared.removed.lock());
        let mut pieces = removed.chunks(REMOVALS).map(<[Key]>::to_vec);
        let last = pieces.next_back().unwrap_or_default();
        for remove in pieces {
            let put = Vec::new();
            // Should it fail, so will what follows: the disk is poisoned then.
            let _ = self.write(Changes { remove, put });
        }
        let mut changes = Changes {
            remove: last,
            put: Vec::new(),
        };
        let mut answers = Vec::with_capacity(writes.len());
        let mut rooms = Vec::with_capacity(writes.len());
        for write in writes {
            changes.remove.extend(write.changes.remove);
            changes.put.extend(write.changes.put);
            answers.push(write.answer);
            rooms.push(write.room);
        }
        let result = self.write(changes);
        // First, so that who has the answer finds the room it took free again.
        drop(rooms);
        for answer in answers {
            let _ = answer.send(result.clone());
        }
    }

    fn write(&mut self, changes: Changes) -> Result<(), StoreError> {
        if let Some(error) = self.poison() {
            return Err(error);
        }
        if changes.remove.is_empty() && changes.put.is_empty() {
            return Ok(());
        }
        let records: u32 = changes.put.iter().map(|chunk| chunk.records).sum();
        let started = Instant::now();
        catch_unwind(AssertUnwindSafe(|| self.make_durable(changes)))
            .unwrap_or_else(|panic| Err(StoreError::Unknown(panicked(&*panic))))
            .map_err(|error| self.poisoned_by(error))?;
        self.metrics
            .commit_seconds
            .observe((Instant::now() - started).as_secs_f64());
        if records > 0 {
            self.metrics.commit_records.observe(records.into());
        }
        self.measure();
        Ok(())
    }

    fn make_durable(&mut self, changes: Changes) -> Result<(), StoreError> {
        self.store.apply(changes)?;
        self.store.flush()?;
        match self.durability {
            Durability::PowerLoss => self.store.sync(),
            Durability::ProcessCrash => Ok(()),
        }
    }

    /// The first failure is the one that is remembered.
    fn poisoned_by(&self, error: StoreError) -> StoreError {
        let why = match &error {
            StoreError::Unknown(why) | StoreError::Unreadable(why) => Arc::clone(why),
            other => other.to_string().into(),
        };
        if self.shared.poison.set(why).is_ok() {
            self.metrics.poisoned.set(1);
            self.shared.removed.lock().clear();
            tracing::error!(%error, "the spool takes no more records until it is opened again");
        }
        error
    }

    fn poison(&self) -> Option<StoreError> {
        let why = self.shared.poison.get()?;
        Some(StoreError::Poisoned(Arc::clone(why)))
    }

    fn measure(&self) {
        if let Ok(bytes) = self.store.disk_bytes() {
            self.metrics
                .disk_bytes
                .set(bytes.try_into().unwrap_or(i64::MAX));
        }
    }
}

/// What came in while the disk was busy.
#[derive(Default)]
struct Gathered {
    writes: Vec<Write>,
    bytes: u64,
    close: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Gathered {
    fn add(&mut self, write: Write) {
        let put = write.changes.put.iter();
        self.bytes += put.map(|chunk| chunk.bytes()).sum::<u64>();
        self.writes.push(write);
    }
}

/// What the panic said stays where the panic hook has put it: it may quote what is on disk.
fn panicked(_: &(dyn Any + Send)) -> Arc<str> {
    "the store panicked".into()
}

/// A commit that is larger goes in several, so that the memory it takes is bounded.
const COMMIT_BYTES: u64 = 8 << 20;

/// Removals alone wait until there are as many: replay would else pay an `fdatasync` for each of its
/// batches. They go no more at a time, since each makes the store move other pages about as well.
const REMOVALS: usize = 64;
const REMOVAL_DELAY: Duration = Duration::from_millis(100);

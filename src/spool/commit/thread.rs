//! What the thread does: gather, read, commit, answer, and open the store again when it has failed.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Command, Condition, DiskOptions, Durability, Left, Shared, Write,
    ledger::{Draft, Ledger},
    opening::{self, Ready},
    read::{parked, read},
};
use crate::spool::{
    chunk::Chunk,
    crypt::Ring,
    dir::Clean,
    error::{OpenError, StoreError},
    store::{Opened, Store},
};

/// The store, and what it takes to commit to it.
pub(super) struct Committer<S, O> {
    pub(super) options: DiskOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) open: O,
    pub(super) state: State<S>,
    /// When the oldest of what is to be noted as done was brought.
    noting_since: Option<Instant>,
    pub(super) ballast: bool,
}

pub(super) enum State<S> {
    Open { store: S, ledger: Ledger },
    Failed(Failed),
}

/// It has failed, and is to be opened again.
#[derive(Clone)]
pub(super) struct Failed {
    pub(super) why: Arc<str>,
    /// The commit that has failed, if one has.
    pub(super) commit: Option<u64>,
    /// What the disk held, if it was not a commit that failed.
    pub(super) held: Option<Clean>,
    pub(super) again_at: Instant,
    pub(super) delay: Duration,
}

impl<S: Store, O: FnMut() -> Result<Opened<S>, OpenError>> Committer<S, O> {
    /// Opens the store and looks through it.
    pub(super) fn open(
        options: DiskOptions,
        mut open: O,
        shared: Arc<Shared>,
    ) -> Result<(Self, Left), OpenError> {
        let Ready {
            store,
            ledger,
            verdict,
        } = opening::open(&options, &mut open, None)?;
        let mut committer = Self {
            options,
            shared,
            open,
            state: State::Open { store, ledger },
            noting_since: None,
            ballast: false,
        };
        opening::tell(&committer.options, &verdict.recovery);
        committer
            .shared
            .recovery
            .lock()
            .clone_from(&verdict.recovery);
        committer
            .say_voids(&verdict)
            .and_then(|()| committer.settle_in(&verdict))
            .map_err(|error| OpenError::Io {
                action: "write to",
                path: committer.options.path.clone(),
                source: std::io::Error::other(error),
            })?;
        Ok((committer, verdict.left))
    }

    /// Serves until it is told to close, or until no handle is left.
    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let closed = loop {
            let first = match self.next(inbox) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.on_time();
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
            let due = self
                .noting_since
                .is_some_and(|since| since.elapsed() >= NOTE_DELAY);
            let enough = due || self.shared.done.lock().count >= NOTES;
            if enough || !gathered.writes.is_empty() || gathered.close.is_some() {
                self.commit(gathered.writes);
            }
            if gathered.close.is_some() {
                break gathered.close;
            }
            self.open_again_if_due();
        };
        let result = self.close();
        if let Some(answer) = closed {
            let _ = answer.send(result);
        }
    }

    /// The directory is free only when this comes back.
    fn close(self) -> Result<(), StoreError> {
        self.shared.pulse.set_poke(None);
        match self.state {
            State::Open { store, ledger } => {
                let clean = ledger.clean();
                guarded(|| store.close(&clean))
            }
            State::Failed(failed) => Err(StoreError::Poisoned(failed.why)),
        }
    }

    /// The next command; no later than when something is due.
    fn next(&mut self, inbox: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        self.shared.pulse.end();
        let now = Instant::now();
        let due = match &self.state {
            State::Failed(failed) => Some(failed.again_at),
            State::Open { .. } => {
                let note = self.noting_since.map(|since| since + NOTE_DELAY);
                let fine = self.ballast && *self.shared.condition.borrow() == Condition::Fine;
                let look = (!fine).then(|| now + LOOK_DELAY);
                note.into_iter().chain(look).min()
            }
        };
        let command = match due {
            Some(due) => inbox.recv_timeout(due.saturating_duration_since(now)),
            None => inbox.recv().map_err(RecvTimeoutError::from),
        };
        self.shared.pulse.begin();
        command
    }

    fn on_time(&mut self) {
        if let State::Open { .. } = &self.state {
            self.commit(Vec::new());
            self.measure();
        }
        self.open_again_if_due();
    }

    /// Reads at once and keeps writes for the commit; breaks off when that is large enough.
    ///
    /// So a read never waits for writes that came after it. What was answered before it was asked,
    /// it sees.
    fn take(&mut self, command: Command, gathered: &mut Gathered) -> ControlFlow<()> {
        match command {
            Command::Read(wanted, _room, answer) => {
                let _ = answer.send(self.look(|store, _, ring| read(store, ring, wanted)));
                gathered.looks += 1;
            }
            Command::Parked(page, _room, answer) => {
                let _ =
                    answer.send(self.look(|store, ledger, ring| parked(store, ring, ledger, page)));
            }
            Command::Write(write) => gathered.add(write),
            Command::Wake => self.noting_since = Some(Instant::now()),
            Command::Keys(_room, answer) => {
                let _ = answer.send(self.look(|store, _, _| Ok(store.keys())));
            }
            Command::Close(_room, answer) => {
                gathered.close = Some(answer);
                return ControlFlow::Break(());
            }
        }
        if gathered.bytes < COMMIT_BYTES && gathered.looks < MOST_LOOKS {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// What can't be read, or is not what was written, is found out about by opening it again.
    fn look<T>(
        &mut self,
        at: impl FnOnce(&S, &Ledger, &Ring) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let State::Open { store, ledger } = &self.state else {
            return Err(self.refusal());
        };
        let ring = &self.options.ring;
        catch_unwind(AssertUnwindSafe(|| at(store, ledger, ring)))
            .unwrap_or_else(|_| Err(StoreError::Unreadable(PANICKED.into())))
            .map_err(|error| self.fail(error, None))
    }

    fn refusal(&self) -> StoreError {
        match &self.state {
            State::Failed(failed) => StoreError::Poisoned(failed.why.clone()),
            State::Open { .. } => StoreError::Closed,
        }
    }

    /// One write to disk, with all that is to be noted, and the answers to it.
    fn commit(&mut self, writes: Vec<Write>) {
        let mut draft = Draft::default();
        let mut answers = Vec::with_capacity(writes.len());
        let mut rooms = Vec::with_capacity(writes.len());
        for write in writes {
            draft.put.extend(write.put);
            draft.note(write.done);
            draft.gone.extend(write.gone);
            answers.push(write.answer);
            rooms.push(write.room);
        }
        let result = self.write_noting(draft);
        // First, so that who has the answer finds the room it took free again.
        drop(rooms);
        for answer in answers {
            let _ = answer.send(result.clone());
        }
    }

    /// What is noted as done stays to be noted until that is durable.
    pub(super) fn write_noting(&mut self, mut draft: Draft) -> Result<(), StoreError> {
        self.noting_since = None;
        if let State::Failed(_) = &self.state {
            return Err(self.refusal());
        }
        let noted = std::mem::take(&mut *self.shared.done.lock());
        noted
            .lanes
            .values()
            .for_each(|done| draft.note(Some(*done)));
        let frees = !draft.done.is_empty() || !draft.gone.is_empty();
        if let Err(error) = self.write(draft) {
            let mut done = self.shared.done.lock();
            noted.lanes.into_values().for_each(|note| done.add(note));
            return Err(error);
        }
        // What was asked for is durable; that this fails is the next one's problem.
        if self.roll_over() || frees {
            let _ = self.reclaim();
        }
        self.measure();
        Ok(())
    }

    pub(super) fn write(&mut self, draft: Draft) -> Result<(), StoreError> {
        if draft.is_empty() {
            return Ok(());
        }
        let State::Open { store, ledger } = &mut self.state else {
            return Err(self.refusal());
        };
        let records: u32 = draft.put.iter().map(|chunk| chunk.records).sum();
        let started = Instant::now();
        let durability = self.options.durability;
        let chunks = ledger.stamp(draft);
        let commit = ledger.commit();
        if let Err(error) = guarded(|| make_durable(store, chunks, durability)) {
            return Err(self.fail(error, Some(commit)));
        }
        let metrics = &self.options.metrics;
        metrics
            .commit_seconds
            .observe((Instant::now() - started).as_secs_f64());
        if records > 0 {
            metrics.commit_records.observe(records.into());
        }
        Ok(())
    }

    /// Begins a new generation if it is time for one. Says whether it has.
    fn roll_over(&mut self) -> bool {
        let State::Open { store, .. } = &mut self.state else {
            return false;
        };
        match guarded(|| store.roll_over()) {
            Ok(true) => {
                self.shared.pulse.set_poke(store.poke());
                // It may have taken the room that was set aside.
                self.ballast = false;
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.fail(error, None);
                false
            }
        }
    }

    /// Gives back the room of what is done with, as far as it can. Nothing rolls over meanwhile: what is
    /// copied, and what is said again about it, are in one generation.
    pub(super) fn reclaim(&mut self) -> Result<(), StoreError> {
        loop {
            let State::Open { store, ledger } = &self.state else {
                return Err(self.refusal());
            };
            let Some(reclaim) = store.reclaimable(ledger) else {
                return Ok(());
            };
            self.write(Draft {
                again: reclaim.lanes.clone(),
                gone: reclaim.gone.clone(),
                voids: reclaim.others_stay,
                ..Draft::default()
            })?;
            let State::Open { store, ledger } = &mut self.state else {
                return Err(self.refusal());
            };
            if let Err(error) = guarded(|| store.reclaim(&reclaim, ledger)) {
                return Err(self.fail(error, None));
            }
            ledger.forget(|lane| store.has(lane));
        }
    }

    /// How large it is, and whether there is room for more.
    pub(super) fn measure(&mut self) {
        let State::Open { store, .. } = &self.state else {
            return;
        };
        self.options.metrics.poisoned.set(0);
        if let Ok(bytes) = store.disk_bytes() {
            if self.shared.bytes.swap(bytes, Relaxed) > bytes {
                // Somebody may be waiting for that room.
                self.shared.condition.send_modify(|_| {});
            }
            let gauge = &self.options.metrics.disk_bytes;
            gauge.set(bytes.try_into().unwrap_or(i64::MAX));
        }
        self.ballast = self.ballast || store.take_ballast();
        let Some(space) = store.space() else {
            // As it answers, it is not stalled any more.
            self.shared.condition.send_if_modified(|condition| {
                let is_news = *condition != Condition::Fine;
                *condition = Condition::Fine;
                is_news
            });
            return;
        };
        let least = self
            .options
            .min_free
            .unwrap_or((space.total / 20).clamp(LEAST_FREE, MIN_FREE));
        self.options
            .metrics
            .free_bytes
            .set(space.free.try_into().unwrap_or(i64::MAX));
        self.shared.condition.send_if_modified(|condition| {
            // Room has to be there again for a while's worth of records.
            let enough = match condition {
                Condition::Low(_) => space.free >= least + least / 4 && self.ballast,
                _ => space.free >= least && self.ballast,
            };
            let now = if enough {
                Condition::Fine
            } else {
                Condition::Low(space.free)
            };
            let is_news = std::mem::discriminant(condition) != std::mem::discriminant(&now);
            if is_news && !enough {
                tracing::warn!(
                    free = space.free,
                    least,
                    "the spool's disk is nearly full: it takes no more records"
                );
            } else if is_news && matches!(condition, Condition::Low(_)) {
                tracing::info!(free = space.free, "the spool's disk has room again");
            }
            *condition = now;
            is_news
        });
    }
}

fn make_durable<S: Store>(
    store: &mut S,
    chunks: Vec<Chunk>,
    durability: Durability,
) -> Result<(), StoreError> {
    store.apply(chunks)?;
    store.flush()?;
    match durability {
        Durability::PowerLoss => store.sync(),
        Durability::ProcessCrash => Ok(()),
    }
}

/// What came in while the disk was busy.
#[derive(Default)]
struct Gathered {
    writes: Vec<Write>,
    bytes: u64,
    /// How often something was read meanwhile.
    looks: usize,
    close: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Gathered {
    fn add(&mut self, write: Write) {
        let put = write.put.iter();
        self.bytes += put.map(|chunk| chunk.bytes()).sum::<u64>();
        self.writes.push(write);
    }
}

/// A change of the store that panics is one that failed.
fn guarded<T>(change: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(change))
        .unwrap_or_else(|_| Err(StoreError::Unknown(PANICKED.into())))
}

/// What the panic said stays where the panic hook has put it: it may quote what is on disk.
const PANICKED: &str = "the store panicked";

/// A commit that is larger goes in several, so that the memory it takes is bounded.
const COMMIT_BYTES: u64 = 8 << 20;

/// Nor does a write wait for more reads than that, however many come in.
const MOST_LOOKS: usize = 64;

/// What is done with waits to be noted until there is as much: replay would else pay an `fdatasync` for
/// each of its batches.
const NOTES: usize = 64;
const NOTE_DELAY: Duration = Duration::from_millis(100);

/// How often the room is looked at while there is too little.
const LOOK_DELAY: Duration = Duration::from_millis(500);
const MIN_FREE: u64 = 256 << 20;
/// What one write may come to.
const LEAST_FREE: u64 = 1 << 20;

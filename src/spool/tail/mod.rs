//! What Redis has acknowledged and its replicas may not have yet, and what is to be sent again once Redis
//! turns out to have lost it.
//!
//! No clock and no I/O. Entries stand in the order in which they were acknowledged, those of several lanes
//! among each other: a primary that dies takes the end of its history with it, so what is given back in
//! this order is what was lost, in the order in which it was lost.
//!
//! After each change of server a *pass* is due: ask how far Redis has each lane, then send what is missing.
//! Nothing else of the queue may be sent before that is done, or it would go in front.

mod options;
mod pass;
mod piece;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use self::options::TailOptions;
pub(super) use self::{
    pass::{Shortfall, Step},
    piece::{Piece, queue_of, tail_of},
};
use super::{Batch, LaneId, commit::Done};
use crate::replicas::View;

/// The tail of one queue.
#[derive(Debug)]
pub(super) struct Tail<T> {
    entries: VecDeque<Entry<T>>,
    lanes: Vec<Known>,
    /// Lanes to be asked for in the pass that is under way.
    asking: VecDeque<LaneId>,
    /// How many entries are missing.
    missing: usize,
    /// No entry before this place is missing.
    missing_from: usize,
    size: Size,
}

/// How much a tail holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) memory_records: u64,
    pub(super) memory_bytes: usize,
    pub(super) disk_records: u64,
    pub(super) disk_bytes: u64,
}

/// Records that were acknowledged together.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) lane: LaneId,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) memory: Option<Batch<T>>,
    pub(super) disk: Option<OnDisk>,
    /// It came from disk, and is still there for the case that this process dies with Redis: to be noted as
    /// done with when the entry goes.
    mark: Option<Done>,
    at: Instant,
    seen: Seen,
    bytes: usize,
    /// Redis does not have it any more.
    missing: bool,
    /// Somebody waits for it to be safe, and it may not go before.
    held: bool,
    /// It is not wanted any more, and goes when it is the first: what is on disk goes in order.
    dead: bool,
}

/// When a server was known to have something: see [`View::covers`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) term: u64,
    pub(super) stamp: u64,
}

/// Where an entry's records are in the tail's own lane on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnDisk {
    pub(super) lane: LaneId,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: u64,
}

/// What is not wanted any more of what is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// In the tail's own lane.
    pub(super) disk: Option<OnDisk>,
    /// In the lane that it came from.
    pub(super) mark: Option<Done>,
}

/// What is known of a lane.
#[derive(Debug)]
struct Known {
    lane: LaneId,
    /// The last number that Redis has acknowledged.
    acknowledged: u64,
    /// The last number that the server of this term has, as far as is known.
    reached: u64,
    /// Which server acknowledged it.
    history: Option<Arc<str>>,
}

impl<T> Tail<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            lanes: Vec::new(),
            asking: VecDeque::new(),
            missing: 0,
            missing_from: 0,
            size: Size::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Whether something of another lane than `own` may be in it.
    pub(super) fn has_other_than(&self, own: LaneId) -> bool {
        self.lanes.iter().any(|known| known.lane != own)
    }

    // ===== what is acknowledged =====

    /// Redis has acknowledged `batch`, which takes `bytes` of memory.
    pub(super) fn acknowledged(
        &mut self,
        batch: Batch<T>,
        bytes: usize,
        seen: Seen,
        history: Option<&Arc<str>>,
        held: bool,
        now: Instant,
    ) {
        let (lane, first, last) = (batch.lane(), batch.first(), batch.last());
        let known = self.known(lane);
        known.acknowledged = known.acknowledged.max(last);
        known.reached = known.reached.max(last);
        if known.history.as_ref() != history {
            known.history = history.cloned();
        }
        self.push(Entry {
            lane,
            first,
            last,
            memory: Some(batch),
            disk: None,
            mark: None,
            at: now,
            seen,
            bytes,
            missing: false,
            held,
            dead: false,
        });
    }

    /// The entry of `lane` that ends with number `last` came from disk, and stays there as long as it is kept in
    /// memory alone. Gives `mark` back if it is not.
    pub(super) fn keep_on_disk(&mut self, lane: LaneId, last: u64, mark: Done) -> Option<Done> {
        let mut entries = self.entries.iter_mut().rev();
        let entry = entries.find(|entry| entry.lane == lane && entry.last == last);
        match entry.filter(|entry| entry.memory.is_some() && entry.disk.is_none() && !entry.dead) {
            Some(entry) => entry.mark.replace(mark),
            None => Some(mark),
        }
    }

    /// What has come from disk need not stay there any longer.
    pub(super) fn take_marks(&mut self) -> Vec<Gone> {
        let marks = self
            .entries
            .iter_mut()
            .filter_map(|entry| entry.mark.take());
        let gone = marks.map(|mark| Gone {
            disk: None,
            mark: Some(mark),
        });
        gone.collect()
    }

    fn push(&mut self, entry: Entry<T>) {
        self.size.add(&entry);
        self.entries.push_back(entry);
    }

    /// An earlier run has left this on disk: Redis had acknowledged it.
    pub(super) fn left(&mut self, lane: LaneId, first: u64, last: u64, disk: OnDisk, now: Instant) {
        let known = self.known(lane);
        known.acknowledged = known.acknowledged.max(last);
        self.push(Entry {
            lane,
            first,
            last,
            memory: None,
            disk: Some(disk),
            mark: None,
            at: now,
            seen: Seen::NEVER,
            bytes: 0,
            missing: false,
            held: false,
            dead: false,
        });
    }

    fn known(&mut self, lane: LaneId) -> &mut Known {
        let at = self.lanes.iter().rposition(|known| known.lane == lane);
        let at = at.unwrap_or_else(|| {
            self.lanes.push(Known {
                lane,
                acknowledged: 0,
                reached: 0,
                history: None,
            });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// Nobody waits any longer for the entries of `lane` up to `through`, which are safe if `safe` says so.
    pub(super) fn let_go(&mut self, lane: LaneId, through: u64, safe: bool) {
        for entry in &mut self.entries {
            if entry.lane == lane && entry.last <= through {
                entry.held = false;
                entry.dead |= safe && !entry.missing;
            }
        }
    }

    /// Whether the entry that ends with this number is on disk.
    pub(super) fn is_on_disk(&self, lane: LaneId, last: u64) -> bool {
        let mut entries = self.entries.iter().rev();
        let entry = entries.find(|entry| entry.lane == lane && entry.last == last);
        entry.is_some_and(|entry| entry.disk.is_some())
    }

    // ===== what is safe =====

    /// Takes out what replicas have, at least `least` of them, and where none are expected what is older
    /// than `max_age` and is known to the server that is there now. Gives what is on disk of that.
    pub(super) fn trim(
        &mut self,
        view: &View,
        least: usize,
        max_age: Duration,
        now: Instant,
    ) -> Vec<Gone> {
        let expects = view.expects_replicas || least > 0;
        let mut gone = Vec::new();
        while let Some(entry) = self.entries.front() {
            let covered = view.covers(entry.seen.term, entry.seen.stamp, least.max(1));
            let is_there = entry.seen.term == view.term && !view.interrupted;
            let old = now.saturating_duration_since(entry.at) >= max_age;
            let aged = !expects && is_there && old;
            if !entry.dead && (entry.missing || entry.held || !(covered || aged)) {
                break;
            }
            let front = self.take_front();
            gone.extend(front.filter(|gone| *gone != Gone::default()));
        }
        self.forget_lanes();
        gone
    }

    /// When the oldest entry is old.
    pub(super) fn old_at(&self, max_age: Duration) -> Option<Instant> {
        self.entries.front().map(|entry| entry.at + max_age)
    }

    /// Gives up the oldest entry, if there is one that nobody waits for and that is not about to be sent again.
    /// Says which numbers those are, and what is on disk of it.
    pub(super) fn shed(&mut self) -> Option<((LaneId, u64, u64), Gone)> {
        let front = self.entries.front();
        let front = front.filter(|front| !front.held && !front.missing)?;
        let which = (front.lane, front.first, front.last);
        Some((which, self.take_front()?))
    }

    fn take_front(&mut self) -> Option<Gone> {
        let entry = self.entries.pop_front()?;
        self.missing_from = self.missing_from.saturating_sub(1);
        self.missing -= usize::from(entry.missing);
        self.size.take(&entry);
        Some(Gone {
            disk: entry.disk,
            mark: entry.mark,
        })
    }

    /// Keeps what is known of the lanes that have entries, and of the one that was last acknowledged.
    fn forget_lanes(&mut self) {
        if self.lanes.len() > 1 {
            let last = self.lanes.last().map(|known| known.lane);
            let entries = &self.entries;
            self.lanes.retain(|known| {
                Some(known.lane) == last || entries.iter().any(|entry| entry.lane == known.lane)
            });
        }
    }

    // ===== what goes to disk =====

    /// The oldest entries that are only in memory, of about `bytes` together, and all up to number `through`
    /// of `lane` if that is given.
    pub(super) fn to_spill(
        &self,
        bytes: usize,
        through: Option<(LaneId, u64)>,
    ) -> impl Iterator<Item = &Entry<T>> {
        let mut room = bytes;
        let wanted = self.entries.iter().rposition(|entry| {
            through.is_some_and(|(lane, number)| entry.lane == lane && entry.first <= number)
        });
        let in_memory = self.entries.iter().enumerate();
        let in_memory = in_memory.filter(|(_, entry)| entry.disk.is_none());
        in_memory
            .take_while(move |(at, entry)| {
                let fits = room > 0 || wanted.is_some_and(|wanted| *at <= wanted);
                room = room.saturating_sub(entry.bytes);
                fits
            })
            .map(|(_, entry)| entry)
    }

    /// The entry that ends with this number is on disk, and leaves the memory. Gives what is not wanted any more
    /// by that; `None` if it is the entry itself.
    pub(super) fn spilled(&mut self, lane: LaneId, last: u64, disk: OnDisk) -> Option<Gone> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.lane == lane && entry.last == last && entry.disk.is_none())?;
        let entry = &mut self.entries[at];
        self.size.take(entry);
        entry.disk = Some(disk);
        let mark = entry.mark.take();
        if !entry.missing {
            entry.bytes = 0;
            entry.memory = None;
        }
        self.size.add(entry);
        self.join(at);
        Some(Gone { disk: None, mark })
    }

    /// Makes one of the entry at this place and the one before it, if both are only on disk and what is in one
    /// follows what is in the other. So what is on disk takes little memory, however small the batches were.
    fn join(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1).map(|before| &self.entries[before]) else {
            return;
        };
        if before.joins(&self.entries[at])
            && let Some(entry) = self.entries.remove(at)
        {
            self.missing_from = self.missing_from.min(at);
            self.entries[at - 1].take_in(&entry);
        }
    }

    /// The same for all of them: those that somebody waited for are not joined before.
    pub(super) fn join_all(&mut self) {
        for at in (1..self.entries.len()).rev() {
            self.join(at);
        }
    }

    /// The first missing entry has been read from disk.
    pub(super) fn loaded(&mut self, batch: Batch<T>, bytes: usize) {
        if let Some(at) = self.first_missing_at()
            && let entry = &mut self.entries[at]
            && entry.memory.is_none()
        {
            self.size.take(entry);
            entry.bytes = bytes;
            entry.memory = Some(batch);
            self.size.add(entry);
        }
    }
}

impl Seen {
    /// By no server yet.
    const NEVER: Self = Self {
        term: u64::MAX,
        stamp: 0,
    };
}

impl<T> Entry<T> {
    /// Whether it can be one with `next`.
    fn joins(&self, next: &Self) -> bool {
        let rests = |entry: &Self| {
            let wanted = entry.missing || entry.held || entry.dead;
            !wanted && entry.memory.is_none() && entry.mark.is_none()
        };
        let (Some(disk), Some(next_disk)) = (self.disk, next.disk) else {
            return false;
        };
        rests(self)
            && rests(next)
            && (self.lane, self.last + 1) == (next.lane, next.first)
            && (disk.lane, disk.last + 1) == (next_disk.lane, next_disk.first)
            && self.seen.term == next.seen.term
            && next.last - self.first < JOINED_RECORDS
            && disk.bytes + next_disk.bytes <= JOINED_BYTES
    }

    /// It is one with `next` from now on, and as safe as that.
    fn take_in(&mut self, next: &Self) {
        (self.last, self.at, self.seen) = (next.last, next.at, next.seen);
        if let (Some(disk), Some(next)) = (&mut self.disk, next.disk) {
            disk.last = next.last;
            disk.bytes += next.bytes;
        }
    }

    /// What is on disk need not be in memory as well.
    fn forget(&mut self, size: &mut Size) {
        if self.disk.is_some() && self.memory.is_some() {
            size.take(self);
            (self.memory, self.bytes) = (None, 0);
            size.add(self);
        }
    }

    /// It is not wanted any more.
    fn bury(&mut self) {
        (self.missing, self.held, self.dead) = (false, false, true);
    }

    pub(super) fn records(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl Size {
    fn add<T>(&mut self, entry: &Entry<T>) {
        if entry.memory.is_some() {
            self.memory_records += entry.records();
            self.memory_bytes += entry.bytes;
        }
        if let Some(disk) = entry.disk {
            self.disk_records += disk.records();
            self.disk_bytes += disk.bytes;
        }
    }

    fn take<T>(&mut self, entry: &Entry<T>) {
        if entry.memory.is_some() {
            self.memory_records -= entry.records();
            self.memory_bytes -= entry.bytes;
        }
        if let Some(disk) = entry.disk {
            self.disk_records -= disk.records();
            self.disk_bytes -= disk.bytes;
        }
    }
}

/// What is sent again at once, and read for that, is no more than this.
const JOINED_RECORDS: u64 = 1024;
const JOINED_BYTES: u64 = 1 << 20;

impl OnDisk {
    pub(super) fn records(self) -> u64 {
        self.last - self.first + 1
    }
}

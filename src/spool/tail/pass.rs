//! What a server turns out to lack, and what is to be done about it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Entry, OnDisk, Seen, Tail};
use crate::spool::{Batch, LaneId, commit::Done};

/// What is to be done next in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Step {
    /// Ask Redis how far it has this lane.
    Ask(LaneId),
    /// Read the first entry that is missing from disk: it is not in memory.
    Load(OnDisk),
    /// Send the first entry that is missing; the server has its lane up to this number.
    Send { after: u64 },
}

/// What an answer to [`Step::Ask`] says about a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Shortfall {
    /// These are lost for good: Redis had acknowledged them, and they are kept nowhere.
    pub(in crate::spool) lost: Option<(u64, u64)>,
    /// These are not there although the server has lost nothing: somebody has removed them.
    pub(in crate::spool) removed: Option<(u64, u64)>,
    /// These will be sent again.
    pub(in crate::spool) missing: Option<(u64, u64)>,
}

impl<T> Tail<T> {
    /// Begins a pass: another server may be at the other end. `own` is asked for too, if it has been
    /// acknowledged up to that number.
    pub(in crate::spool) fn begin_pass(&mut self, own: Option<(LaneId, u64)>) {
        if let Some((lane, acknowledged)) = own.filter(|(_, acknowledged)| *acknowledged > 0) {
            let known = self.known(lane);
            known.acknowledged = known.acknowledged.max(acknowledged);
        }
        self.asking.clear();
        let entries = self.entries.iter().filter(|entry| !entry.dead);
        // In the order in which they were sent; those of which nothing is kept come last.
        let known = self.lanes.iter().filter(|known| known.acknowledged > 0);
        let lanes = entries.map(|entry| entry.lane);
        for lane in lanes.chain(known.map(|known| known.lane)) {
            if self.asking.back() != Some(&lane) && !self.asking.contains(&lane) {
                self.asking.push_back(lane);
            }
        }
    }

    /// Redis had acknowledged `lane` up to this number, as an earlier run has noted.
    pub(in crate::spool) fn was_acknowledged(&mut self, lane: LaneId, through: u64) {
        let known = self.known(lane);
        known.acknowledged = known.acknowledged.max(through);
    }

    /// What is to be done next, if a pass is under way.
    pub(in crate::spool) fn step(&self) -> Option<Step> {
        if let Some(lane) = self.asking.front() {
            return Some(Step::Ask(*lane));
        }
        let entry = self.first_missing()?;
        match (&entry.memory, entry.disk) {
            (None, Some(disk)) => Some(Step::Load(disk)),
            _ => {
                let known = self.lanes.iter().find(|known| known.lane == entry.lane);
                let reached = known.map_or(0, |known| known.reached);
                Some(Step::Send {
                    after: reached.min(entry.first - 1),
                })
            }
        }
    }

    /// Whether nothing else may be sent.
    pub(in crate::spool) fn is_in_pass(&self) -> bool {
        !self.asking.is_empty() || self.missing > 0
    }

    pub(in crate::spool) fn first_missing(&self) -> Option<&Entry<T>> {
        self.first_missing_at().map(|at| &self.entries[at])
    }

    pub(super) fn first_missing_at(&self) -> Option<usize> {
        // In the usual case there is none, and no entry is looked at.
        let mut places = self.missing_from..self.entries.len();
        (self.missing > 0).then(|| places.find(|at| self.entries[*at].missing))?
    }

    /// Redis has `lane` up to `last`, as of `seen`. `history` is that of the server.
    pub(in crate::spool) fn reached(
        &mut self,
        lane: LaneId,
        last: u64,
        seen: Seen,
        history: Option<&Arc<str>>,
    ) -> Shortfall {
        self.asking.retain(|asked| *asked != lane);
        let known = self.known(lane);
        let acknowledged = known.acknowledged;
        let same_server = history.is_some() && known.history.as_ref() == history;
        known.reached = last;
        if last >= acknowledged {
            known.history = history.cloned();
        }
        let mut shortfall = Shortfall::default();
        let mut kept_from = None;
        self.missing_from = 0;
        let of_lane = |entry: &&mut Entry<T>| entry.lane == lane && !entry.dead;
        for entry in self.entries.iter_mut().filter(of_lane) {
            self.missing -= usize::from(entry.missing);
            entry.missing = entry.last > last;
            self.missing += usize::from(entry.missing);
            if entry.missing {
                kept_from.get_or_insert(entry.first.max(last + 1));
            } else {
                entry.seen = seen;
                entry.forget(&mut self.size);
            }
        }
        if last >= acknowledged {
            return shortfall;
        }
        if same_server {
            shortfall.removed = Some((last + 1, acknowledged));
            let missing = |entry: &&mut Entry<T>| entry.lane == lane && entry.missing;
            for entry in self.entries.iter_mut().filter(missing) {
                entry.bury();
                self.missing -= 1;
            }
            self.known(lane).acknowledged = last;
            return shortfall;
        }
        let kept_from = kept_from.unwrap_or(acknowledged + 1);
        if kept_from > last + 1 {
            shortfall.lost = Some((last + 1, kept_from - 1));
        }
        if kept_from <= acknowledged {
            shortfall.missing = Some((kept_from, acknowledged));
        } else {
            self.known(lane).acknowledged = last;
        }
        shortfall
    }

    /// Makes one of the first missing entry and those that follow it, up to so many records and bytes: there may be
    /// thousands of small ones, and each takes a round trip.
    pub(in crate::spool) fn merge_missing(&mut self, most: usize, bytes: usize) {
        let Some(at) = self.first_missing_at() else {
            return;
        };
        let (mut size, mut end) = (self.entries[at].bytes, at + 1);
        if !self.entries[at].can_merge() {
            return;
        }
        while let Some(next) = self.entries.get(end) {
            let (first, before) = (&self.entries[at], &self.entries[end - 1]);
            size += next.bytes;
            let follows = next.lane == before.lane && next.first == before.last + 1;
            let fits = || size <= bytes && next.last - first.first < most as u64;
            if !(follows && next.can_merge() && fits()) {
                break;
            }
            end += 1;
        }
        if end == at + 1 {
            return;
        }
        let others: Vec<_> = self.entries.drain(at + 1..end).collect();
        let first = &mut self.entries[at];
        self.size.take(first);
        for other in others {
            self.missing -= 1;
            self.size.take(&other);
            first.append(other);
        }
        self.size.add(first);
    }

    /// Redis has the first missing entry again, up to number `through`.
    pub(in crate::spool) fn sent_again(
        &mut self,
        through: u64,
        seen: Seen,
        history: Option<&Arc<str>>,
        now: Instant,
    ) {
        let Some(at) = self.first_missing_at() else {
            return;
        };
        let entry = &mut self.entries[at];
        let lane = entry.lane;
        if through >= entry.last {
            self.missing -= 1;
            self.missing_from = at + 1;
            entry.missing = false;
            entry.seen = seen;
            entry.at = now;
            entry.forget(&mut self.size);
        }
        let known = self.known(lane);
        known.reached = known.reached.max(through);
        // As long as some are missing, it is not this server that has acknowledged them.
        if through >= known.acknowledged {
            known.history = history.cloned();
        }
    }

    /// Gives up the first missing entry up to number `through`: it can't be read, or Redis will not take it
    /// again. Says which numbers those are.
    pub(in crate::spool) fn give_up_missing(&mut self, through: u64) -> Option<(LaneId, u64, u64)> {
        let at = self.first_missing_at()?;
        let entry = &mut self.entries[at];
        let (lane, first, last) = (entry.lane, entry.first, entry.last.min(through));
        self.size.take(entry);
        match entry.memory.take().and_then(|batch| batch.rest(through)) {
            Some(rest) => {
                entry.first = rest.first();
                entry.memory = Some(rest);
            }
            None => {
                entry.bury();
                self.missing -= 1;
            }
        }
        self.size.add(entry);
        Some((lane, first, last))
    }

    /// The last number of `lane` that Redis has acknowledged and has, or gets again.
    pub(in crate::spool) fn acknowledged_of(&self, lane: LaneId) -> Option<u64> {
        let known = self.lanes.iter().find(|known| known.lane == lane);
        known.map(|known| known.acknowledged)
    }
}

impl<T> Entry<T> {
    /// Whether its records can be taken out and sent again with others.
    fn can_merge(&self) -> bool {
        let alone = self.memory.as_ref().is_some_and(Batch::is_alone);
        alone && self.missing && !self.held && self.disk.is_none()
    }

    /// Takes in the entry that follows; both [can](Self::can_merge).
    fn append(&mut self, next: Self) {
        let queue = next.memory.as_ref().map(Batch::queue_name);
        let records = |batch: Option<Batch<T>>| batch.and_then(Batch::into_records);
        let Some(queue) = queue else { return };
        let mut all = records(self.memory.take()).unwrap_or_default();
        all.extend(records(next.memory).unwrap_or_default());
        self.memory = Some(Batch::new(self.lane, queue, self.first, all));
        self.last = next.last;
        self.bytes += next.bytes;
        self.mark = match (self.mark, next.mark) {
            (Some(mark), Some(next)) => Some(Done {
                records: mark.records + next.records,
                ..next
            }),
            (mark, next) => next.or(mark),
        };
    }
}

//! What leaves the front of the disk without having been delivered: dropped for want of room, or
//! expired. Never what is on its way to Redis, or being parked.

use super::{Pieces, Replay};
use crate::spool::{LaneId, Spoolable, lane::Lane, shared::Shared};

impl<T: Spoolable> Replay<T> {
    /// Books a record of `bytes`, and drops from the front as many as that takes and no more, all of them
    /// `below` the numbers that are about to be written. Says whether it is booked, and how many were
    /// dropped.
    ///
    /// If more must go than has been read, all of that goes, the room is kept for the record, and the
    /// next call goes on once more has been read.
    pub(in crate::spool) fn make_room(
        &mut self,
        bytes: u64,
        below: u64,
        shared: &Shared<T>,
        lane: &mut Lane,
    ) -> (bool, u64) {
        let most = self.droppable(lane.settled().min(below));
        let (usage, slot) = (&shared.usage, self.slot);
        if most == 0 {
            return (false, 0);
        }
        if let Ok(dropped) = usage.admit(slot, bytes, self.shares().take(most)) {
            self.drop_front(dropped as usize, shared, lane);
            return (true, dropped);
        }
        if !usage.could_admit(slot, bytes) {
            return (false, 0);
        }
        let worth = self.shares().take(most).sum();
        usage.hold(slot, most as u64, worth);
        self.drop_front(most, shared, lane);
        (false, most as u64)
    }

    /// Drops what is at the front as long as `is_old` says so of the time at which it was written, in
    /// milliseconds since 1970. Says how many those are.
    pub(in crate::spool) fn expire(
        &mut self,
        is_old: impl Fn(u64) -> bool,
        shared: &Shared<T>,
        lane: &mut Lane,
    ) -> u64 {
        let mut expired = 0;
        while let Some(front) = self.ahead.front()
            && is_old(front.whole.written_ms)
        {
            let count = front.len().min(self.droppable(lane.settled()));
            if count == 0 {
                break;
            }
            let worth = front.shares(self.partly).take(count).sum();
            shared.usage.free(self.slot, count as u64, worth);
            self.drop_front(count, shared, lane);
            expired += count as u64;
        }
        expired
    }

    /// Whether there is something `below` what is to be written that may be dropped, now or once a
    /// request, a read or a write has ended.
    pub(in crate::spool) fn has_droppable(&self, below: u64, lane: &Lane) -> bool {
        let below = below.min(lane.barrier());
        !self.older.is_empty() || lane.front().is_some_and(|front| front < below)
    }

    /// The lane at the front, and when its front was written, if that has been read and is not on its way.
    pub(in crate::spool) fn front(&self) -> Option<(LaneId, u64)> {
        if !self.is_at_rest() {
            return None;
        }
        let lane = self.older.front().map_or(self.own, |older| older.lane);
        Some((lane, self.ahead.front()?.whole.written_ms))
    }

    /// How many of the records that have been read may be dropped now; of this run's lane, those with
    /// numbers below `settled`.
    fn droppable(&self, settled: u64) -> usize {
        if !self.is_at_rest() {
            return 0;
        }
        let settled = match self.older.front() {
            // Nothing is added to those.
            Some(_) => u64::MAX,
            None => settled,
        };
        let below = self.ahead.iter().map(|portion| {
            let below = settled.saturating_sub(portion.next);
            portion
                .len()
                .min(usize::try_from(below).unwrap_or(usize::MAX))
        });
        below.sum()
    }

    fn is_at_rest(&self) -> bool {
        !self.in_flight && self.parking.is_none()
    }

    /// What the records that have been read are worth, in order.
    fn shares(&self) -> impl Iterator<Item = u64> {
        let partly = std::iter::once(self.partly).chain(std::iter::repeat(0));
        self.ahead
            .iter()
            .zip(partly)
            .flat_map(|(portion, partly)| portion.shares(partly))
    }

    /// The first `count` of the records that have been read are done with.
    fn drop_front(&mut self, mut count: usize, shared: &Shared<T>, lane: &mut Lane) {
        if count == 0 {
            return;
        }
        let mut pieces = Pieces::default();
        let mut through = 0;
        while count > 0
            && let Some(portion) = self.ahead.front_mut()
        {
            let some = portion.len().min(count);
            portion.skip(some, &mut pieces);
            count -= some;
            through = portion.next - 1;
            if portion.len() == 0 {
                self.ahead.pop_front();
            }
        }
        let gone = pieces.split(through, &mut self.partly);
        let is_older = !self.older.is_empty();
        let source = self.older.front().map_or(self.own, |older| older.lane);
        shared.disk.done(gone.done(source, through));
        if let Some(front) = self.ahead.front() {
            self.front_written_ms = Some(front.whole.written_ms);
        }
        self.advance(is_older, through, lane);
    }
}

//! The arithmetic of the bounds: who may still come in, and what must go first.
//!
//! A record is booked before it is written, and off once it is done with, so no bound is ever passed,
//! not even by what is on its way.

use crate::spool::Bound;

/// The books of a spool and its queues.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) max_records: u64,
    pub(super) max_bytes: u64,
    pub(super) max_disk_bytes: u64,
    /// On disk or on the way there, parked ones included.
    pub(super) all: Amount,
    pub(super) parked: u64,
    /// Those that Redis has acknowledged and its replicas may lack.
    pub(super) tail: u64,
    /// Room among the parked ones for records that are on their way there.
    parking: u64,
    /// Bytes on their way to disk.
    pending: u64,
    /// The size of the files, as it was last measured.
    disk_bytes: u64,
    queues: Vec<QueueBooks>,
}

/// Which queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::spool) struct Slot(usize);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What waits of one queue.
#[derive(Debug)]
struct QueueBooks {
    max_records: Option<u64>,
    max_bytes: Option<u64>,
    waiting: Amount,
    /// Dropped already, and still booked: the room is kept for one record that needs more of it.
    held: Amount,
}

impl Books {
    pub(super) fn new(max_records: u64, max_bytes: u64, max_disk_bytes: u64) -> Self {
        Self {
            max_records,
            max_bytes,
            max_disk_bytes,
            all: Amount::default(),
            parked: 0,
            tail: 0,
            parking: 0,
            pending: 0,
            disk_bytes: 0,
            queues: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, max_records: Option<u64>, max_bytes: Option<u64>) -> Slot {
        self.queues.push(QueueBooks {
            max_records,
            max_bytes,
            waiting: Amount::default(),
            held: Amount::default(),
        });
        Slot(self.queues.len() - 1)
    }

    /// Books one record of `bytes`, in the place of as many of the queue's `oldest` as that takes, given
    /// as their bytes in order. Says how many those are.
    ///
    /// # Errors
    ///
    /// The bound that all of the oldest would not get it past. Nothing is changed.
    pub(super) fn admit(
        &mut self,
        slot: Slot,
        bytes: u64,
        oldest: impl IntoIterator<Item = u64>,
    ) -> Result<u64, Bound> {
        let mut room = self.queues[slot.0].held;
        let mut dropped = 0;
        let mut oldest = oldest.into_iter();
        while let Some(bound) = self.met(slot, bytes, room) {
            // The files do not shrink as soon as something goes.
            let next = oldest.next().filter(|_| bound != Bound::DiskBytes);
            room = room.plus(1, next.ok_or(bound)?);
            dropped += 1;
        }
        self.queues[slot.0].held = Amount::default();
        self.free(slot, room);
        self.adopt_waiting(slot, Amount { records: 1, bytes });
        self.pending += bytes;
        Ok(dropped)
    }

    /// Whether a record of `bytes` would fit if nothing else of its queue were there.
    pub(super) fn could_admit(&self, slot: Slot, bytes: u64) -> bool {
        self.met(slot, bytes, self.queues[slot.0].waiting).is_none()
    }

    /// The bound that one record of `bytes` would pass if there were so much more `room`.
    fn met(&self, slot: Slot, bytes: u64, room: Amount) -> Option<Bound> {
        let queue = &self.queues[slot.0];
        let passes = |used: u64, room: u64, more: u64, max: u64| {
            used.saturating_sub(room)
                .checked_add(more)
                .is_none_or(|sum| sum > max)
        };
        let of_queue = |used, room, more, max: Option<u64>| {
            max.is_some_and(|max| passes(used, room, more, max))
        };
        let growth = self
            .pending
            .saturating_add(bytes)
            .saturating_mul(AMPLIFICATION);
        let taken = growth.saturating_add(GROWTH_STEP);
        [
            (
                Bound::DiskBytes,
                passes(self.disk_bytes, 0, taken, self.max_disk_bytes),
            ),
            (
                Bound::QueueRecords,
                of_queue(queue.waiting.records, room.records, 1, queue.max_records),
            ),
            (
                Bound::QueueBytes,
                of_queue(queue.waiting.bytes, room.bytes, bytes, queue.max_bytes),
            ),
            (
                Bound::Records,
                passes(self.all.records, room.records, 1, self.max_records),
            ),
            (
                Bound::Bytes,
                passes(self.all.bytes, room.bytes, bytes, self.max_bytes),
            ),
        ]
        .into_iter()
        .find_map(|(bound, met)| met.then_some(bound))
    }

    /// These have been dropped; their room is kept for the next record that comes in.
    pub(super) fn hold(&mut self, slot: Slot, amount: Amount) {
        let held = &mut self.queues[slot.0].held;
        *held = held.plus(amount.records, amount.bytes);
    }

    /// No record comes in the place of those that are held.
    pub(super) fn release(&mut self, slot: Slot) {
        let held = std::mem::take(&mut self.queues[slot.0].held);
        self.free(slot, held);
    }

    /// These are on disk from an earlier run, bounds or no bounds.
    pub(super) fn adopt(&mut self, amount: Amount) {
        self.all = self.all.plus(amount.records, amount.bytes);
    }

    /// So much of what was [adopted](Self::adopt) is this queue's.
    pub(super) fn assign(&mut self, slot: Slot, amount: Amount) {
        let waiting = &mut self.queues[slot.0].waiting;
        *waiting = waiting.plus(amount.records, amount.bytes);
    }

    fn adopt_waiting(&mut self, slot: Slot, amount: Amount) {
        self.adopt(amount);
        self.assign(slot, amount);
    }

    /// These no longer wait, and are off the disk.
    pub(super) fn free(&mut self, slot: Slot, amount: Amount) {
        self.all = self.all.minus(amount);
        let waiting = &mut self.queues[slot.0].waiting;
        *waiting = waiting.minus(amount);
    }

    /// How many wait for Redis.
    pub(super) fn waiting(&self) -> u64 {
        self.all.records.saturating_sub(self.parked + self.tail)
    }

    /// Makes room among the parked ones for up to `wanted` records, of which there may be `most`.
    pub(super) fn reserve_parked(&mut self, wanted: u64, most: u64) -> u64 {
        let room = wanted.min(most.saturating_sub(self.parked + self.parking));
        self.parking += room;
        room
    }

    /// As many are not parked after all.
    pub(super) fn release_parked(&mut self, records: u64) {
        self.parking = self.parking.saturating_sub(records);
    }

    /// These no longer wait, and are kept apart.
    pub(super) fn park(&mut self, slot: Slot, waited: Amount, parked: Amount) {
        self.release_parked(parked.records);
        self.free(slot, waited);
        self.adopt(parked);
        self.parked += parked.records;
    }

    /// These wait again, in so many bytes.
    pub(super) fn unpark(&mut self, parked: Amount, waiting_bytes: u64) {
        self.delete_parked(parked);
        self.adopt(Amount {
            records: parked.records,
            bytes: waiting_bytes,
        });
    }

    /// These are gone.
    pub(super) fn delete_parked(&mut self, parked: Amount) {
        self.all = self.all.minus(parked);
        self.parked = self.parked.saturating_sub(parked.records);
    }

    /// So many bytes have been written, or will not be.
    pub(super) fn settle(&mut self, bytes: u64) {
        self.pending = self.pending.saturating_sub(bytes);
    }

    /// Says whether that is news.
    pub(super) fn measured(&mut self, disk_bytes: u64) -> bool {
        std::mem::replace(&mut self.disk_bytes, disk_bytes) != disk_bytes
    }

    /// The spool's fullest bound, and how full it is.
    pub(super) fn fullest(&self) -> (Bound, f64) {
        fullest([
            (Bound::Records, share(self.all.records, self.max_records)),
            (Bound::Bytes, share(self.all.bytes, self.max_bytes)),
            (Bound::DiskBytes, self.disk_fullness()),
        ])
    }

    /// The same of a queue's own bounds, if it has any.
    pub(super) fn fullest_of(&self, slot: Slot) -> Option<(Bound, f64)> {
        let queue = &self.queues[slot.0];
        if queue.max_records.is_none() && queue.max_bytes.is_none() {
            return None;
        }
        let of = |used, max: Option<u64>| max.map_or(0.0, |max| share(used, max));
        Some(fullest([
            (
                Bound::QueueRecords,
                of(queue.waiting.records, queue.max_records),
            ),
            (Bound::QueueBytes, of(queue.waiting.bytes, queue.max_bytes)),
        ]))
    }

    /// How full a bound of the spool or of the queue is.
    pub(super) fn fullness(&self, slot: Slot, bound: Bound) -> f64 {
        let queue = &self.queues[slot.0];
        let of = |used, max: Option<u64>| max.map_or(0.0, |max| share(used, max));
        match bound {
            Bound::Records => share(self.all.records, self.max_records),
            Bound::Bytes => share(self.all.bytes, self.max_bytes),
            Bound::DiskBytes => self.disk_fullness(),
            Bound::QueueRecords => of(queue.waiting.records, queue.max_records),
            Bound::QueueBytes => of(queue.waiting.bytes, queue.max_bytes),
        }
    }

    /// With the room that is kept back.
    fn disk_fullness(&self) -> f64 {
        let disk_bytes = self.disk_bytes.saturating_add(GROWTH_STEP);
        share(disk_bytes, self.max_disk_bytes)
    }
}

impl Slot {
    /// Its place among the queues, in the order they were opened.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl Amount {
    fn plus(self, records: u64, bytes: u64) -> Self {
        Self {
            records: self.records.saturating_add(records),
            bytes: self.bytes.saturating_add(bytes),
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

fn share(used: u64, max: u64) -> f64 {
    used as f64 / max as f64
}

fn fullest<const N: usize>(levels: [(Bound, f64); N]) -> (Bound, f64) {
    levels
        .into_iter()
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .expect("there is more than one bound")
}

/// The store writes each chunk about so often, its own pages included.
const AMPLIFICATION: u64 = 4;

/// The files grow by a segment of the store at a time, whatever is written.
const GROWTH_STEP: u64 = 16 << 20;

#[cfg(test)]
mod tests;

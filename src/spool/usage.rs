//! How much is on disk, counted by ourselves, whether there is room for more, and who is told.

mod books;

use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use self::books::Slot;
use self::books::{Amount, Books};
use super::{
    Bound, Readiness, SpoolOptions,
    commit::Replaced,
    limits::Limits,
    readiness::{Crossing, Meter},
};
use crate::metrics::SpoolMetrics;

/// The books of a spool, shared by all of its queues. The lock is held for a sum, and for no I/O.
#[derive(Debug)]
pub(super) struct Usage {
    state: Mutex<State>,
    watermark: f64,
    freed: watch::Sender<()>,
    readiness: watch::Sender<Readiness>,
    metrics: SpoolMetrics,
}

#[derive(Debug)]
struct State {
    books: Books,
    meter: Meter,
    /// Of each queue, in the order of their slots.
    queues: Vec<(Box<str>, Meter)>,
    /// As far as the disk goes.
    disk: Readiness,
    closed: bool,
}

impl Usage {
    pub(super) fn new(options: &SpoolOptions) -> Self {
        let metrics = options.metrics.clone();
        let max_disk_bytes = options.max_disk_bytes();
        metrics.limit_records.set(gauge(options.max_records));
        metrics.limit_bytes.set(gauge(options.max_bytes));
        metrics.limit_disk_bytes.set(gauge(max_disk_bytes));
        let usage = Self {
            state: Mutex::new(State {
                books: Books::new(options.max_records, options.max_bytes, max_disk_bytes),
                meter: Meter::new(options.watermark),
                queues: Vec::new(),
                disk: Readiness::Ready,
                closed: false,
            }),
            watermark: options.watermark,
            freed: watch::Sender::new(()),
            readiness: watch::Sender::new(Readiness::Ready),
            metrics,
        };
        usage.publish(None);
        usage
    }

    /// Begins the books of a queue.
    pub(super) fn open(&self, name: &str, limits: &Limits) -> Slot {
        let mut state = self.state.lock();
        state.queues.push((name.into(), Meter::new(self.watermark)));
        state.books.open(limits.max_records, limits.max_bytes)
    }

    /// Books one record of `bytes`, in the place of as many of the queue's `oldest` as that takes, given
    /// as their bytes in order. Says how many those are.
    ///
    /// # Errors
    ///
    /// The bound that all of the oldest would not get it past. Nothing is changed.
    pub(super) fn admit(
        &self,
        slot: Slot,
        bytes: u64,
        oldest: impl IntoIterator<Item = u64>,
    ) -> Result<u64, Bound> {
        self.state.lock().books.admit(slot, bytes, oldest)
    }

    /// Whether a record of `bytes` would fit if nothing else of its queue were there.
    pub(super) fn could_admit(&self, slot: Slot, bytes: u64) -> bool {
        self.state.lock().books.could_admit(slot, bytes)
    }

    /// A record has met `bound`, and there is no way past it.
    pub(super) fn refused(&self, slot: Slot, bound: Bound) {
        let mut state = self.state.lock();
        let fullness = state.books.fullness(slot, bound);
        match bound {
            Bound::QueueRecords | Bound::QueueBytes => {
                state.queues[slot.index()].1.refused(bound, fullness);
            }
            _ => state.meter.refused(bound, fullness),
        }
        drop(state);
        self.signal();
    }

    /// These have been dropped; their room is kept for the next record of the queue.
    pub(super) fn hold(&self, slot: Slot, records: u64, bytes: u64) {
        let amount = Amount { records, bytes };
        self.state.lock().books.hold(slot, amount);
    }

    /// No record comes in the place of those whose room is kept.
    pub(super) fn release(&self, slot: Slot) {
        self.state.lock().books.release(slot);
        self.publish(Some(slot));
        self.freed.send_replace(());
    }

    /// Counts what is on disk already, bounds or no bounds.
    pub(super) fn adopt(&self, records: u64, bytes: u64, parked: u64) {
        let mut state = self.state.lock();
        state.books.adopt(Amount { records, bytes });
        state.books.parked += parked;
        drop(state);
        self.publish(None);
    }

    /// So much of what was [adopted](Self::adopt) is this queue's.
    pub(super) fn assign(&self, slot: Slot, records: u64, bytes: u64) {
        let amount = Amount { records, bytes };
        self.state.lock().books.assign(slot, amount);
        self.publish(Some(slot));
    }

    /// So many of those that are booked are a tail's.
    pub(super) fn note_tail(&self, records: u64) {
        self.state.lock().books.tail += records;
        self.publish(None);
    }

    /// Records of a tail are done with.
    pub(super) fn free_tail(&self, slot: Slot, records: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.books.tail = state.books.tail.saturating_sub(records);
        drop(state);
        self.free(slot, records, bytes);
    }

    /// Records are done with.
    pub(super) fn free(&self, slot: Slot, records: u64, bytes: u64) {
        let amount = Amount { records, bytes };
        self.state.lock().books.free(slot, amount);
        self.publish(Some(slot));
        self.freed.send_replace(());
    }

    /// Makes room among the parked ones for up to `wanted` records, of which there may be `most`. Says for
    /// how many.
    pub(super) fn reserve_parked(&self, wanted: u64, most: u64) -> u64 {
        self.state.lock().books.reserve_parked(wanted, most)
    }

    /// As many for which there was room [reserved](Self::reserve_parked) have not been parked.
    pub(super) fn release_parked(&self, records: u64) {
        self.state.lock().books.release_parked(records);
    }

    /// Records for which there was room [reserved](Self::reserve_parked) no longer wait, but are kept apart,
    /// some of them in place of the same ones. Records and bytes of each.
    pub(super) fn park(
        &self,
        slot: Slot,
        waited: (u64, u64),
        parked: (u64, u64),
        replaced: Replaced,
    ) {
        let amount = |(records, bytes)| Amount { records, bytes };
        let replaced = (replaced.records, replaced.bytes);
        let mut state = self.state.lock();
        state.books.park(slot, amount(waited), amount(parked));
        state.books.delete_parked(amount(replaced));
        drop(state);
        self.publish(Some(slot));
        self.freed.send_replace(());
    }

    /// Parked records that took `bytes` wait again, in `waiting_bytes`. They are to be
    /// [assigned](Self::assign) to their queue.
    pub(super) fn unpark(&self, records: u64, bytes: u64, waiting_bytes: u64) {
        let parked = Amount { records, bytes };
        self.state.lock().books.unpark(parked, waiting_bytes);
        self.publish(None);
        self.freed.send_replace(());
    }

    /// Parked records have left the disk.
    pub(super) fn delete_parked(&self, records: u64, bytes: u64) {
        let parked = Amount { records, bytes };
        self.state.lock().books.delete_parked(parked);
        self.publish(None);
        self.freed.send_replace(());
    }

    /// So many bytes that were [admitted](Self::admit) have been written, or will not be.
    pub(super) fn settle(&self, bytes: u64) {
        self.state.lock().books.settle(bytes);
    }

    /// The size of the files, as it is now.
    pub(super) fn measured(&self, disk_bytes: u64) {
        if self.state.lock().books.measured(disk_bytes) {
            self.publish(None);
            self.freed.send_replace(());
        }
    }

    /// How the disk does, as it is now.
    pub(super) fn observe(&self, disk: Readiness) {
        self.state.lock().disk = disk;
        self.signal();
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.signal();
    }

    /// Changes whenever there may be more room than before.
    pub(super) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.state.lock().readiness()
    }

    /// That of one queue: the spool's, or its own where the spool is ready.
    pub(super) fn readiness_of(&self, slot: Slot) -> Readiness {
        let state = self.state.lock();
        match (state.readiness(), state.queues[slot.index()].1.full()) {
            (Readiness::Ready, Some(bound)) => Readiness::Full(bound),
            (readiness, _) => readiness,
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// How many wait for Redis.
    pub(super) fn waiting(&self) -> u64 {
        self.state.lock().books.waiting()
    }

    /// How many Redis has acknowledged and its replicas may lack.
    pub(super) fn tail(&self) -> u64 {
        self.state.lock().books.tail
    }

    /// How many there are for the next run to see to.
    pub(super) fn left(&self) -> u64 {
        let state = self.state.lock();
        state.books.waiting() + state.books.tail
    }

    pub(super) fn parked(&self) -> u64 {
        self.state.lock().books.parked
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().books.all.bytes
    }

    /// Brings the gauges and the thresholds up to date, those of the queue included.
    pub(super) fn publish(&self, slot: Option<Slot>) {
        let mut state = self.state.lock();
        let books = &state.books;
        let (all, parked, tail) = (books.all, books.parked, books.tail);
        let records = |state| self.metrics.records.with_label_values(&[state]);
        records("waiting").set(gauge(books.waiting()));
        records("parked").set(gauge(parked));
        records("tail").set(gauge(tail));
        self.metrics.bytes.set(gauge(all.bytes));
        let fullest = books.fullest();
        self.metrics.fullness.set(fullest.1);
        let of_queue = slot.and_then(|slot| Some((slot.index(), books.fullest_of(slot)?)));
        let crossing = state.meter.look(fullest);
        let queue_crossing = of_queue.and_then(|(index, fullest)| {
            let (name, meter) = &mut state.queues[index];
            let crossing = meter.look(fullest)?;
            Some((name.clone(), crossing, fullest.1))
        });
        drop(state);
        match crossing {
            Some(Crossing::Above(bound)) => {
                let (bound, fullness) = (bound.name(), fullest.1);
                tracing::warn!(bound, fullness, "the spool is filling");
            }
            Some(Crossing::Below) => {
                tracing::info!(fullness = fullest.1, "the spool has room again");
            }
            None => {}
        }
        match queue_crossing {
            Some((queue, Crossing::Above(bound), fullness)) => {
                let bound = bound.name();
                tracing::warn!(queue = &*queue, bound, fullness, "a queue is filling");
            }
            Some((queue, Crossing::Below, fullness)) => {
                tracing::info!(queue = &*queue, fullness, "a queue has room again");
            }
            None => {}
        }
        self.signal();
    }

    /// Tells those who watch, if there is something to tell. The state is read where the watch is
    /// locked, so that what is told last is what is true last.
    fn signal(&self) {
        self.readiness.send_if_modified(|told| {
            let now = self.state.lock().readiness();
            std::mem::replace(told, now) != now
        });
    }
}

impl State {
    fn readiness(&self) -> Readiness {
        if self.closed {
            return Readiness::Closed;
        }
        match (self.disk, self.meter.full()) {
            (Readiness::Ready, Some(bound)) => Readiness::Full(bound),
            (readiness, _) => readiness,
        }
    }
}

fn gauge(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_once_for_each_change_and_comes_back() {
        let usage = Usage::new(&SpoolOptions::new("no directory").with_max_records(10));
        let slot = usage.open("notes", &SpoolOptions::new("").limits_of("notes"));
        let mut watch = usage.watch();
        let mut told = Vec::new();
        let mut look = |watch: &mut watch::Receiver<Readiness>| {
            if watch.has_changed().unwrap() {
                told.push(*watch.borrow_and_update());
            }
        };
        for _ in 0..3 {
            while usage.admit(slot, 1, []).is_ok() {
                usage.publish(Some(slot));
                look(&mut watch);
            }
            usage.refused(slot, Bound::Records);
            look(&mut watch);
            for _ in 0..10 {
                usage.free(slot, 1, 1);
                look(&mut watch);
            }
        }
        usage.observe(Readiness::DiskFailed);
        look(&mut watch);
        usage.observe(Readiness::Ready);
        look(&mut watch);
        usage.close();
        look(&mut watch);
        let full = Readiness::Full(Bound::Records);
        assert_eq!(
            told,
            [
                full,
                Readiness::Ready,
                full,
                Readiness::Ready,
                full,
                Readiness::Ready,
                Readiness::DiskFailed,
                Readiness::Ready,
                Readiness::Closed
            ]
        );
    }
}

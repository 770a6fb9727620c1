//! How much is on disk, counted by ourselves, and whether there is room for more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use crate::metrics::SpoolMetrics;

/// Counters shared by all queues of a spool. A record is reserved before it is written and freed after
/// it is removed, so the bounds are never passed, not even by what is on its way.
#[derive(Debug)]
pub(super) struct Usage {
    records: AtomicU64,
    bytes: AtomicU64,
    parked: AtomicU64,
    max_records: u64,
    max_bytes: u64,
    freed: watch::Sender<()>,
    metrics: SpoolMetrics,
}

impl Usage {
    pub(super) fn new(max_records: u64, max_bytes: u64, metrics: SpoolMetrics) -> Self {
        metrics.limit_records.set(max_records as i64);
        metrics.limit_bytes.set(max_bytes as i64);
        let usage = Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            max_records,
            max_bytes,
            freed: watch::Sender::new(()),
            metrics,
        };
        usage.publish();
        usage
    }

    /// Makes room for one record of `bytes`, if there is any.
    pub(super) fn try_reserve(&self, bytes: u64) -> bool {
        let fits = |used: &AtomicU64, more, max| {
            used.fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= max)
            })
            .is_ok()
        };
        if !fits(&self.records, 1, self.max_records) {
            return false;
        }
        if !fits(&self.bytes, bytes, self.max_bytes) {
            self.records.fetch_sub(1, Relaxed);
            return false;
        }
        true
    }

    /// Counts what is on disk already, bounds or no bounds.
    pub(super) fn adopt(&self, records: u64, bytes: u64, parked: u64) {
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.parked.fetch_add(parked, Relaxed);
        self.publish();
    }

    /// Records have left the disk.
    pub(super) fn free(&self, records: u64, bytes: u64) {
        self.records.fetch_sub(records, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
        self.publish();
        self.freed.send_replace(());
    }

    /// Makes room among the parked ones for up to `wanted` records, of which there may be `most`. Says for
    /// how many.
    pub(super) fn reserve_parked(&self, wanted: u64, most: u64) -> u64 {
        let mut room = 0;
        let _ = self.parked.fetch_update(Relaxed, Relaxed, |parked| {
            room = wanted.min(most.saturating_sub(parked));
            Some(parked + room)
        });
        self.records.fetch_add(room, Relaxed);
        room
    }

    /// Parked records have left the disk, or have not come there.
    pub(super) fn free_parked(&self, records: u64, bytes: u64) {
        self.parked.fetch_sub(records, Relaxed);
        self.free(records, bytes);
    }

    /// Parked records that took `bytes` wait again.
    pub(super) fn unpark(&self, records: u64, bytes: u64) {
        self.parked.fetch_sub(records, Relaxed);
        self.free(0, bytes);
    }

    /// Changes whenever records have left the disk.
    pub(super) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    pub(super) fn waiting(&self) -> u64 {
        self.records.load(Relaxed).saturating_sub(self.parked())
    }

    pub(super) fn parked(&self) -> u64 {
        self.parked.load(Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Brings the gauges up to date.
    pub(super) fn publish(&self) {
        let gauge = |state| self.metrics.records.with_label_values(&[state]);
        gauge("waiting").set(self.waiting() as i64);
        gauge("parked").set(self.parked() as i64);
        self.metrics.bytes.set(self.bytes() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_bound_is_passed_and_a_refusal_takes_nothing() {
        let usage = Usage::new(3, 100, SpoolMetrics::default());
        assert!(usage.try_reserve(60));
        assert!(!usage.try_reserve(50), "bytes");
        assert!(usage.try_reserve(30) && usage.try_reserve(10));
        assert!(!usage.try_reserve(0), "records");
        usage.free(1, 30);
        assert!(usage.try_reserve(30));
        assert_eq!((usage.waiting(), usage.bytes()), (3, 100));
    }
}

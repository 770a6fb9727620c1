//! What the spool counts: its disk, its lanes, and each queue.

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::{
    TailMetrics,
    families::{
        BoxedCollector, CALL_SECONDS, all, counter, counters, gauge, gauges, histogram, histograms,
        int_gauge,
    },
};

/// The spool, its disk and its lanes.
#[derive(Clone, Debug)]
pub struct SpoolMetrics {
    pub(crate) records: IntGaugeVec,
    pub(crate) bytes: IntGauge,
    pub(crate) limit_records: IntGauge,
    pub(crate) limit_bytes: IntGauge,
    pub(crate) limit_disk_bytes: IntGauge,
    pub(crate) limit_parked: IntGauge,
    pub(crate) disk_bytes: IntGauge,
    pub(crate) fullness: Gauge,
    pub(crate) oldest: Gauge,
    pub(crate) lanes: IntGaugeVec,
    pub(crate) poisoned: IntGauge,
    pub(crate) free_bytes: IntGauge,
    pub(crate) stalls: IntCounter,
    pub(crate) lost: IntCounterVec,
    pub(crate) enqueued: IntCounterVec,
    pub(crate) enqueue_seconds: HistogramVec,
    pub(crate) appended: IntCounterVec,
    pub(crate) replayed: IntCounterVec,
    pub(crate) moved: IntCounterVec,
    pub(crate) parked: IntCounterVec,
    pub(crate) unparked: IntCounterVec,
    pub(crate) adopted_slots: IntCounter,
    pub(crate) adopted_records: IntCounter,
    pub(crate) adopting: IntGauge,
    pub(crate) expired: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) duplicates: IntCounterVec,
    pub(crate) lost_by_redis: IntCounterVec,
    pub(crate) commit_seconds: Histogram,
    pub(crate) commit_records: Histogram,
    pub(crate) batch_records: Histogram,
    pub(crate) tail: TailMetrics,
}

impl Default for SpoolMetrics {
    fn default() -> Self {
        Self {
            records: gauges(
                "seawall_spool_records",
                "Records on disk: waiting for Redis, parked because Redis refused them, or a tail that replicas may lack",
                &["state"],
            ),
            bytes: int_gauge("seawall_spool_bytes", "Bytes of the records on disk"),
            limit_records: int_gauge("seawall_spool_limit_records", "Bound on records on disk"),
            limit_bytes: int_gauge("seawall_spool_limit_bytes", "Bound on bytes on disk"),
            limit_disk_bytes: int_gauge(
                "seawall_spool_limit_disk_bytes",
                "Bound on the size of the spool's files",
            ),
            limit_parked: int_gauge("seawall_spool_limit_parked", "Bound on parked records"),
            disk_bytes: int_gauge("seawall_spool_disk_bytes", "Size of the spool's files"),
            fullness: gauge(
                "seawall_spool_fullness",
                "How full the fullest of the spool's bounds is, from 0 to 1",
            ),
            oldest: gauge(
                "seawall_spool_oldest_timestamp_seconds",
                "When the oldest record waiting was written, in seconds since 1970; 0 if none waits",
            ),
            lanes: gauges("seawall_lanes", "Lanes, by state", &["state"]),
            poisoned: int_gauge(
                "seawall_spool_poisoned",
                "1 once the disk has failed and the spool takes no more records",
            ),
            free_bytes: int_gauge(
                "seawall_spool_free_bytes",
                "Room left on the spool's file system",
            ),
            stalls: counter(
                "seawall_spool_stalls_total",
                "Times the spool's disk has not answered for too long",
            ),
            lost: counters(
                "seawall_spool_lost_total",
                "Jobs that had to be on disk and were not when the spool was opened, by state",
                &["state"],
            ),
            enqueued: counters(
                "seawall_enqueued_total",
                "Records by queue and where they went: delivered, spooled, dropped, or refused with an error",
                &["queue", "receipt"],
            ),
            enqueue_seconds: histograms(
                "seawall_enqueue_seconds",
                "Time from enqueue to receipt",
                &["receipt"],
                CALL_SECONDS,
            ),
            appended: counters(
                "seawall_spool_appended_total",
                "Records written to disk",
                &["queue"],
            ),
            replayed: counters(
                "seawall_spool_replayed_total",
                "Records delivered from disk",
                &["queue"],
            ),
            moved: counters(
                "seawall_spool_moved_total",
                "Records on disk that another target was told to take over",
                &["queue"],
            ),
            parked: counters(
                "seawall_spool_parked_total",
                "Records parked because Redis will never take them",
                &["queue"],
            ),
            unparked: counters(
                "seawall_spool_unparked_total",
                "Parked records that somebody has sent again or deleted",
                &["queue", "fate"],
            ),
            adopted_slots: counter(
                "seawall_spool_adopted_slots_total",
                "Slots taken over from processes that have ended",
            ),
            adopted_records: counter(
                "seawall_spool_adopted_records_total",
                "Records of such slots that have been delivered or parked",
            ),
            adopting: int_gauge(
                "seawall_spool_adopting_records",
                "Records that wait in the slot that is being taken over",
            ),
            expired: counters(
                "seawall_expired_total",
                "Records not delivered because their time had passed",
                &["queue"],
            ),
            dropped: counters(
                "seawall_dropped_total",
                "Records dropped for want of room: the oldest on disk, or the new one",
                &["queue", "which"],
            ),
            duplicates: counters(
                "seawall_duplicates_suppressed_total",
                "Records that an earlier try had landed although its reply was lost",
                &["queue"],
            ),
            lost_by_redis: counters(
                "seawall_lost_by_redis_total",
                "Records that Redis acknowledged and lost, and that could not be given back",
                &["queue"],
            ),
            commit_seconds: histogram(
                "seawall_spool_commit_seconds",
                "Time of one write to disk, fdatasync included",
                COMMIT_SECONDS,
            ),
            commit_records: histogram(
                "seawall_spool_commit_records",
                "Records that shared one write to disk",
                BATCH_RECORDS,
            ),
            batch_records: histogram(
                "seawall_batch_records",
                "Records that shared one request to Redis",
                BATCH_RECORDS,
            ),
            tail: TailMetrics::default(),
        }
    }
}

impl SpoolMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.tail.register(registry)?;
        all(
            registry,
            [
                &self.records as &dyn BoxedCollector,
                &self.bytes,
                &self.limit_records,
                &self.limit_bytes,
                &self.limit_disk_bytes,
                &self.limit_parked,
                &self.disk_bytes,
                &self.fullness,
                &self.oldest,
                &self.lanes,
                &self.poisoned,
                &self.free_bytes,
                &self.stalls,
                &self.lost,
                &self.enqueued,
                &self.enqueue_seconds,
                &self.appended,
                &self.replayed,
                &self.moved,
                &self.parked,
                &self.unparked,
                &self.adopted_slots,
                &self.adopted_records,
                &self.adopting,
                &self.expired,
                &self.dropped,
                &self.duplicates,
                &self.lost_by_redis,
                &self.commit_seconds,
                &self.commit_records,
                &self.batch_records,
            ],
        )
    }

    /// The same counters, with gauges that nobody sees: for a spool beside the one that they are about.
    pub(crate) fn without_gauges(&self) -> Self {
        let own = Self::default();
        Self {
            records: own.records,
            bytes: own.bytes,
            limit_records: own.limit_records,
            limit_bytes: own.limit_bytes,
            limit_disk_bytes: own.limit_disk_bytes,
            limit_parked: own.limit_parked,
            fullness: own.fullness,
            disk_bytes: own.disk_bytes,
            oldest: own.oldest,
            lanes: own.lanes,
            poisoned: own.poisoned,
            adopting: own.adopting,
            ..self.clone()
        }
    }

    /// The handles of one queue, resolved.
    pub(crate) fn queue(&self, name: &str) -> QueueMetrics {
        let enqueued = |receipt| self.enqueued.with_label_values(&[name, receipt]);
        let seconds = |receipt| self.enqueue_seconds.with_label_values(&[receipt]);
        let dropped = |which| self.dropped.with_label_values(&[name, which]);
        let of = |family: &IntCounterVec| family.with_label_values(&[name]);
        QueueMetrics {
            delivered: enqueued("delivered"),
            spooled: enqueued("spooled"),
            refused: enqueued("refused"),
            dropped: enqueued("dropped"),
            delivered_seconds: seconds("delivered"),
            spooled_seconds: seconds("spooled"),
            refused_seconds: seconds("refused"),
            dropped_seconds: seconds("dropped"),
            appended: of(&self.appended),
            replayed: of(&self.replayed),
            moved: of(&self.moved),
            parked: of(&self.parked),
            resent: self.unparked.with_label_values(&[name, "resent"]),
            deleted: self.unparked.with_label_values(&[name, "deleted"]),
            expired: of(&self.expired),
            dropped_oldest: dropped("oldest"),
            dropped_newest: dropped("newest"),
            duplicates: of(&self.duplicates),
            lost_by_redis: of(&self.lost_by_redis),
            repaired: of(&self.tail.repaired),
            removed: of(&self.tail.removed),
            tail_given_up: of(&self.tail.given_up),
            batch_records: self.batch_records.clone(),
        }
    }
}

/// What is counted per queue.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    pub(crate) delivered: IntCounter,
    pub(crate) spooled: IntCounter,
    pub(crate) refused: IntCounter,
    /// By what their callers were told: the newest, that is.
    pub(crate) dropped: IntCounter,
    pub(crate) delivered_seconds: Histogram,
    pub(crate) spooled_seconds: Histogram,
    pub(crate) refused_seconds: Histogram,
    pub(crate) dropped_seconds: Histogram,
    pub(crate) appended: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) moved: IntCounter,
    pub(crate) parked: IntCounter,
    pub(crate) resent: IntCounter,
    pub(crate) deleted: IntCounter,
    pub(crate) expired: IntCounter,
    pub(crate) dropped_oldest: IntCounter,
    pub(crate) dropped_newest: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) lost_by_redis: IntCounter,
    pub(crate) repaired: IntCounter,
    pub(crate) removed: IntCounter,
    pub(crate) tail_given_up: IntCounter,
    pub(crate) batch_records: Histogram,
}

/// An NVMe disk syncs in under 100 us, a network volume in some ms, a dying disk in seconds.
const COMMIT_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0,
];

/// Batches grow by themselves under load; powers of four are enough to see it.
const BATCH_RECORDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

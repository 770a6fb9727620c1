//! The names, labels and buckets, one struct per stage.

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

/// Calls as their callers see them, all attempts together.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    pub(crate) total: IntCounterVec,
    pub(crate) seconds: HistogramVec,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            total: counters(
                "seawall_calls_total",
                "Calls finished, by name and outcome",
                &["call", "outcome"],
            ),
            seconds: histograms(
                "seawall_call_seconds",
                "Time from call to answer, all attempts together",
                &["call"],
                CALL_SECONDS,
            ),
        }
    }
}

impl CallMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [&self.total as &dyn BoxedCollector, &self.seconds],
        )
    }
}

/// Retries taken and not taken.
#[derive(Clone, Debug)]
pub struct RetryMetrics {
    pub(crate) retries: IntCounter,
    pub(crate) denied: IntCounterVec,
    pub(crate) budget: Gauge,
}

impl Default for RetryMetrics {
    fn default() -> Self {
        Self {
            retries: counter("seawall_retries_total", "Attempts after the first"),
            denied: counters(
                "seawall_retries_denied_total",
                "Failed attempts that were not tried again although more were configured, by reason",
                &["reason"],
            ),
            budget: gauge(
                "seawall_retry_budget_tokens",
                "Retries that the budget would allow now",
            ),
        }
    }
}

impl RetryMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.retries as &dyn BoxedCollector,
                &self.denied,
                &self.budget,
            ],
        )
    }
}

/// The circuit breaker, and the outages it has seen: from its opening to its closing.
#[derive(Clone, Debug)]
pub struct BreakerMetrics {
    pub(crate) state: IntGaugeVec,
    pub(crate) transitions: IntCounterVec,
    pub(crate) refused: IntCounter,
    pub(crate) outages: IntCounter,
    pub(crate) outage_seconds: Counter,
    pub(crate) outage: IntGauge,
}

impl Default for BreakerMetrics {
    fn default() -> Self {
        Self {
            state: gauges(
                "seawall_breaker_state",
                "1 for the state the circuit breaker is in, 0 for the others",
                &["state"],
            ),
            transitions: counters(
                "seawall_breaker_transitions_total",
                "Changes of the circuit breaker's state, by the state entered",
                &["to"],
            ),
            refused: counter(
                "seawall_breaker_refused_total",
                "Calls refused because the circuit breaker was open",
            ),
            outages: counter("seawall_outages_total", "Outages begun"),
            outage_seconds: seconds(
                "seawall_outage_seconds_total",
                "Time spent in ended outages",
            ),
            outage: int_gauge("seawall_outage_in_progress", "1 while Redis is out"),
        }
    }
}

impl BreakerMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.state as &dyn BoxedCollector,
                &self.transitions,
                &self.refused,
                &self.outages,
                &self.outage_seconds,
                &self.outage,
            ],
        )
    }
}

/// Connections to Redis.
#[derive(Clone, Debug)]
pub struct ConnectMetrics {
    pub(crate) attempts: IntCounterVec,
    pub(crate) attempt_seconds: Histogram,
    pub(crate) up: IntGauge,
    pub(crate) generation: IntGauge,
    pub(crate) reconnects: IntCounterVec,
    pub(crate) connects_failed: IntCounter,
    pub(crate) probes_failed: IntCounter,
    pub(crate) pool: IntGaugeVec,
}

impl Default for ConnectMetrics {
    fn default() -> Self {
        Self {
            attempts: counters(
                "seawall_attempts_total",
                "Requests put on a connection, by outcome",
                &["outcome"],
            ),
            attempt_seconds: histogram(
                "seawall_attempt_seconds",
                "Time from request to answer of one attempt",
                CALL_SECONDS,
            ),
            up: int_gauge(
                "seawall_connection_up",
                "1 while there is a working connection",
            ),
            generation: int_gauge(
                "seawall_connection_generation",
                "How often a connection has been made",
            ),
            reconnects: counters(
                "seawall_reconnects_total",
                "Connections replaced, by reason",
                &["reason"],
            ),
            connects_failed: counter(
                "seawall_connects_failed_total",
                "Attempts to connect that failed",
            ),
            probes_failed: counter(
                "seawall_probes_failed_total",
                "Background probes that were not answered in time",
            ),
            pool: gauges(
                "seawall_pool_connections",
                "Exclusive connections, by state",
                &["state"],
            ),
        }
    }
}

impl ConnectMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.attempts as &dyn BoxedCollector,
                &self.attempt_seconds,
                &self.up,
                &self.generation,
                &self.reconnects,
                &self.connects_failed,
                &self.probes_failed,
                &self.pool,
            ],
        )
    }
}

/// The spool, its disk and its lanes.
#[derive(Clone, Debug)]
pub struct SpoolMetrics {
    pub(crate) records: IntGaugeVec,
    pub(crate) bytes: IntGauge,
    pub(crate) limit_records: IntGauge,
    pub(crate) limit_bytes: IntGauge,
    pub(crate) limit_disk_bytes: IntGauge,
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
    pub(crate) parked: IntCounterVec,
    pub(crate) expired: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) duplicates: IntCounterVec,
    pub(crate) lost_by_redis: IntCounterVec,
    pub(crate) commit_seconds: Histogram,
    pub(crate) commit_records: Histogram,
    pub(crate) batch_records: Histogram,
}

impl Default for SpoolMetrics {
    fn default() -> Self {
        Self {
            records: gauges(
                "seawall_spool_records",
                "Records on disk: waiting for Redis, or parked because Redis refused them",
                &["state"],
            ),
            bytes: int_gauge("seawall_spool_bytes", "Bytes of the records on disk"),
            limit_records: int_gauge("seawall_spool_limit_records", "Bound on records on disk"),
            limit_bytes: int_gauge("seawall_spool_limit_bytes", "Bound on bytes on disk"),
            limit_disk_bytes: int_gauge(
                "seawall_spool_limit_disk_bytes",
                "Bound on the size of the spool's files",
            ),
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
            parked: counters(
                "seawall_spool_parked_total",
                "Records parked because Redis will never take them",
                &["queue"],
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
                "Records that Redis acknowledged and no longer had",
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
        }
    }
}

impl SpoolMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.records as &dyn BoxedCollector,
                &self.bytes,
                &self.limit_records,
                &self.limit_bytes,
                &self.limit_disk_bytes,
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
                &self.parked,
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
            parked: of(&self.parked),
            expired: of(&self.expired),
            dropped_oldest: dropped("oldest"),
            dropped_newest: dropped("newest"),
            duplicates: of(&self.duplicates),
            lost_by_redis: of(&self.lost_by_redis),
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
    pub(crate) dropped: IntCounter,
    pub(crate) delivered_seconds: Histogram,
    pub(crate) spooled_seconds: Histogram,
    pub(crate) refused_seconds: Histogram,
    pub(crate) dropped_seconds: Histogram,
    pub(crate) appended: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) parked: IntCounter,
    pub(crate) expired: IntCounter,
    pub(crate) dropped_oldest: IntCounter,
    pub(crate) dropped_newest: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) lost_by_redis: IntCounter,
    pub(crate) batch_records: Histogram,
}

/// Redis answers in 50 us to 1 ms; the upper ones tell a slow answer from the timeouts (0.25 s for
/// an enqueue, 0.5 s for an attempt, 2 s for a call).
const CALL_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 0.5, 2.0,
];

/// An NVMe disk syncs in under 100 us, a network volume in some ms, a dying disk in seconds.
const COMMIT_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0,
];

/// Batches grow by themselves under load; powers of four are enough to see it.
const BATCH_RECORDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// A collector that can be registered from behind a reference: each is an `Arc` inside.
trait BoxedCollector {
    fn boxed(&self) -> Box<dyn Collector>;
}

impl<C: Collector + Clone + 'static> BoxedCollector for C {
    fn boxed(&self) -> Box<dyn Collector> {
        Box::new(self.clone())
    }
}

fn all<const N: usize>(
    registry: &Registry,
    collectors: [&dyn BoxedCollector; N],
) -> prometheus::Result<()> {
    collectors
        .into_iter()
        .try_for_each(|collector| registry.register(collector.boxed()))
}

/// Names and labels are constants of this file and are registered whole by a test.
const VALID: &str = "the name, help and labels are valid constants";

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(VALID)
}

fn seconds(name: &str, help: &str) -> Counter {
    Counter::new(name, help).expect(VALID)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauge(name: &str, help: &str) -> Gauge {
    Gauge::new(name, help).expect(VALID)
}

fn int_gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(VALID)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(VALID)
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        labels,
    )
    .expect(VALID)
}

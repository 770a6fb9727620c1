//! What workers count, by queue.

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::families::{BoxedCollector, all, counters, gauge, gauges, histograms};

/// The workers of this process: their jobs, their leases, and what they see of their queues.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    pub(crate) started: IntCounterVec,
    pub(crate) finished: IntCounterVec,
    pub(crate) dead: IntCounterVec,
    pub(crate) put_off: IntCounterVec,
    pub(crate) budget: Gauge,
    pub(crate) queued_seconds: HistogramVec,
    pub(crate) running_seconds: HistogramVec,
    pub(crate) in_flight: IntGaugeVec,
    pub(crate) renewals: IntCounterVec,
    pub(crate) leases_lost: IntCounterVec,
    pub(crate) claimed: IntCounterVec,
    pub(crate) kept: IntCounterVec,
    pub(crate) unsettled: IntGaugeVec,
    pub(crate) jobs: IntGaugeVec,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            started: counters(
                "seawall_worker_started_total",
                "Executions of jobs begun",
                &["queue"],
            ),
            finished: counters(
                "seawall_worker_finished_total",
                "Executions ended, by what became of the job",
                &["queue", "outcome"],
            ),
            dead: counters(
                "seawall_worker_dead_total",
                "Jobs made dead letters, by reason",
                &["queue", "reason"],
            ),
            put_off: counters(
                "seawall_worker_put_off_total",
                "Retries put off because the worker's retry budget was spent",
                &["queue"],
            ),
            budget: gauge(
                "seawall_worker_retry_budget_tokens",
                "Retries that the worker's budget would allow at once",
            ),
            queued_seconds: histograms(
                "seawall_worker_queued_seconds",
                "Time from when a job was due to its first execution",
                &["queue"],
                QUEUED_SECONDS,
            ),
            running_seconds: histograms(
                "seawall_worker_running_seconds",
                "Time that one execution took",
                &["queue"],
                RUNNING_SECONDS,
            ),
            in_flight: gauges(
                "seawall_worker_in_flight",
                "Jobs that are being executed",
                &["queue"],
            ),
            renewals: counters(
                "seawall_worker_renewals_total",
                "Times that the lease was renewed",
                &["queue"],
            ),
            leases_lost: counters(
                "seawall_worker_leases_lost_total",
                "Executions cancelled because others had taken the worker for dead, or the job over",
                &["queue"],
            ),
            claimed: counters(
                "seawall_worker_claimed_total",
                "Jobs taken over from workers that had died",
                &["queue"],
            ),
            kept: counters(
                "seawall_worker_completions_kept_total",
                "Completions that went to disk because Redis was out",
                &["queue"],
            ),
            unsettled: gauges(
                "seawall_worker_completions_unsettled",
                "Completions that are neither in Redis nor on disk yet",
                &["queue"],
            ),
            jobs: gauges(
                "seawall_worker_jobs",
                "Jobs in the queue by state, as the worker saw them last",
                &["queue", "state"],
            ),
        }
    }
}

impl WorkerMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.started as &dyn BoxedCollector,
                &self.finished,
                &self.dead,
                &self.put_off,
                &self.budget,
                &self.queued_seconds,
                &self.running_seconds,
                &self.in_flight,
                &self.renewals,
                &self.leases_lost,
                &self.claimed,
                &self.kept,
                &self.unsettled,
                &self.jobs,
            ],
        )
    }

    /// The handles of one queue, resolved.
    pub(crate) fn queue(&self, name: &str) -> WorkerQueueMetrics {
        let finished = |outcome| self.finished.with_label_values(&[name, outcome]);
        let dead = |reason| self.dead.with_label_values(&[name, reason]);
        let jobs = |state| self.jobs.with_label_values(&[name, state]);
        let of = |family: &IntCounterVec| family.with_label_values(&[name]);
        let now = |family: &IntGaugeVec| family.with_label_values(&[name]);
        let seconds = |family: &HistogramVec| family.with_label_values(&[name]);
        WorkerQueueMetrics {
            started: of(&self.started),
            succeeded: finished("succeeded"),
            retried: finished("retried"),
            dead: finished("dead"),
            expired: finished("expired"),
            discarded: finished("discarded"),
            released: finished("released"),
            lost: finished("lost"),
            exhausted: dead("exhausted"),
            permanent: dead("permanent"),
            ignored: dead("ignored"),
            too_late: dead("too_late"),
            poison: dead("poison"),
            put_off: of(&self.put_off),
            queued_seconds: seconds(&self.queued_seconds),
            running_seconds: seconds(&self.running_seconds),
            in_flight: now(&self.in_flight),
            renewals: of(&self.renewals),
            leases_lost: of(&self.leases_lost),
            claimed: of(&self.claimed),
            kept: of(&self.kept),
            unsettled: now(&self.unsettled),
            jobs_queued: jobs("queued"),
            jobs_scheduled: jobs("scheduled"),
            jobs_running: jobs("running"),
            jobs_dead: jobs("dead"),
        }
    }
}

/// What a worker counts of one queue.
#[derive(Clone, Debug)]
pub struct WorkerQueueMetrics {
    pub(crate) started: IntCounter,
    pub(crate) succeeded: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) dead: IntCounter,
    pub(crate) expired: IntCounter,
    pub(crate) discarded: IntCounter,
    pub(crate) released: IntCounter,
    pub(crate) lost: IntCounter,
    pub(crate) exhausted: IntCounter,
    pub(crate) permanent: IntCounter,
    pub(crate) ignored: IntCounter,
    pub(crate) too_late: IntCounter,
    pub(crate) poison: IntCounter,
    pub(crate) put_off: IntCounter,
    pub(crate) queued_seconds: Histogram,
    pub(crate) running_seconds: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) renewals: IntCounter,
    pub(crate) leases_lost: IntCounter,
    pub(crate) claimed: IntCounter,
    pub(crate) kept: IntCounter,
    pub(crate) unsettled: IntGauge,
    pub(crate) jobs_queued: IntGauge,
    pub(crate) jobs_scheduled: IntGauge,
    pub(crate) jobs_running: IntGauge,
    pub(crate) jobs_dead: IntGauge,
}

/// From a worker that was waiting to a queue that has been growing for a day.
const QUEUED_SECONDS: &[f64] = &[
    0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0,
];

/// From a handler that does nothing to the timeout that is the default.
const RUNNING_SECONDS: &[f64] = &[
    0.000_1, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0,
];

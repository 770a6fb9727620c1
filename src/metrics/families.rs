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
    pub(crate) master: IntGaugeVec,
    pub(crate) failovers: IntCounter,
    pub(crate) sentinels: IntGaugeVec,
    pub(crate) searches: IntCounterVec,
    pub(crate) search_seconds: Histogram,
    pub(crate) role_mismatches: IntCounter,
    pub(crate) replica_reads: IntCounterVec,
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
            master: gauges(
                "seawall_master_info",
                "1 for the address of the master that the connection leads or led to",
                &["address"],
            ),
            failovers: counter(
                "seawall_failovers_total",
                "Connections made to another master than the one before, as Sentinel said",
            ),
            sentinels: gauges(
                "seawall_sentinels",
                "Sentinels that are known, by whether they answer",
                &["state"],
            ),
            searches: counters(
                "seawall_sentinel_searches_total",
                "Searches for the master among the sentinels, by outcome",
                &["outcome"],
            ),
            search_seconds: histogram(
                "seawall_sentinel_search_seconds",
                "Time from asking the sentinels to a checked connection, or to giving up",
                SEARCH_SECONDS,
            ),
            role_mismatches: counter(
                "seawall_role_mismatches_total",
                "Servers that a sentinel named as the master and that said they are none",
            ),
            replica_reads: counters(
                "seawall_replica_reads_total",
                "Calls that asked to be read from a replica, by where they were",
                &["from"],
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
                &self.master,
                &self.failovers,
                &self.sentinels,
                &self.searches,
                &self.search_seconds,
                &self.role_mismatches,
                &self.replica_reads,
            ],
        )
    }
}

/// Redis answers in 50 us to 1 ms; the upper ones tell a slow answer from the timeouts (0.25 s for
/// an enqueue, 0.5 s for an attempt, 2 s for a call).
pub(super) const CALL_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 0.5, 2.0,
];

/// A search takes a few round trips, or as long as a connect timeout.
const SEARCH_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.0];

/// A collector that can be registered from behind a reference: each is an `Arc` inside.
pub(super) trait BoxedCollector {
    fn boxed(&self) -> Box<dyn Collector>;
}

impl<C: Collector + Clone + 'static> BoxedCollector for C {
    fn boxed(&self) -> Box<dyn Collector> {
        Box::new(self.clone())
    }
}

pub(super) fn all<const N: usize>(
    registry: &Registry,
    collectors: [&dyn BoxedCollector; N],
) -> prometheus::Result<()> {
    collectors
        .into_iter()
        .try_for_each(|collector| registry.register(collector.boxed()))
}

/// Names and labels are constants of this file and are registered whole by a test.
const VALID: &str = "the name, help and labels are valid constants";

pub(super) fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(VALID)
}

pub(super) fn seconds(name: &str, help: &str) -> Counter {
    Counter::new(name, help).expect(VALID)
}

pub(super) fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

pub(super) fn gauge(name: &str, help: &str) -> Gauge {
    Gauge::new(name, help).expect(VALID)
}

pub(super) fn int_gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(VALID)
}

pub(super) fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

pub(super) fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(VALID)
}

pub(super) fn histograms(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        labels,
    )
    .expect(VALID)
}

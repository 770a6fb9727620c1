//! Every metric there is, registered in the application's own Prometheus `Registry`.
//!
//! One struct per stage of the line, each with a `Default` that counts without being registered
//! anywhere: a layer always has its handles, and nothing asks whether metrics are on. Handles are
//! resolved once, when a service is built.
//!
//! Names start with `seawall_`, units are base units, label values come from closed sets, from the
//! constant names of calls, or are the names of queues: never a key, a payload or a job's id. The
//! catalogue with its meanings is `docs/operations.md`, and a test compares the two.
//!
//! # Default
//!
//! ```
//! use seawall::metrics::Metrics;
//!
//! let registry = prometheus::Registry::new();
//! let metrics = Metrics::register(&registry)?;
//! let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather())?;
//! assert!(text.contains("seawall_breaker_refused_total 0"));
//! # drop(metrics);
//! # Ok::<(), prometheus::Error>(())
//! ```
//!
//! # Customised
//!
//! Two seawalls in one process need labels that tell them apart:
//!
//! ```
//! use seawall::metrics::Metrics;
//!
//! # fn main() -> Result<(), prometheus::Error> {
//! for app in ["sessions", "jobs"] {
//!     let labels = [("app".to_owned(), app.to_owned())].into();
//!     let registry = prometheus::Registry::new_custom(None, Some(labels))?;
//!     let _metrics = Metrics::register(&registry)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One seawall of [several deployments](crate::stack::Topology) has all its metrics once for each, with
//! the label `target`: see [`Metrics::register_for`].

mod families;
mod spool;
mod tail;
mod target;
mod worker;

use prometheus::Registry;

pub use self::{
    families::{BreakerMetrics, CallMetrics, ConnectMetrics, RetryMetrics},
    spool::{QueueMetrics, SpoolMetrics},
    tail::TailMetrics,
    target::TargetMetrics,
    worker::{WorkerMetrics, WorkerQueueMetrics},
};

/// The handles of all stages.
///
/// `Default` counts into metrics that no registry knows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Calls as their callers see them.
    pub call: CallMetrics,
    /// Retries taken and not taken.
    pub retry: RetryMetrics,
    /// The circuit breaker, and the outages it has seen.
    pub breaker: BreakerMetrics,
    /// Connections to Redis.
    pub connect: ConnectMetrics,
    /// The spool, its disk and its lanes.
    pub spool: SpoolMetrics,
    /// The workers of this process.
    pub worker: WorkerMetrics,
    /// Which of several deployments is in use; not registered where there is one.
    pub target: TargetMetrics,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    ///
    /// [`prometheus::Error::AlreadyReg`] if this registry has them already: see the
    /// [module docs](self) for two seawalls in one process.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::default();
        metrics.register_in(registry)?;
        Ok(metrics)
    }

    /// Makes the metrics of one of several deployments and registers them, each with the label `target`.
    ///
    /// # Errors
    ///
    /// [`prometheus::Error::AlreadyReg`] if this registry has those of this target already.
    pub fn register_for(registry: &Registry, target: &str) -> prometheus::Result<Self> {
        let metrics = Self::default();
        target::register(&metrics, registry, target)?;
        Ok(metrics)
    }

    fn register_in(&self, registry: &Registry) -> prometheus::Result<()> {
        self.call.register(registry)?;
        self.retry.register(registry)?;
        self.breaker.register(registry)?;
        self.connect.register(registry)?;
        self.spool.register(registry)?;
        self.worker.register(registry)
    }
}

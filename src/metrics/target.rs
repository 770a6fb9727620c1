//! Several deployments in one registry: each has all the metrics, with a label that tells whose they are.

use std::collections::HashMap;

use prometheus::{
    IntCounter, IntGauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    Metrics,
    families::{BoxedCollector, all, counter, int_gauge},
};

/// Which of several deployments is in use.
#[derive(Clone, Debug)]
pub struct TargetMetrics {
    pub(crate) active: IntGauge,
    pub(crate) switches: IntCounter,
}

impl Default for TargetMetrics {
    fn default() -> Self {
        Self {
            active: int_gauge(ACTIVE, ACTIVE_HELP),
            switches: counter(
                "seawall_target_switches_total",
                "Times that calls and new jobs were moved to this target",
            ),
        }
    }
}

/// Registers `metrics`, each with the label `target`.
///
/// They go into a registry of their own, which adds the label as it is gathered. To the one that is given that
/// is a single collector: one that takes part in its check for duplicates with a name that each target has once.
pub(super) fn register(
    metrics: &Metrics,
    registry: &Registry,
    target: &str,
) -> prometheus::Result<()> {
    let labels = HashMap::from([(LABEL.to_owned(), target.to_owned())]);
    let own = Registry::new_custom(None, Some(labels.clone()))?;
    metrics.register_in(&own)?;
    let switching = &metrics.target;
    all(
        &own,
        [
            &switching.active as &dyn BoxedCollector,
            &switching.switches,
        ],
    )?;
    let desc = Desc::new(
        ACTIVE.to_owned(),
        ACTIVE_HELP.to_owned(),
        Vec::new(),
        labels,
    )?;
    registry.register(Box::new(OfTarget { own, desc }))
}

const ACTIVE: &str = "seawall_target_active";
const ACTIVE_HELP: &str = "1 for the target that calls and new jobs go to, 0 for the others";
const LABEL: &str = "target";

struct OfTarget {
    own: Registry,
    desc: Desc,
}

impl Collector for OfTarget {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.own.gather()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_share_a_registry_and_no_series() {
        let registry = Registry::new();
        let first = Metrics::register_for(&registry, "a").unwrap();
        let second = Metrics::register_for(&registry, "b").unwrap();
        first.breaker.refused.inc_by(3);
        second.target.active.set(1);
        let text = prometheus::TextEncoder::new();
        let text = text.encode_to_string(&registry.gather()).unwrap();
        for line in [
            "seawall_breaker_refused_total{target=\"a\"} 3",
            "seawall_breaker_refused_total{target=\"b\"} 0",
            "seawall_target_active{target=\"a\"} 0",
            "seawall_target_active{target=\"b\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let help = text.matches("# HELP seawall_breaker_refused_total").count();
        assert_eq!(help, 1, "one family for both");
        let again = Metrics::register_for(&registry, "a").unwrap_err();
        assert!(matches!(again, prometheus::Error::AlreadyReg), "{again}");
    }
}

//! The handles of the retry metrics, resolved.

use prometheus::{Gauge, IntCounter};

use super::decision::Reason;
use crate::metrics::RetryMetrics;

#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) retries: IntCounter,
    pub(super) budget: Gauge,
    denied_budget: IntCounter,
    denied_deadline: IntCounter,
    denied_exhausted: IntCounter,
    denied_unrepeatable: IntCounter,
}

impl Counts {
    /// From here on each reason is shown, with a count of 0.
    pub(super) fn new(metrics: &RetryMetrics) -> Self {
        let denied = |reason| metrics.denied.with_label_values(&[reason]);
        Self {
            retries: metrics.retries.clone(),
            budget: metrics.budget.clone(),
            denied_budget: denied("budget"),
            denied_deadline: denied("deadline"),
            denied_exhausted: denied("exhausted"),
            denied_unrepeatable: denied("unrepeatable"),
        }
    }

    pub(super) fn denied(&self, reason: Reason) -> &IntCounter {
        match reason {
            Reason::Budget => &self.denied_budget,
            Reason::Deadline => &self.denied_deadline,
            Reason::Exhausted => &self.denied_exhausted,
            Reason::Unrepeatable => &self.denied_unrepeatable,
        }
    }
}

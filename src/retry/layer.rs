//! [`RetryLayer`]: puts a policy and its metrics in the line.

use tower::{Layer, retry::Retry};

use super::policy::RetryPolicy;
use crate::metrics::RetryMetrics;

/// Makes [`tower::retry::Retry`] services of one [`RetryPolicy`]; all share its budget.
///
/// See the [module docs](super) for examples.
///
/// # Default
///
/// [`RetryPolicy::default`], with metrics that no registry knows.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RetryLayer {
    policy: RetryPolicy,
}

impl RetryLayer {
    /// Tries again as `policy` says.
    pub const fn new(policy: RetryPolicy) -> Self {
        Self { policy }
    }

    /// Counts into `metrics`.
    #[allow(clippy::needless_pass_by_value, reason = "a setter, as the others")]
    pub fn with_metrics(mut self, metrics: RetryMetrics) -> Self {
        self.policy.count_into(&metrics);
        self
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<RetryPolicy, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(self.policy.clone(), inner)
    }
}

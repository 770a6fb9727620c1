//! The layer: [`BreakerLayer`].

use std::sync::Arc;

use tower::Layer;

use super::{Breaker, BreakerHandle, BreakerOptions, shared::Shared};
use crate::metrics::BreakerMetrics;

/// Puts a [`Breaker`] around a service. See the [module docs](super).
///
/// One layer is one breaker: its clones, and all services made by it or by them, share one state and
/// one window. Put it around what fails together, and make another layer for anything else.
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    shared: Arc<Shared>,
}

impl BreakerLayer {
    /// A breaker, closed, that goes by `options`.
    pub fn new(options: BreakerOptions) -> Self {
        Self {
            shared: Arc::new(Shared::new(options)),
        }
    }

    /// Counts in `metrics` from here on, services and handles made before included.
    ///
    /// The gauges show one breaker: give each its own.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "as in the other layers")]
    pub fn with_metrics(self, metrics: BreakerMetrics) -> Self {
        self.shared.set_metrics(&metrics);
        self
    }

    /// What shows, and overrides, this breaker.
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle::new(self.shared.clone())
    }
}

impl Default for BreakerLayer {
    fn default() -> Self {
        Self::new(BreakerOptions::default())
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Breaker::new(inner, self.shared.clone())
    }
}

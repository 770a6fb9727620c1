//! The layer: [`ObserveLayer`].

use std::sync::Arc;

use tower::Layer;

use super::{Observe, names::Names};
use crate::metrics::CallMetrics;

/// Puts an [`Observe`] around a service. See the [module docs](super).
///
/// `Default` counts into metrics that no registry knows.
#[derive(Clone, Debug, Default)]
pub struct ObserveLayer {
    names: Arc<Names>,
}

impl ObserveLayer {
    /// Counts in `metrics`.
    pub fn new(metrics: CallMetrics) -> Self {
        Self {
            names: Arc::new(Names::new(metrics)),
        }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe::new(inner, self.names.clone())
    }
}

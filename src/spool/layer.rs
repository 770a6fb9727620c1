//! The layer that puts a spool in front of a service.

use std::sync::Arc;

use tower::{Layer, Service, util::BoxCloneSyncService};

use super::{Applied, Batch, Owner, Spool, Spoolable, Spooling};
use crate::error::Error;

/// Puts a [`Spool`] in front of a service that takes batches.
///
/// The first service it is put in front of is where the spool's records go, and replay of what an
/// earlier run left starts at that moment. A spool has one way out: the layer's later services share
/// it. See the [module docs](super) for examples.
#[derive(Clone, Debug)]
pub struct SpoolLayer<T> {
    owner: Arc<Owner<T>>,
}

impl<T> SpoolLayer<T> {
    /// A layer for this spool.
    pub fn new(spool: &Spool<T>) -> Self {
        Self {
            owner: spool.owner.clone(),
        }
    }
}

impl<T, S> Layer<S> for SpoolLayer<T>
where
    T: Spoolable,
    S: Service<Batch<T>, Response = Applied, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    type Service = Spooling<T>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = &self.owner.shared;
        if shared.set_way_out(BoxCloneSyncService::new(inner)) {
            self.owner.adoption.start(shared);
        }
        Spooling::new(self.owner.clone())
    }
}

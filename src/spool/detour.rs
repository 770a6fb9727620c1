//! What waits goes another way, for as long as somebody asks for it.

use std::sync::Arc;

use tower::{Service, util::BoxCloneSyncService};

use super::{Applied, Batch, Spool, Spoolable, shared::Shared};
use crate::error::Error;

impl<T: Spoolable> Spool<T> {
    /// Sends records to `way` instead of to the far end, until what is returned is dropped: those that wait on
    /// disk, and those that are handed in meanwhile.
    ///
    /// What `way` takes is done with here. The far end is not taken to have it: its numbers are spent. What the
    /// far end has lost is given back to it as ever.
    pub(crate) fn detour<S>(&self, way: S) -> Detour<T>
    where
        S: Service<Batch<T>, Response = Applied, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let shared = self.owner.shared.clone();
        shared.set_detour(Some(BoxCloneSyncService::new(way)));
        Detour { shared }
    }
}

/// While this is there. See [`Spool::detour`].
pub(crate) struct Detour<T: Spoolable> {
    shared: Arc<Shared<T>>,
}

impl<T: Spoolable> Drop for Detour<T> {
    fn drop(&mut self) {
        self.shared.set_detour(None);
    }
}

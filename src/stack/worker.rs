//! What a worker is given of the line: [`Seawall::worker`].

use std::sync::Arc;

use tower::util::BoxCloneSyncService;

use super::{Seawall, arm::Arm};
use crate::worker::{Builder, Line};

impl Seawall {
    /// A worker of this queue, which begins when it is [run](Builder::run).
    ///
    /// It works the queue at every target of the [`Topology`](super::Topology), since jobs may wait at any of them,
    /// and each job is ended where it came from.
    pub fn worker(&self, queue: impl Into<Arc<str>>) -> Builder {
        let lines = self.arms.all().iter().map(Arm::line).collect();
        Builder::new(queue.into(), lines, self.arms.clone())
    }
}

impl Arm {
    pub(super) fn line(&self) -> Line {
        Line {
            call: BoxCloneSyncService::new(self.call.clone()),
            enqueue: self.enqueue.clone(),
            spool: self.spool.clone(),
            connection: self.connection.clone(),
            metrics: self.worker.clone(),
        }
    }
}

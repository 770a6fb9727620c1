//! The way to one deployment, as the worker is given it: [`Line`].

use std::fmt;

use tower::util::BoxCloneSyncService;

use crate::{
    call::{RedisCall, Reply},
    connect::Connection,
    error::Error,
    metrics::WorkerMetrics,
    sequence::Write,
    spool::{Spool, Spooling},
};

/// Everything of one deployment that a worker needs.
#[derive(Clone)]
pub(crate) struct Line {
    /// With retry, breaker and all.
    pub(crate) call: BoxCloneSyncService<RedisCall, Reply, Error>,
    /// Where completions go.
    pub(crate) enqueue: Spooling<Write>,
    pub(crate) spool: Spool<Write>,
    pub(crate) connection: Connection,
    pub(crate) metrics: WorkerMetrics,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

//! The layer, and the service that takes batches of [`Write`]s.

use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Procedure, Write, future::ResponseFuture, procedure::Procedures, script};
use crate::{
    call::{RedisCall, Reply},
    error::Error,
    spool::{Applied, Batch},
};

/// Makes [`Sequence`]s. See the [module docs](super).
///
/// # Default
///
/// No [`Procedure`] is known.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SequenceLayer {
    procedures: Procedures,
}

impl SequenceLayer {
    /// The layer as it is by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `procedure` apply the records that are [meant for it](Write::procedure).
    pub fn with_procedure(mut self, procedure: Procedure) -> Self {
        self.procedures = self.procedures.with(procedure);
        self
    }
}

impl<S> Layer<S> for SequenceLayer {
    type Service = Sequence<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Sequence {
            inner,
            procedures: self.procedures.clone(),
        }
    }
}

/// Takes a [`Batch`], makes one [`RedisCall`] of it. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct Sequence<S> {
    inner: S,
    procedures: Procedures,
}

impl<S> Service<Batch<Write>> for Sequence<S>
where
    S: Service<RedisCall, Response = Reply, Error = Error>,
{
    type Response = Applied;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, batch: Batch<Write>) -> Self::Future {
        let pushed = script::pushed(&batch);
        let call = script::call(&batch, &self.procedures);
        ResponseFuture::new(self.inner.call(call), pushed)
    }
}

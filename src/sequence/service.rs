//! The layer, and the service that takes batches of [`Write`]s.

use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Write, future::ResponseFuture, script};
use crate::{
    call::{RedisCall, Reply},
    error::Error,
    spool::{Applied, Batch},
};

/// Makes [`Sequence`]s. See the [module docs](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceLayer(());

impl SequenceLayer {
    /// The layer; there is nothing to set.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for SequenceLayer {
    type Service = Sequence<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Sequence { inner }
    }
}

/// Takes a [`Batch`], makes one [`RedisCall`] of it. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct Sequence<S> {
    inner: S,
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
        ResponseFuture::new(self.inner.call(script::call(&batch)), pushed)
    }
}

//! The service: [`Observe`].

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower::Service;

use super::{future::ResponseFuture, names::Names};
use crate::{call::Request, error::Error};

/// Counts the calls of `S`. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    names: Arc<Names>,
}

impl<S> Observe<S> {
    pub(super) fn new(inner: S, names: Arc<Names>) -> Self {
        Self { inner, names }
    }
}

impl<S, Req> Service<Req> for Observe<S>
where
    S: Service<Req>,
    S::Error: Into<Error>,
    Req: Request,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let named = self.names.of(request.name());
        // Before the inner call: what that does at once counts as well.
        let began = Instant::now();
        ResponseFuture::new(self.inner.call(request), named, began)
    }
}

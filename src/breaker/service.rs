//! The service: [`Breaker`].

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower::Service;

use super::{
    future::ResponseFuture,
    machine::{Admission, Refusal},
    permit::Permit,
    shared::Shared,
};
use crate::error::Error;

/// Guards `S` with a circuit breaker. See the [module docs](super).
#[derive(Debug)]
pub struct Breaker<S> {
    inner: S,
    shared: Arc<Shared>,
    readiness: Readiness,
}

/// What `poll_ready` found, for the next `call` only.
#[derive(Debug)]
enum Readiness {
    /// The inner service is ready, if the call is let in.
    Inner,
    /// The breaker was open and the inner service has not been asked, so it must not be called.
    Refused(Refusal),
}

/// A call that nobody made ready: may be tried again at once.
const NOT_READY: Readiness = Readiness::Refused(Refusal {
    retry_after: Some(Duration::ZERO),
});

impl<S> Breaker<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            readiness: NOT_READY,
        }
    }

    fn admit(&self) -> Result<Option<Permit>, Refusal> {
        match self.shared.admit() {
            Admission::Counted(entry) => Ok(Some(Permit::new(self.shared.clone(), entry))),
            Admission::Uncounted => Ok(None),
            Admission::Refused(refusal) => Err(refusal),
        }
    }
}

impl<S, Req> Service<Req> for Breaker<S>
where
    S: Service<Req>,
    S::Error: Into<Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(refusal) = self.shared.refusal() {
            self.readiness = Readiness::Refused(refusal);
            return Poll::Ready(Ok(()));
        }
        self.readiness = NOT_READY;
        let result = ready!(self.inner.poll_ready(cx)).map_err(Into::into);
        if result.is_ok() {
            self.readiness = Readiness::Inner;
        } else if let Ok(Some(permit)) = self.admit() {
            permit.settle(&result);
        }
        Poll::Ready(result)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let admitted = match mem::replace(&mut self.readiness, NOT_READY) {
            Readiness::Inner => self.admit(),
            Readiness::Refused(refusal) => Err(refusal),
        };
        match admitted {
            Ok(permit) => ResponseFuture::called(self.inner.call(request), permit),
            Err(refusal) => {
                self.shared.count_refused();
                ResponseFuture::refused(refusal)
            }
        }
    }
}

impl<S: Clone> Clone for Breaker<S> {
    fn clone(&self) -> Self {
        // Readiness is the inner's own and is not cloned with it.
        Self::new(self.inner.clone(), self.shared.clone())
    }
}

#[cfg(test)]
mod tests;

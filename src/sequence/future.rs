//! The future of one batch.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::ready;
use pin_project_lite::pin_project;

use super::script;
use crate::{call::Reply, error::Error, spool::Applied};

pin_project! {
    /// Resolves with what became of the batch.
    ///
    /// # Cancel safety
    ///
    /// Dropping it does not call the batch back from Redis; its numbers make sending it again safe.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        answer: F,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(answer: F) -> Self {
        Self { answer }
    }
}

impl<F: Future<Output = Result<Reply, Error>>> Future for ResponseFuture<F> {
    type Output = Result<Applied, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().answer.poll(cx));
        Poll::Ready(answer.and_then(script::read))
    }
}

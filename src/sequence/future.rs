//! The future of one batch.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::ready;
use pin_project_lite::pin_project;

use super::script;
use crate::{
    call::Reply,
    error::{Error, ErrorKind},
    spool::Applied,
};

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
        pushed: Option<(u64, u64)>,
    }
}

impl<F> ResponseFuture<F> {
    /// `pushed` are the numbers of a batch that pushes to one list: the first, and how many.
    pub(super) fn new(answer: F, pushed: Option<(u64, u64)>) -> Self {
        Self { answer, pushed }
    }
}

impl<F: Future<Output = Result<Reply, Error>>> Future for ResponseFuture<F> {
    type Output = Result<Applied, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match (ready!(this.answer.poll(cx)), this.pushed) {
            // The list is in another hash slot than the queue: no node will ever take these, and the
            // lane has to go on without them.
            (Err(error), Some((first, count))) if error.kind() == ErrorKind::CrossSlot => {
                Ok(Applied::refused(*first - 1, *count, error))
            }
            (answer, _) => answer.and_then(script::read),
        })
    }
}

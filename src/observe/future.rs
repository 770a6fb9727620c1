//! The future of an observed call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::names::Named;
use crate::error::Error;

pin_project! {
    /// What [`Observe`](super::Observe) answers with: the inner's answer, counted.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, it counts as cancelled.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        named: Arc<Named>,
        began: Instant,
        counted: bool,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if !this.counted {
                this.named.cancelled();
            }
        }
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, named: Arc<Named>, began: Instant) -> Self {
        Self {
            inner,
            named,
            began,
            counted: false,
        }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Error>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx)).map_err(|error| {
            let error = error.into();
            match error.call() {
                "" => error.with_call(this.named.name()),
                _ => error,
            }
        });
        this.named.answered(&result, this.began.elapsed());
        *this.counted = true;
        Poll::Ready(result)
    }
}

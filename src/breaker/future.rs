//! The future of a guarded call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{machine::Refusal, permit::Permit};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

pin_project! {
    /// What [`Breaker`](super::Breaker) answers with: the inner's answer, or a refusal at once.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, it counts neither for nor against the inner service.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called {
            #[pin]
            future: F,
            // `None` where nothing is counted, and once the answer has been.
            permit: Option<Permit>,
        },
        Refused {
            refusal: Refusal,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn called(future: F, permit: Option<Permit>) -> Self {
        Self {
            state: State::Called { future, permit },
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            state: State::Refused { refusal },
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
        match self.project().state.project() {
            StateProj::Called { future, permit } => {
                let result = ready!(future.poll(cx)).map_err(Into::into);
                if let Some(permit) = permit.take() {
                    permit.settle(&result);
                }
                Poll::Ready(result)
            }
            StateProj::Refused { refusal } => Poll::Ready(Err(refused(*refusal))),
        }
    }
}

fn refused(refusal: Refusal) -> Error {
    let verdict = Verdict::new(Class::Outage, Landed::No);
    let error = Error::new(ErrorKind::BreakerOpen, verdict);
    match refusal.retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

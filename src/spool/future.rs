//! The future of one record's receipt.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, future::BoxFuture};
use pin_project_lite::pin_project;
use tokio::{sync::oneshot, time::Instant};

use super::{Owner, Receipt, Spoolable, queue::Handle, service::enter};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

pin_project! {
    /// Resolves with the receipt.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for memory, the record has not been taken. Dropped later, it has, and is
    /// delivered, or refused without anyone to tell.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<T> {
        state: State<T>,
    }
}

enum State<T> {
    Refused(Option<Error>),
    /// Only while memory is full, which makes the box the least of the worries.
    Waiting(BoxFuture<'static, Result<ResponseFuture<T>, Error>>),
    /// The owner keeps the tasks alive until the receipt is there.
    Entered {
        receipt: oneshot::Receiver<Result<Receipt, Error>>,
        _owner: Arc<Owner<T>>,
    },
}

impl<T: Spoolable> ResponseFuture<T> {
    pub(crate) fn refused(error: Error) -> Self {
        Self {
            state: State::Refused(Some(error)),
        }
    }

    pub(super) fn entered(
        owner: Arc<Owner<T>>,
        receipt: oneshot::Receiver<Result<Receipt, Error>>,
    ) -> Self {
        Self {
            state: State::Entered {
                receipt,
                _owner: owner,
            },
        }
    }

    pub(super) fn waiting_for_memory(
        owner: Arc<Owner<T>>,
        queue: Arc<Handle<T>>,
        record: T,
        units: u32,
        since: Instant,
    ) -> Self {
        let place = queue.intake.line_up();
        let wait = async move {
            let patience = owner.shared.options.disk_timeout;
            match tokio::time::timeout(patience, owner.shared.memory.acquire_many(units)).await {
                Ok(Ok(memory)) => memory.forget(),
                _ => {
                    queue.metrics.refused.inc();
                    let verdict = Verdict::new(Class::Outage, Landed::No);
                    return Err(Error::new(ErrorKind::SpoolFull, verdict)
                        .with_cause("no memory became free: see SpoolOptions::with_max_memory"));
                }
            }
            let entered = enter(&owner, &queue, record, units, since);
            drop(place);
            entered
        };
        Self {
            state: State::Waiting(wait.boxed()),
        }
    }
}

impl<T> Future for ResponseFuture<T> {
    type Output = Result<Receipt, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        loop {
            match this.state {
                State::Refused(error) => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error));
                }
                State::Waiting(wait) => match ready!(wait.as_mut().poll(cx)) {
                    Ok(entered) => *this.state = entered.state,
                    Err(error) => return Poll::Ready(Err(error)),
                },
                State::Entered { receipt, .. } => {
                    let answer = ready!(receipt.poll_unpin(cx));
                    // The task has ended under it: the runtime is shutting down.
                    return Poll::Ready(answer.unwrap_or_else(|_| {
                        let verdict = Verdict::new(Class::Outage, Landed::Maybe);
                        Err(Error::new(ErrorKind::Closed, verdict))
                    }));
                }
            }
        }
    }
}

impl<T> fmt::Debug for ResponseFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

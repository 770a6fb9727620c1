//! One execution of a job: within its time, cancellable, its panics caught, in a span of its own.

use std::{
    any::Any,
    future::ready,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tracing::Instrument;

use super::{Cancellation, Delivery, Failure, Output, handler::Handling};

/// How an execution has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// Which one it was.
    pub(super) ticket: Ticket,
    pub(super) took: Duration,
    pub(super) ended: Ended,
}

/// Tells executions of one worker apart, also those of the same job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The queue's place among those of the worker.
    pub(super) source: usize,
    pub(super) number: u64,
    pub(super) id: crate::job::JobId,
}

#[derive(Debug)]
pub(super) enum Ended {
    Succeeded(Output),
    Failed(Failure),
    /// It was no longer wanted, and has been dropped.
    Cancelled,
}

/// A place in the line for a slot, and then the slot.
pub(super) struct Slot(BoxFuture<'static, Option<OwnedSemaphorePermit>>);

impl Slot {
    /// The next place: slots are given in the order of these calls, whichever task is polled first.
    pub(super) fn next_of(slots: &Arc<Semaphore>) -> Self {
        let slots = slots.clone();
        if let Ok(free) = slots.clone().try_acquire_owned() {
            return Self(ready(Some(free)).boxed());
        }
        let mut slot = slots.acquire_owned().map(Result::ok).boxed();
        let mut nobody = Context::from_waker(Waker::noop());
        match slot.poll_unpin(&mut nobody) {
            Poll::Ready(slot) => Self(ready(slot).boxed()),
            Poll::Pending => Self(slot),
        }
    }
}

/// Waits for the slot, and runs `handling` to its end, or to that of its time, or until it is cancelled.
///
/// # Cancel safety
///
/// Dropping it drops the handler's future.
pub(super) async fn execute(
    ticket: Ticket,
    delivery: Delivery,
    slot: Slot,
    handling: Handling,
    limit: Duration,
) -> Finished {
    let cancellation = delivery.cancellation().clone();
    let slot = tokio::select! {
        biased;
        slot = slot.0 => slot,
        () = cancellation.cancelled() => None,
    };
    let Some(_slot) = slot else {
        return Finished {
            ticket,
            took: Duration::ZERO,
            ended: Ended::Cancelled,
        };
    };
    let span = span(&delivery);
    let began = Instant::now();
    drop(delivery);
    let limited = run(handling, limit, &cancellation).instrument(span);
    // A panic of the handler leaves nothing of ours half done.
    let ended = match AssertUnwindSafe(limited).catch_unwind().await {
        Ok(ended) => ended,
        Err(panic) => {
            let failure = Failure::panicked(message(&*panic));
            discard(panic);
            Ended::Failed(failure)
        }
    };
    if !matches!(ended, Ended::Succeeded(_)) {
        // For what the handler has started elsewhere.
        cancellation.cancel();
    }
    Finished {
        ticket,
        took: began.elapsed(),
        ended,
    }
}

async fn run(handling: Handling, limit: Duration, cancellation: &Cancellation) -> Ended {
    tokio::select! {
        biased;
        result = timeout(limit, handling) => match result {
            Ok(Ok(output)) => Ended::Succeeded(output),
            Ok(Err(failure)) => Ended::Failed(failure),
            Err(_) => Ended::Failed(Failure::timeout(limit)),
        },
        () = cancellation.cancelled() => Ended::Cancelled,
    }
}

/// With the trace that the producer has put into the job's headers.
fn span(delivery: &Delivery) -> tracing::Span {
    tracing::info_span!(
        "job",
        id = %delivery.id(),
        queue = delivery.queue(),
        attempt = delivery.attempt(),
        traceparent = delivery.header("traceparent"),
    )
}

/// What a handler panics with is its own, and may panic again when it is dropped.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the handler panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;
    use crate::{
        job::{Handling as HowTo, JobId, task::Record},
        worker::delivery::Parts,
    };

    fn delivery() -> Delivery {
        let record = Record {
            enqueued_ms: 1,
            due_ms: 0,
            expires_ms: 0,
            handling: HowTo::new(),
            headers: vec![],
            payload: "x".into(),
        };
        Delivery::new(Parts {
            id: JobId::from_bytes([1; 16]),
            queue: "q".into(),
            attempt: 1,
            retries_left: 0,
            record,
            error: None,
            keeps_result: false,
            extensions: Arc::default(),
        })
    }

    async fn ended(
        delivery: Delivery,
        handler: impl Future<Output = Result<Output, Failure>> + Send + 'static,
    ) -> Ended {
        let ticket = Ticket {
            source: 0,
            number: 1,
            id: delivery.id(),
        };
        let limit = Duration::from_secs(1);
        let slot = Slot::next_of(&Arc::new(Semaphore::new(1)));
        execute(ticket, delivery, slot, handler.boxed(), limit)
            .await
            .ended
    }

    fn failure(ended: &Ended) -> &str {
        match ended {
            Ended::Failed(failure) => failure.error_type(),
            other => panic!("{other:?}"),
        }
    }

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_is_over_time_is_dropped_and_what_it_started_is_told() {
        let delivery = delivery();
        let cancellation = delivery.cancellation().clone();
        let ended = ended(delivery, pending()).await;
        assert_eq!(failure(&ended), "timeout");
        assert!(cancellation.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn no_panic_gets_out() {
        let panics = ended(delivery(), async { panic!("no good") }).await;
        assert_eq!(failure(&panics), "panic");
        let panics = ended(delivery(), async {
            let _held = PanicsWhenDropped;
            pending().await
        });
        assert_eq!(failure(&panics.await), "panic");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_succeeded_has_although_it_was_cancelled_meanwhile() {
        let delivery = delivery();
        let cancellation = delivery.cancellation().clone();
        let succeeds = ended(delivery, async move {
            cancellation.cancel();
            Ok(Output::default())
        });
        assert!(matches!(succeeds.await, Ended::Succeeded(_)));
    }
}

//! One execution of a job: within its time, cancellable, its panics caught, in a span of its own.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};
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

/// Runs `handling` to its end, or to that of its time, or until it is cancelled.
///
/// # Cancel safety
///
/// Dropping it drops the handler's future.
pub(super) async fn execute(
    ticket: Ticket,
    delivery: Delivery,
    handling: Handling,
    limit: Duration,
) -> Finished {
    let span = span(&delivery);
    let began = Instant::now();
    let cancellation = delivery.cancellation().clone();
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

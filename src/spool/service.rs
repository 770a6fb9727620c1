//! The service that takes one record and answers with a receipt.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};
use tower::Service;

use super::{
    Owner, Receipt, Spoolable,
    future::ResponseFuture,
    intake::Waiter,
    queue::Handle,
    shared::{MEMORY_UNIT, closed},
};
use crate::error::{Error, ErrorKind, NOT_DONE};

/// Takes a record, answers with a [`Receipt`].
///
/// Always ready: what there is no room for waits, or is refused, in the future. See the
/// [module docs](super) for bounds, errors and cancel safety.
#[derive(Debug)]
pub struct Spooling<T> {
    owner: Arc<Owner<T>>,
}

impl<T> Spooling<T> {
    pub(super) fn new(owner: Arc<Owner<T>>) -> Self {
        Self { owner }
    }
}

impl<T> Clone for Spooling<T> {
    fn clone(&self) -> Self {
        Self {
            owner: self.owner.clone(),
        }
    }
}

impl<T: Spoolable> Service<T> for Spooling<T> {
    type Response = Receipt;
    type Error = Error;
    type Future = ResponseFuture<T>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, record: T) -> Self::Future {
        match admit(&self.owner, record) {
            Ok(future) => future,
            Err(error) => ResponseFuture::refused(error),
        }
    }
}

/// The checks that need no waiting, and the memory if there is some.
fn admit<T: Spoolable>(owner: &Arc<Owner<T>>, record: T) -> Result<ResponseFuture<T>, Error> {
    let shared = &owner.shared;
    let queue = shared.queue(record.queue())?;
    let (size, most) = (record.size(), queue.limits.max_record_bytes);
    if size > most {
        return Err(Error::new(ErrorKind::Invalid, NOT_DONE).with_cause(format!(
            "the record has {size} bytes and its queue takes at most {most}: \
             see with_max_record_bytes of SpoolOptions and QueueLimits"
        )));
    }
    let since = Instant::now();
    let units = (size / MEMORY_UNIT + 1).min(shared.options.max_memory / MEMORY_UNIT) as u32;
    match shared.memory.try_acquire_many(units) {
        Ok(memory) if !queue.intake.has_line() => {
            memory.forget();
            enter(owner, &queue, record, units, since)
        }
        _ => Ok(ResponseFuture::waiting_for_memory(
            owner.clone(),
            queue,
            record,
            units,
            since,
        )),
    }
}

/// Puts a record whose memory has been taken into its queue.
pub(super) fn enter<T: Spoolable>(
    owner: &Arc<Owner<T>>,
    queue: &Handle<T>,
    record: T,
    memory: u32,
    since: Instant,
) -> Result<ResponseFuture<T>, Error> {
    let (sender, receipt) = oneshot::channel();
    match queue.intake.push(
        record,
        Waiter {
            receipt: sender,
            since,
            memory,
        },
    ) {
        Ok(first) => {
            if first && queue.intake.wants_calls() {
                let alone = queue.intake.expected() <= 1;
                if !(alone && queue.driver.turn_now()) {
                    queue.intake.call();
                }
            }
            Ok(ResponseFuture::entered(owner.clone(), receipt))
        }
        Err(waiter) => {
            owner.shared.memory.add_permits(waiter.memory as usize);
            Err(closed())
        }
    }
}

//! What was spooled for one target goes to another: only when somebody asks for it.
//!
//! The records of each batch are handed in to the spool of the other target. They are done with once that has
//! them, in Redis or on disk.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower::Service;

use super::arm::Arm;
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    sequence::Write,
    spool::{Applied, Batch, Detour, LaneId, Receipt, Spooling},
};

/// A transfer under way, for as long as this is there.
pub(super) struct Transfer {
    moving: Arc<Move>,
    _detour: Detour<Write>,
}

impl Transfer {
    pub(super) fn begin(from: &Arm, to: &Arm) -> Self {
        let moving = Arc::new(Move {
            to: to.enqueue.clone(),
            moved: AtomicU64::new(0),
            ahead: Mutex::default(),
            failure: Mutex::default(),
            failed: Notify::new(),
        });
        let detour = from.spool.detour(TakeOver(moving.clone()));
        from.recovery.announce();
        Self {
            moving,
            _detour: detour,
        }
    }

    /// How many records the other target has taken over.
    pub(super) fn moved(&self) -> u64 {
        self.moving.moved.load(Ordering::Relaxed)
    }

    /// Waits until the other target does not take a record, and says why not.
    pub(super) async fn failed(&self) -> Error {
        loop {
            if let Some(failure) = self.moving.failure.lock().take() {
                return failure;
            }
            self.moving.failed.notified().await;
        }
    }
}

struct Move {
    to: Spooling<Write>,
    moved: AtomicU64,
    /// Taken over, behind one that was not: they come again with it.
    ahead: Mutex<HashSet<(LaneId, u64)>>,
    failure: Mutex<Option<Error>>,
    failed: Notify,
}

impl Move {
    async fn take_over(self: Arc<Self>, batch: Batch<Write>) -> Result<Applied, Error> {
        let lane = batch.lane();
        // All are handed in before the first is waited for, in their order.
        let receipts: Vec<_> = batch
            .iter()
            .map(|(number, write)| {
                let write = write.filter(|_| !self.ahead.lock().remove(&(lane, number)));
                (
                    number,
                    write.map(|write| self.to.clone().call(write.clone())),
                )
            })
            .collect();
        let (mut through, mut failure) = (batch.first() - 1, None);
        for (number, receipt) in receipts {
            let taken = match receipt {
                // Expired, or taken over before.
                None => Ok(()),
                Some(receipt) => self.count(receipt.await),
            };
            match taken {
                Ok(()) if failure.is_none() => through = number,
                Ok(()) => {
                    self.ahead.lock().insert((lane, number));
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Ok(match failure {
            None => Applied::all(),
            Some(error) if error.kind() == ErrorKind::Redis && error.is_permanent() => {
                Applied::refused(through, 1, error)
            }
            Some(error) => {
                *self.failure.lock() = Some(error.again());
                self.failed.notify_one();
                Applied::stopped(through, error)
            }
        })
    }

    /// Whether the record need not be kept any longer where it was.
    fn count(&self, answer: Result<Receipt, Error>) -> Result<(), Error> {
        match answer {
            Ok(receipt) if receipt.is_dropped() => {
                let verdict = Verdict::new(Class::Outage, Landed::No);
                Err(Error::new(ErrorKind::SpoolFull, verdict))
            }
            Ok(_) => {
                self.moved.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Expired => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Takes batches on behalf of the other target.
#[derive(Clone)]
struct TakeOver(Arc<Move>);

impl Service<Batch<Write>> for TakeOver {
    type Response = Applied;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Applied, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch<Write>) -> Self::Future {
        self.0.clone().take_over(batch).boxed()
    }
}

//! What was spooled for one target goes to another: only when somebody asks for it.
//!
//! [`Divert`] is a stage of each target's line, below its spool. While a move is under way it hands the records
//! of each batch in to the spool of the other target, and answers that they have been taken over.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower::{Layer, Service};

use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    sequence::Write,
    spool::{Applied, Batch, LaneId, Receipt, Spooling},
};

/// Where the records of a target go instead of to it, if anywhere.
#[derive(Clone, Default)]
pub(super) struct Diversion(Arc<ArcSwapOption<Move>>);

impl Diversion {
    /// From now on they go to `to`, until what is returned is dropped.
    pub(super) fn begin(&self, to: Spooling<Write>) -> Diverted {
        let moving = Arc::new(Move {
            to,
            moved: AtomicU64::new(0),
            ahead: Mutex::default(),
            failure: Mutex::default(),
            failed: Notify::new(),
        });
        self.0.store(Some(moving.clone()));
        Diverted {
            diversion: self.clone(),
            moving,
        }
    }
}

/// A move under way.
pub(super) struct Diverted {
    diversion: Diversion,
    moving: Arc<Move>,
}

impl Diverted {
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

impl Drop for Diverted {
    fn drop(&mut self) {
        self.diversion.0.store(None);
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
        let applied = match failure {
            None => Applied::all(),
            Some(error) if error.kind() == ErrorKind::Redis && error.is_permanent() => {
                Applied::refused(through, 1, error)
            }
            Some(error) => {
                *self.failure.lock() = Some(error.again());
                self.failed.notify_one();
                Applied::stopped(through, error)
            }
        };
        Ok(applied.taken_over())
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

/// Makes [`Divert`]s.
pub(super) struct DivertLayer(pub(super) Diversion);

impl<S> Layer<S> for DivertLayer {
    type Service = Divert<S>;

    fn layer(&self, inner: S) -> Divert<S> {
        Divert {
            inner,
            diversion: self.0.clone(),
        }
    }
}

/// The inner service, or the spool of another target while a move is under way.
#[derive(Clone)]
pub(super) struct Divert<S> {
    inner: S,
    diversion: Diversion,
}

impl<S> Service<Batch<Write>> for Divert<S>
where
    S: Service<Batch<Write>, Response = Applied, Error = Error>,
{
    type Response = Applied;
    type Error = Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Applied, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, batch: Batch<Write>) -> Self::Future {
        match self.diversion.0.load_full() {
            // A batch without records is about the lane as this target knows it.
            Some(moving) if batch.len() > 0 => Either::Right(moving.take_over(batch).boxed()),
            _ => Either::Left(self.inner.call(batch)),
        }
    }
}

//! What goes to Redis, and what comes back.

use std::{
    panic::AssertUnwindSafe,
    task::Context,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tower::ServiceExt;

use super::{From, Keeper, Outgoing, Queue, Sending, keeping::AsOf, unix_ms};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{
        Applied, Batch, LaneId, Parked, Place, Spoolable, applied::Outcome, lane::Send,
        replay::Sent, shared::WayOut,
    },
};

impl<T: Spoolable> Queue<T> {
    pub(super) fn start_send(&mut self, now: Instant, cx: &Context<'_>) {
        if self.sending.is_some() || self.hard {
            return;
        }
        // What goes elsewhere passes nothing that is missing at the far end.
        if self.keeping.is_in_pass() && self.shared.detour().is_none() {
            return self.start_step(now);
        }
        let gathered = self.intake.gathered().map_or(0, |(count, _)| count);
        match self.lane.may_send(gathered) {
            Send::Nothing => {}
            Send::Gathered => {
                if self.expects_more(gathered) {
                    // Behind those who have just had their receipts: they are about to bring more.
                    self.waits += 1;
                    cx.waker().wake_by_ref();
                    return;
                }
                self.renew_if_forgotten(now);
                let Some(Outgoing { batch, waiters, .. }) = self.gather() else {
                    return;
                };
                self.waits = 0;
                let batch = batch.with_after(self.lane.acknowledged());
                self.dispatch(batch, From::Memory(waiters), now);
            }
            Send::Older | Send::Replay => {
                if self.pace.wait_until(now).is_some() {
                    return;
                }
                let options = &self.shared.options;
                let most = self.pace.allowance(options.max_batch_records, now);
                match self.replay.next(&self.lane, most, options.max_batch_bytes) {
                    Ok(None) => {}
                    Ok(Some((batch, sent))) => {
                        let batch = batch.with_lifetime(options.lane_lifetime);
                        self.dispatch(batch, From::Disk(sent), now);
                    }
                    Err(error) => self.on_unreadable(&error, now),
                }
            }
        }
    }

    /// Whether it is worth letting those go first whom the last batch has brought back.
    ///
    /// A few make one batch of two that way. Many fall into two halves by themselves, one on its way while
    /// the other gathers, and that keeps both sides busy.
    fn expects_more(&self, gathered: usize) -> bool {
        let expected = self.intake.expected();
        gathered < expected && expected <= A_FEW && self.waits < PATIENCE
    }

    /// A lane that Redis may have forgotten for its age gets a new id before anything else is sent.
    pub(super) fn renew_if_forgotten(&mut self, now: Instant) {
        if self.lane.is_idle() && now - self.last_applied > self.shared.options.lane_lifetime / 2 {
            self.id = LaneId::fresh();
            self.lane.renew();
            self.replay.renew(self.id);
            self.ambiguous = false;
            self.last_applied = now;
        }
    }

    pub(super) fn dispatch(&mut self, batch: Batch<T>, from: From, now: Instant) {
        let options = &self.shared.options;
        let patience = match from {
            From::Memory(_) => options.spool_after,
            // Nobody waits for these, and who is in a hurry with a record still wants it delivered.
            From::Disk(_) | From::Tail => options.spool_after.max(REPLAY_PATIENCE),
        };
        let time = SystemTime::now();
        let spent = batch.places(|record| record.expires_at().is_some_and(|at| at <= time));
        let mut batch = batch.with_spent(spent).with_deadline(Some(now + patience));
        if !matches!(from, From::Tail) {
            let only = self.keeping.only_over(batch.lane());
            batch = batch.with_generation(only);
            self.metrics.batch_records.observe(batch.len() as f64);
        }
        let detour = self.shared.detour().filter(|_| !matches!(from, From::Tail));
        let (way, keeper) = match detour {
            Some(detour) => (detour, Keeper::SomebodyElse),
            None => (self.shared.way_out(), Keeper::FarEnd),
        };
        let answer = self.send(batch.clone(), way);
        self.lane.sending();
        let give_up = now + patience + self.shared.options.disk_timeout;
        self.sending = Some(Sending {
            batch,
            from,
            keeper,
            sent: self.keeping.as_of(),
            give_up,
            answer,
        });
    }

    pub(super) fn send(
        &self,
        batch: Batch<T>,
        way: WayOut<T>,
    ) -> BoxFuture<'static, Result<Applied, Error>> {
        let call = async move { way.oneshot(batch).await };
        AssertUnwindSafe(call)
            .catch_unwind()
            .map(|answer| {
                answer.unwrap_or_else(|_| {
                    let verdict = Verdict::new(Class::Transient, Landed::Maybe);
                    Err(Error::new(ErrorKind::Foreign, verdict).with_cause("the service panicked"))
                })
            })
            .boxed()
    }

    /// Gives up the request that is on its way.
    pub(super) fn recall(&mut self) {
        let Some(Sending { batch, from, .. }) = self.sending.take() else {
            return;
        };
        self.request_is_over();
        self.ambiguous = true;
        match from {
            From::Memory(waiters) => {
                let failure = Error::new(
                    ErrorKind::Timeout,
                    Verdict::new(Class::Transient, Landed::Maybe),
                );
                self.put_back(Outgoing {
                    batch,
                    waiters,
                    failure: Some(failure),
                });
            }
            From::Disk(_) => self.replay.rewind(),
            From::Tail => {}
        }
    }

    /// The lane may go on, unless a batch from disk waits for its replicas: a step of a pass can come and go
    /// meanwhile.
    fn request_is_over(&mut self) {
        if !self.confirming.holds_disk() {
            self.lane.sent();
        }
    }

    pub(super) fn on_sent(&mut self, answer: Result<Applied, Error>, now: Instant) {
        let Some(Sending {
            batch,
            from,
            keeper,
            sent,
            ..
        }) = self.sending.take()
        else {
            return;
        };
        self.request_is_over();
        let first = batch.first();
        let (outcome, duplicates) = match answer {
            Ok(Applied {
                outcome,
                duplicates,
            }) => (outcome, duplicates),
            Err(error) => (
                Outcome::Stopped {
                    through: first - 1,
                    error,
                },
                0,
            ),
        };
        if matches!(from, From::Tail) {
            return self.on_step(&batch, &sent, outcome, duplicates, now);
        }
        let sent = self.keeping.at_answer(&sent);
        self.metrics.duplicates.inc_by(duplicates);
        match outcome {
            Outcome::All => {
                self.settle(&batch, batch.last(), from, keeper, &sent, now);
            }
            Outcome::Stopped { through, error } => {
                let from = self.settle(&batch, through, from, keeper, &sent, now);
                if let Some(rest) = batch.rest(through) {
                    self.on_failed(rest, from, error, now);
                }
            }
            Outcome::Refused {
                through,
                count,
                error,
            } => {
                let from = self.settle(&batch, through, from, keeper, &sent, now);
                let until = (through + count).min(batch.last());
                match from {
                    From::Memory(mut waiters) => {
                        let later = waiters.split_off((until - through) as usize);
                        self.refuse(waiters, || error.again());
                        if let Some(rest) = batch.rest(until) {
                            // A server that has lost what was acknowledged just now is not to take it.
                            let rest = rest.with_after(self.lane.acknowledged());
                            self.dispatch(rest, From::Memory(later), now);
                        }
                    }
                    From::Disk(sent) => self.park(&batch, through + 1, until, sent, &error, now),
                    From::Tail => {}
                }
            }
            Outcome::Gap { .. } if self.keeping.keeps() => {
                // Which server has said so is not known, since a batch may have been tried again over a later
                // connection. A pass asks one that is, for the other lanes too.
                let tail = &mut self.keeping.tail;
                tail.was_acknowledged(batch.lane(), batch.after());
                self.keeping.passed = None;
                match from {
                    From::Memory(waiters) => self.put_back(Outgoing {
                        batch,
                        waiters,
                        failure: None,
                    }),
                    _ => self.replay.rewind(),
                }
            }
            Outcome::Gap { last } => {
                let lost = match &from {
                    From::Disk(sent) if sent.is_older() => {
                        self.replay.older_lost_after(batch.lane(), last)
                    }
                    _ => self.lane.lost_after(last),
                };
                self.metrics.lost_by_redis.inc_by(lost);
                tracing::error!(
                    queue = &*self.name, lane = %batch.lane(), last, lost,
                    "Redis has lost acknowledged records of this lane"
                );
                self.dispatch(batch.with_after(last), from, now);
            }
            // No batch of records asks for these.
            Outcome::Reached { .. } | Outcome::Confirmed { .. } => {
                let error = Error::new(
                    ErrorKind::Foreign,
                    Verdict::new(Class::Permanent, Landed::Maybe),
                );
                let error = error.with_cause("the answer is not one to a batch of records");
                self.on_failed(batch, from, error, now);
            }
        }
    }

    /// The records up to `through` are with `keeper`. Gives back what there is behind them.
    fn settle(
        &mut self,
        batch: &Batch<T>,
        through: u64,
        from: From,
        keeper: Keeper,
        sent: &AsOf,
        now: Instant,
    ) -> From {
        if through < batch.first() {
            return from;
        }
        let count = (through - batch.first() + 1) as usize;
        let spent = (batch.first()..=through).filter(|number| batch.is_spent(*number));
        let expired = if batch.has_spent() { spent.count() } else { 0 };
        if expired > 0 {
            self.metrics.expired.inc_by(expired as u64);
            let queue = &*self.name;
            tracing::warn!(
                queue,
                expired,
                "records not delivered: their time had passed"
            );
        }
        self.last_applied = now;
        self.unblock();
        let whole = through == batch.last();
        let done = batch.clone().until(through);
        let far_end = keeper == Keeper::FarEnd;
        let confirms = far_end && self.confirming.is_wanted();
        if far_end {
            self.keep_acknowledged(done.clone(), sent, confirms, now);
        }
        match from {
            From::Memory(mut waiters) if !far_end => {
                let later = waiters.split_off(count);
                // There, or on disk on the way there.
                self.answer_batch(&done, waiters, Place::Spooled, now);
                From::Memory(later)
            }
            From::Memory(mut waiters) => {
                self.lane.acknowledge(through);
                let later = waiters.split_off(count);
                if confirms {
                    self.await_replicas(done, waiters, now);
                } else {
                    self.answer_batch(&done, waiters, Place::Delivered, now);
                }
                From::Memory(later)
            }
            From::Disk(mut from) => {
                let counter = match keeper {
                    Keeper::FarEnd => &self.metrics.replayed,
                    Keeper::SomebodyElse => &self.metrics.moved,
                };
                counter.inc_by((count - expired) as u64);
                self.pace.delivered(count, now);
                match keeper {
                    Keeper::SomebodyElse => {}
                    Keeper::FarEnd if from.is_older() => self.replay.older_acknowledged(through),
                    Keeper::FarEnd => self.lane.acknowledge(through),
                }
                if confirms && whole {
                    self.hold_on_disk(done, from, now);
                    return From::Tail;
                }
                if confirms {
                    self.await_part(done, now);
                }
                let removed = self
                    .replay
                    .remove(&mut from, through, &self.shared, &mut self.lane);
                if far_end {
                    self.done_with(batch.lane(), through, removed);
                } else {
                    self.shared.disk.done(removed);
                }
                From::Disk(from)
            }
            From::Tail => From::Tail,
        }
    }

    pub(super) fn on_failed(&mut self, rest: Batch<T>, from: From, error: Error, now: Instant) {
        self.ambiguous |= error.may_have_landed();
        if error.is_permanent() {
            self.block(&error);
        }
        self.pace.failed(error.retry_after(), now, rand::random());
        match from {
            From::Memory(waiters) => {
                self.put_back(Outgoing {
                    batch: rest,
                    waiters,
                    failure: Some(error),
                });
            }
            From::Disk(_) => self.replay.rewind(),
            From::Tail => {}
        }
    }

    /// Keeps what Redis will never take, with its reason, out of the way of the others. As far as there is
    /// no room for it, it stays where it is and blocks the lane.
    pub(super) fn park(
        &mut self,
        batch: &Batch<T>,
        first: u64,
        last: u64,
        sent: Sent,
        error: &Error,
        now: Instant,
    ) {
        let (most, wanted) = (self.shared.options.max_parked, last - first + 1);
        let room = self.shared.usage.reserve_parked(wanted, most);
        if room == 0 {
            let full = Error::new(ErrorKind::SpoolFull, error.verdict())
                .with_cause(format!("Redis refuses the next record for good, and {most} are parked already; send some again or delete them"));
            self.block(&full);
            self.pace.failed(None, now, rand::random());
            self.replay.rewind();
            return;
        }
        self.unblock();
        let last = first + room - 1;
        let reason = error.reason();
        tracing::error!(
            queue = &*self.name, lane = %batch.lane(), first, last, reason,
            "Redis refuses records for good; they are parked"
        );
        let parked_ms = unix_ms(SystemTime::now());
        let overhead = self.shared.disk.overhead();
        let parked = batch
            .iter()
            .zip(batch.records())
            .filter(|((number, _), _)| (first..=last).contains(number))
            .map(|((number, _), record)| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                Parked {
                    lane: batch.lane(),
                    number,
                    queue: self.name.to_string(),
                    reason: reason.clone(),
                    parked_ms,
                    attempts: sent.refused() + 1,
                    record: bytes.into(),
                    overhead,
                }
            })
            .collect();
        self.replay.park(parked, last, sent, &self.shared);
    }
}

/// Callers whose records make one batch rather than two. Measured with `cargo bench --bench enqueue`.
const A_FEW: usize = 96;

/// How often others are let go first for one batch: they may be on their way on another thread.
const PATIENCE: u8 = 4;

/// A request with records from disk has at least this long, however soon records go there.
const REPLAY_PATIENCE: Duration = Duration::from_millis(250);

//! What goes to disk, and what becomes of it when there is no room.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Appending, Outgoing, Queue, unix_ms};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{
        Batch, Bound, Overflow, Place, Spoolable,
        chunk::{Chunk, Writer},
        error::StoreError,
        intake::Waiter,
        lane::{Append, Span},
    },
};

/// What there is room for of a batch.
pub(super) struct Encoded {
    chunks: Vec<Chunk>,
    /// How many records those are, and what they are booked for.
    kept: usize,
    bytes: u64,
    /// What stopped the next one.
    met: Option<Met>,
}

/// A record has met a bound.
#[derive(Clone, Copy)]
struct Met {
    bound: Bound,
    bytes: u64,
}

impl<T: Spoolable> Queue<T> {
    pub(super) fn start_append(&mut self, now: Instant) {
        if self.holds && self.returned.is_empty() {
            // Whoever it was kept for has come in, or is gone.
            self.holds = false;
            self.shared.usage.release(self.slot);
        }
        // Each turn that writes nothing has refused something, so this ends.
        while self.appending.is_none() {
            let gathered = self.intake.gathered();
            let overdue = gathered.is_some_and(|(_, since)| self.overdue_at(since) <= now);
            // What waits for a pass that cannot go on for now need not wait for it in memory.
            let stuck = self.keeping.is_in_pass() && self.keeping.pace.wait_until(now).is_some();
            let overdue = overdue || stuck;
            let count = gathered.map_or(0, |(count, _)| count);
            let few = self.replay.is_last_in_flight(&self.lane);
            let append = match self.lane.may_append(count, overdue, few) {
                Append::Nothing if self.hard && count > 0 => Append::Gathered,
                append => append,
            };
            let outgoing = match append {
                Append::Nothing => return,
                Append::Returned => {
                    self.lane.take_returned();
                    self.returned.pop_front()
                }
                Append::Gathered => self.gather(),
            };
            let Some(outgoing) = outgoing else { return };
            if !self.write(outgoing, now) {
                return;
            }
        }
    }

    /// Takes and numbers what has gathered.
    pub(super) fn gather(&mut self) -> Option<Outgoing<T>> {
        let options = &self.shared.options;
        let (records, waiters) = self
            .intake
            .take(options.max_batch_records, options.max_batch_bytes);
        if records.is_empty() {
            return None;
        }
        let span = self.lane.take(records.len());
        let batch = Batch::new(self.id, self.name.clone(), span.first, records)
            .with_lifetime(options.lane_lifetime);
        Some(Outgoing {
            batch,
            waiters: waiters.into(),
            failure: None,
        })
    }

    /// Starts writing as much of `outgoing` as there is room for, and settles what happens to the rest.
    /// Says whether anything else may be tried now.
    pub(super) fn write(&mut self, outgoing: Outgoing<T>, now: Instant) -> bool {
        let Outgoing {
            batch,
            mut waiters,
            failure,
        } = outgoing;
        let Encoded {
            chunks,
            kept,
            bytes,
            met,
        } = self.encode(&batch);
        let span = Span {
            first: batch.first(),
            last: batch.first() + kept as u64 - 1,
        };
        let rest = waiters.split_off(kept);
        if kept > 0 {
            let disk = self.shared.disk.clone();
            let answer = async move { disk.append(chunks).await }.boxed();
            let give_up = now + self.shared.options.disk_timeout;
            let failure = failure.as_ref().map(Error::again);
            self.lane.appending(span);
            self.appending = Some(Appending {
                span,
                waiters,
                failure,
                bytes,
                give_up,
                answer,
            });
        }
        let batch = if kept > 0 {
            batch.rest(span.last)
        } else {
            Some(batch)
        };
        match (batch, met) {
            (Some(batch), Some(met)) => {
                let rest = Outgoing {
                    batch,
                    waiters: rest,
                    failure,
                };
                self.overflow(rest, met, now)
            }
            _ => true,
        }
    }

    /// Settles what happens to `rest`, the first of which has met a bound. Says whether anything else may
    /// be tried now.
    fn overflow(&mut self, mut rest: Outgoing<T>, met: Met, now: Instant) -> bool {
        if self.may_wait(&rest, met, now) {
            self.put_back(rest);
            // Nothing will change before something is freed, or time has passed.
            return self.appending.is_some();
        }
        // Those behind may be smaller, or have more time.
        let later = match self.patience() {
            Some(patience) if !self.is_at_its_end() => {
                let overdue = |waiter: &Waiter| waiter.since + patience <= now;
                rest.waiters
                    .iter()
                    .take_while(|waiter| overdue(waiter))
                    .count()
                    .max(1)
            }
            _ if met.bound.is_for_all() || self.hard => rest.waiters.len(),
            _ => 1,
        };
        let waiters = rest.waiters.split_off(later);
        let last = rest.batch.first() + later as u64 - 1;
        let behind = rest.batch.clone().rest(last).map(|batch| Outgoing {
            batch,
            waiters,
            failure: rest.failure.as_ref().map(Error::again),
        });
        self.shared.usage.refused(self.slot, met.bound);
        match self.limits.overflow {
            Overflow::DropNewest => self.drop_newest(rest, now),
            _ => self.refuse_full(rest, met.bound),
        }
        if let Some(behind) = behind {
            self.put_back(behind);
        }
        true
    }

    /// The chunks of the first records for which there is room, or for which some can be made.
    pub(super) fn encode(&mut self, batch: &Batch<T>) -> Encoded {
        let written = unix_ms(SystemTime::now());
        let acknowledged = self.lane.acknowledged();
        let overhead = self.shared.disk.overhead();
        let mut writer = Writer::new(
            self.id,
            &self.name,
            batch.first(),
            acknowledged,
            written,
            overhead,
        );
        let Self {
            shared,
            slot,
            replay,
            lane,
            limits,
            holds,
            ..
        } = self;
        let (mut kept, mut bytes, mut met, mut dropped) = (0, 0, None, 0);
        shared.usage.measured(shared.disk.bytes());
        let mut fits = |more| {
            let Err(bound) = shared.usage.admit(*slot, more, []) else {
                bytes += more;
                return true;
            };
            let (fits, gone) = match limits.overflow {
                Overflow::DropOldest => replay.make_room(more, batch.first(), shared, lane),
                _ => (false, 0),
            };
            dropped += gone;
            *holds |= !fits && gone > 0;
            if fits {
                bytes += more;
            } else {
                met = Some(Met { bound, bytes: more });
            }
            fits
        };
        for record in batch.records() {
            if !writer.push_if(|bytes| record.encode(bytes), &mut fits) {
                break;
            }
            kept += 1;
        }
        if kept > 0 || dropped > 0 {
            self.note_dropped(dropped);
            self.shared.usage.publish(Some(self.slot));
        }
        Encoded {
            chunks: writer.finish(),
            kept,
            bytes,
            met,
        }
    }

    /// Whether the first of `outgoing` waits for room.
    fn may_wait(&self, outgoing: &Outgoing<T>, met: Met, now: Instant) -> bool {
        self.give_up_at(outgoing).is_some_and(|at| at > now)
            && match self.limits.overflow {
                // What is being written can be dropped soon.
                Overflow::DropOldest => {
                    (self.appending.is_some()
                        || self
                            .replay
                            .has_droppable(outgoing.batch.first(), &self.lane))
                        && self.shared.usage.could_admit(self.slot, met.bytes)
                }
                _ => true,
            }
    }

    /// Until when a record may wait for room on disk; `None` if it may not.
    pub(super) fn give_up_at(&self, outgoing: &Outgoing<T>) -> Option<Instant> {
        let patience = self.patience().filter(|_| !self.is_at_its_end())?;
        let first = outgoing.waiters.front()?;
        Some(first.since + patience)
    }

    /// How long a record may wait for room on disk.
    fn patience(&self) -> Option<Duration> {
        match self.limits.overflow {
            Overflow::Block { timeout } => Some(timeout),
            Overflow::DropOldest => Some(self.shared.options.disk_timeout),
            Overflow::Reject | Overflow::DropNewest => None,
        }
    }

    /// Nothing is worth waiting for.
    fn is_at_its_end(&self) -> bool {
        self.hard || self.shared.disk.is_poisoned()
    }

    /// Keeps `outgoing` in memory until it can be written.
    pub(super) fn put_back(&mut self, outgoing: Outgoing<T>) {
        let span = Span {
            first: outgoing.batch.first(),
            last: outgoing.batch.last(),
        };
        let place = self.lane.returned(span);
        self.returned.insert(place, outgoing);
    }

    fn refuse_full(&self, outgoing: Outgoing<T>, bound: Bound) {
        let full = || {
            let landed = outgoing
                .failure
                .as_ref()
                .map_or(Landed::No, |e| e.verdict().landed);
            let error = Error::new(ErrorKind::SpoolFull, Verdict::new(Class::Outage, landed));
            match &outgoing.failure {
                Some(failure) => error.with_source(failure.again()),
                None => error.with_cause(format!("it has met {bound}")),
            }
        };
        self.refuse(outgoing.waiters, full);
    }

    pub(super) fn on_appended(&mut self, answer: Result<(), StoreError>, now: Instant) {
        let Some(Appending {
            span,
            waiters,
            failure,
            bytes,
            ..
        }) = self.appending.take()
        else {
            return;
        };
        self.lane.appended(answer.is_ok());
        self.shared.usage.settle(bytes);
        let count = span.last - span.first + 1;
        match answer {
            Ok(()) => {
                self.metrics.appended.inc_by(count);
                self.replay.appended(span.first);
                self.answer(waiters, span.first, Place::Spooled, now);
            }
            Err(error) => {
                self.shared.usage.free(self.slot, count, bytes);
                let failed = || {
                    // What Redis may have, or the disk may have, may yet be delivered.
                    let landed = match &failure {
                        Some(failure) if failure.may_have_landed() => Landed::Maybe,
                        _ => error.landed(),
                    };
                    let kind = match error {
                        StoreError::Full(_) => ErrorKind::SpoolFull,
                        _ => ErrorKind::Spool,
                    };
                    Error::new(kind, Verdict::new(Class::Outage, landed))
                        .with_cause(error.to_string())
                };
                self.refuse(waiters, failed);
            }
        }
    }
}

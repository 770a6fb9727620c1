//! What goes to disk, and what becomes of it when there is no room.

use std::time::SystemTime;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Appending, Outgoing, Queue, unix_ms};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{
        Batch, Place, Spoolable,
        chunk::{Chunk, Writer},
        error::StoreError,
        lane::{Append, Span},
        options::Overflow,
    },
};

impl<T: Spoolable> Queue<T> {
    pub(super) fn start_append(&mut self, now: Instant) {
        // Each turn that writes nothing has refused something, so this ends.
        while self.appending.is_none() {
            let gathered = self.intake.gathered();
            let overdue = gathered.is_some_and(|(_, since)| self.overdue_at(since) <= now);
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
        let (chunks, kept, bytes) = self.encode(&batch);
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
        let Some(batch) = (if kept > 0 {
            batch.rest(span.last)
        } else {
            Some(batch)
        }) else {
            return true;
        };
        let rest = Outgoing {
            batch,
            waiters: rest,
            failure,
        };
        match self.give_up_at(&rest) {
            Some(give_up) if give_up > now => {
                self.put_back(rest);
                // Nothing will change before something is freed, or time has passed.
                kept > 0
            }
            _ => {
                self.refuse_full(rest);
                true
            }
        }
    }

    /// The chunks of the first records for which there is room, how many those are, and their bytes.
    pub(super) fn encode(&self, batch: &Batch<T>) -> (Vec<Chunk>, usize, u64) {
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
        let usage = &self.shared.usage;
        let (mut kept, mut bytes) = (0, 0);
        for record in batch.records() {
            let fits = writer.push_if(
                |bytes| record.encode(bytes),
                |more| {
                    let fits = usage.try_reserve(more);
                    bytes += if fits { more } else { 0 };
                    fits
                },
            );
            if !fits {
                break;
            }
            kept += 1;
        }
        usage.publish();
        (writer.finish(), kept, bytes)
    }

    /// Until when a record may wait for room on disk; `None` if it may not.
    pub(super) fn give_up_at(&self, outgoing: &Outgoing<T>) -> Option<Instant> {
        let Overflow::Block { timeout } = self.shared.options.overflow else {
            return None;
        };
        if self.hard || self.shared.disk.is_poisoned() {
            return None;
        }
        outgoing
            .waiters
            .front()
            .map(|waiter| waiter.since + timeout)
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

    pub(super) fn refuse_full(&self, outgoing: Outgoing<T>) {
        let full = || {
            let landed = outgoing
                .failure
                .as_ref()
                .map_or(Landed::No, |e| e.verdict().landed);
            let error = Error::new(ErrorKind::SpoolFull, Verdict::new(Class::Outage, landed));
            match &outgoing.failure {
                Some(failure) => error.with_source(failure.again()),
                None => error,
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
        let count = span.last - span.first + 1;
        match answer {
            Ok(()) => {
                self.metrics.appended.inc_by(count);
                self.replay.appended(span.first);
                self.answer(waiters, span.first, Place::Spooled, now);
            }
            Err(error) => {
                self.shared.usage.free(count, bytes);
                let failed = || {
                    // What Redis may have, or the disk may have, may yet be delivered.
                    let landed = match &failure {
                        Some(failure) if failure.may_have_landed() => Landed::Maybe,
                        _ => error.landed(),
                    };
                    Error::new(ErrorKind::Spool, Verdict::new(Class::Outage, landed))
                        .with_cause(error.to_string())
                };
                self.refuse(waiters, failed);
            }
        }
    }
}

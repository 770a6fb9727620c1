//! What the callers hear, and what the operators see.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Queue;
use crate::{
    error::{Error, ErrorKind},
    spool::{Batch, Place, Receipt, Spoolable, intake::Waiter},
};

impl<T: Spoolable> Queue<T> {
    pub(super) fn answer(&self, waiters: VecDeque<Waiter>, first: u64, place: Place, now: Instant) {
        let (counter, seconds) = match place {
            Place::Delivered => (&self.metrics.delivered, &self.metrics.delivered_seconds),
            Place::Spooled => (&self.metrics.spooled, &self.metrics.spooled_seconds),
            Place::Dropped => (&self.metrics.dropped, &self.metrics.dropped_seconds),
        };
        let gathered = self.intake.gathered().map_or(0, |(count, _)| count);
        self.intake.expect(waiters.len() + gathered);
        counter.inc_by(waiters.len() as u64);
        let seconds = seconds.local();
        let mut memory = 0;
        for (number, waiter) in (first..).zip(waiters) {
            seconds.observe((now - waiter.since).as_secs_f64());
            memory += waiter.memory as usize;
            let _ = waiter.receipt.send(Ok(Receipt {
                place,
                lane: self.id,
                number,
            }));
        }
        seconds.flush();
        self.give_back(memory);
    }

    /// Answers those who wait for the first records of `batch`, of which some may have expired.
    pub(super) fn answer_batch(
        &self,
        batch: &Batch<T>,
        done: VecDeque<Waiter>,
        place: Place,
        now: Instant,
    ) {
        if !batch.has_spent() {
            return self.answer(done, batch.first(), place, now);
        }
        for (number, waiter) in (batch.first()..).zip(done) {
            let one = VecDeque::from([waiter]);
            if batch.is_spent(number) {
                self.refuse(one, || {
                    Error::new(ErrorKind::Expired, crate::error::NOT_DONE)
                });
            } else {
                self.answer(one, number, place, now);
            }
        }
    }

    pub(super) fn refuse(&self, waiters: VecDeque<Waiter>, error: impl Fn() -> Error) {
        self.metrics.refused.inc_by(waiters.len() as u64);
        let mut memory = 0;
        for waiter in waiters {
            self.metrics
                .refused_seconds
                .observe(waiter.since.elapsed().as_secs_f64());
            memory += waiter.memory as usize;
            let _ = waiter.receipt.send(Err(error()));
        }
        self.give_back(memory);
    }

    fn give_back(&self, memory: usize) {
        self.intake.answered(memory);
        self.shared.memory.add_permits(memory);
    }

    pub(super) fn block(&mut self, error: &Error) {
        if !self.blocked {
            self.blocked = true;
            tracing::error!(
                queue = &*self.name,
                reason = error.reason(),
                "lane blocked: its records are kept, and sent once this is put right"
            );
        }
    }

    pub(super) fn unblock(&mut self) {
        if self.blocked {
            self.blocked = false;
            tracing::info!(queue = &*self.name, "lane no longer blocked");
        }
    }

    pub(super) fn show_state(&mut self) {
        let spooling = !self.lane.is_drained();
        let state = match (self.blocked, spooling) {
            (true, _) => "blocked",
            (false, true) => "spooling",
            (false, false) => "direct",
        };
        if self.state != Some(state) {
            match (self.state, state) {
                (Some(_), "spooling") => {
                    tracing::warn!(queue = &*self.name, "lane spooling: records go to disk");
                }
                (Some("spooling" | "blocked"), "direct") => {
                    tracing::info!(
                        queue = &*self.name,
                        "lane direct again: the disk is drained"
                    );
                }
                _ => {}
            }
            self.move_state(Some(state));
        }
        self.replay.show_oldest(&self.shared, &self.lane);
    }

    pub(super) fn move_state(&mut self, state: Option<&'static str>) {
        let lanes = &self.shared.options.metrics.lanes;
        if let Some(old) = self.state {
            lanes.with_label_values(&[old]).dec();
        }
        if let Some(new) = state {
            lanes.with_label_values(&[new]).inc();
        }
        self.state = state;
    }
}

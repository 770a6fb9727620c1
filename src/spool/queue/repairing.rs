//! A pass over the tail: Redis is asked how far it has each lane, and gets back what it has lost.

use tokio::time::Instant;

use super::{From, Queue, keeping::AsOf};
use crate::{
    error::Error,
    spool::{
        Asks, Batch, LaneId, Spoolable,
        applied::Outcome,
        tail::{Shortfall, Step},
    },
};

impl<T: Spoolable> Queue<T> {
    /// Starts the next step of the pass that is under way.
    pub(super) fn start_step(&mut self, now: Instant) {
        if self.keeping.pace.wait_until(now).is_some() {
            return;
        }
        let batch = match self.keeping.tail.step() {
            None => return,
            Some(Step::Load(disk)) => return self.load(disk),
            Some(Step::Ask(lane)) => Batch::question(lane, self.name.clone(), Asks::Reached),
            Some(Step::Send { after }) => {
                let options = &self.shared.options;
                let (records, bytes) = (options.max_batch_records, options.max_batch_bytes);
                if self.keeping.spilling.is_none() {
                    // What is being written is known by its numbers until it is.
                    self.keeping.tail.merge_missing(records, bytes);
                }
                let missing = self.keeping.tail.first_missing();
                let Some(batch) = missing.and_then(|entry| entry.memory.clone()) else {
                    return;
                };
                batch.with_after(after)
            }
        };
        let batch = batch
            .with_lifetime(self.shared.options.lane_lifetime)
            .with_generation(self.keeping.generation());
        self.dispatch(batch, From::Tail, now);
    }

    /// A step has been answered.
    pub(super) fn on_step(
        &mut self,
        batch: &Batch<T>,
        sent: &AsOf,
        outcome: Outcome,
        duplicates: u64,
        now: Instant,
    ) {
        let lane = batch.lane();
        match outcome {
            Outcome::Reached { last } => self.on_reached(lane, last, sent),
            // A far end that is not asked for numbers has all there is.
            Outcome::All if batch.asks() == Asks::Reached => self.on_reached(lane, u64::MAX, sent),
            Outcome::All => self.sent_again(batch, batch.last(), sent, duplicates, now),
            Outcome::Stopped { through, error } => {
                self.ambiguous |= lane == self.id && error.may_have_landed();
                self.sent_again(batch, through, sent, duplicates, now);
                self.on_step_failed(&error, now);
            }
            Outcome::Refused {
                through,
                count,
                error,
            } => {
                self.sent_again(batch, through, sent, duplicates, now);
                self.refused_again(through + count, &error);
            }
            Outcome::Gap { last } => {
                self.on_reached(lane, last, sent);
                self.keeping.passed = None;
            }
            Outcome::Confirmed { .. } => {}
        }
        self.show_tail();
    }

    fn on_step_failed(&mut self, error: &Error, now: Instant) {
        if error.is_permanent() {
            self.block(error);
        }
        self.keeping
            .pace
            .failed(error.retry_after(), now, rand::random());
    }

    /// Redis has `lane` up to `last`.
    pub(super) fn on_reached(&mut self, lane: LaneId, last: u64, sent: &AsOf) {
        self.unblock();
        self.keeping.pace.delivered(0, Instant::now());
        let seen = self.keeping.seen(sent.term);
        let history = sent.history.as_ref();
        let shortfall = self.keeping.tail.reached(lane, last, seen, history);
        self.tell(lane, shortfall);
        self.sync_acknowledged(lane);
    }

    fn tell(&self, lane: LaneId, shortfall: Shortfall) {
        let queue = &*self.name;
        if let Some((first, last)) = shortfall.missing {
            tracing::warn!(
                queue, %lane, first, last,
                "Redis has lost records that it had acknowledged; they are sent again"
            );
        }
        if let Some((first, last)) = shortfall.lost {
            self.metrics.lost_by_redis.inc_by(last - first + 1);
            tracing::error!(
                queue, %lane, first, last,
                "Redis has lost records that it had acknowledged, and they are not kept any more"
            );
        }
        if let Some((first, last)) = shortfall.removed {
            self.metrics.removed.inc_by(last - first + 1);
            tracing::error!(
                queue, %lane, first, last,
                "Redis no longer knows a lane although it has lost nothing: FLUSHALL, or an eviction; \
                 its records are not sent again"
            );
        }
    }

    /// What is lost for good is no longer to be there.
    fn sync_acknowledged(&mut self, lane: LaneId) {
        let Some(acknowledged) = self.keeping.tail.acknowledged_of(lane) else {
            return;
        };
        if lane == self.id {
            self.lane.lost_after(acknowledged);
        } else {
            self.replay.older_lost_after(lane, acknowledged);
        }
    }

    /// Redis has what was missing of `batch` up to `through`.
    fn sent_again(
        &mut self,
        batch: &Batch<T>,
        through: u64,
        sent: &AsOf,
        duplicates: u64,
        now: Instant,
    ) {
        if through < batch.first() {
            return;
        }
        self.unblock();
        self.keeping.pace.delivered(0, now);
        let numbers = batch.first()..=through;
        let live = numbers.filter(|number| !batch.is_spent(*number)).count();
        self.metrics
            .repaired
            .inc_by((live as u64).saturating_sub(duplicates));
        let seen = self.keeping.seen(sent.term);
        let history = sent.history.as_ref();
        self.keeping.tail.sent_again(through, seen, history, now);
        if self.keeping.tail.step().is_none() {
            tracing::info!(queue = &*self.name, "Redis has again what it had lost");
        }
    }

    /// Redis had taken these once, and now refuses them for good.
    fn refused_again(&mut self, through: u64, error: &Error) {
        let refused = self.keeping.tail.give_up_missing(through);
        self.count_lost(refused, &error.reason());
    }

    /// What was missing can't be given back.
    pub(super) fn count_lost(&self, which: Option<(LaneId, u64, u64)>, reason: &str) {
        let Some((lane, first, last)) = which else {
            return;
        };
        self.metrics.lost_by_redis.inc_by(last - first + 1);
        tracing::error!(
            queue = &*self.name, %lane, first, last, reason,
            "records that Redis had acknowledged and lost cannot be given back"
        );
    }
}

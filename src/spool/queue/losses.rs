//! What is lost because it was asked for: dropped for want of room, or expired. Counted one by one, and
//! told now and then.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Outgoing, Queue, unix_ms};
use crate::spool::{LaneId, Place, Spoolable, limits::WhenOld};

/// What the operators have still to hear of.
#[derive(Debug, Default)]
pub(super) struct Losses {
    oldest: Episode,
    newest: Episode,
    expired: Episode,
    given_up: Episode,
    /// The lane at the front that is old and is kept, once that has been told.
    old: Option<LaneId>,
    /// When the front will be old.
    due: Option<Instant>,
}

impl Losses {
    /// When there is something to do that time alone brings about.
    pub(super) fn due(&self) -> Option<Instant> {
        let episodes = [&self.oldest, &self.newest, &self.expired, &self.given_up];
        let told = episodes.into_iter().filter_map(Episode::due);
        told.chain(self.due).min()
    }

    /// Tells what is due; all of it, if there is no later.
    pub(super) fn tell(&mut self, queue: &str, now: Option<Instant>) {
        if let Some(dropped) = self.oldest.take(now) {
            tracing::warn!(
                queue,
                dropped,
                "the oldest records were dropped to make room"
            );
        }
        if let Some(dropped) = self.newest.take(now) {
            tracing::warn!(queue, dropped, "new records were dropped for want of room");
        }
        if let Some(expired) = self.expired.take(now) {
            tracing::warn!(queue, expired, "records on disk have expired");
        }
        if let Some(given_up) = self.given_up.take(now) {
            tracing::warn!(
                queue,
                given_up,
                "replicas lack records for which there is no more room: a failover would lose them"
            );
        }
    }

    /// So many records are no longer kept although replicas may lack them.
    pub(super) fn note_given_up(&mut self, records: u64) {
        self.given_up.note(records);
    }
}

impl<T: Spoolable> Queue<T> {
    /// Drops what has waited on disk for too long, or tells of it; and tells what else is to be told.
    pub(super) fn look_for_old(&mut self, now: Instant) {
        self.losses.due = None;
        if let Some(max_age) = self.limits.max_age {
            let now_ms = unix_ms(SystemTime::now());
            let left = |written_ms| max_age.left(written_ms, now_ms);
            if max_age.when_old == WhenOld::Expire {
                let is_old = |written_ms| left(written_ms).is_none();
                let expired = self.replay.expire(is_old, &self.shared, &mut self.lane);
                self.metrics.expired.inc_by(expired);
                self.losses.expired.note(expired);
            }
            match self.replay.front() {
                Some((lane, written_ms)) => match left(written_ms) {
                    // The clock may be set, so it is asked again before long.
                    Some(left) => {
                        self.losses.due = Some(now + left.min(LONGEST_LOOK));
                        self.losses.old = None;
                    }
                    None if max_age.when_old == WhenOld::Keep && self.losses.old != Some(lane) => {
                        self.losses.old = Some(lane);
                        tracing::warn!(queue = &*self.name, %lane, "records on disk are old");
                    }
                    None => {}
                },
                None if self.lane.is_drained() => self.losses.old = None,
                None => {}
            }
        }
        self.losses.tell(&self.name, Some(now));
    }

    /// So many of the oldest have made room.
    pub(super) fn note_dropped(&mut self, oldest: u64) {
        self.metrics.dropped_oldest.inc_by(oldest);
        self.losses.oldest.note(oldest);
    }

    /// These have no room, and are let go.
    pub(super) fn drop_newest(&mut self, outgoing: Outgoing<T>, now: Instant) {
        let Outgoing { batch, waiters, .. } = outgoing;
        let count = waiters.len() as u64;
        self.metrics.dropped_newest.inc_by(count);
        self.losses.newest.note(count);
        self.answer(waiters, batch.first(), Place::Dropped, now);
    }
}

/// Counts losses, and says when they are worth an event: the first at once, those that follow together.
#[derive(Debug, Default)]
struct Episode {
    count: u64,
    told: Option<Instant>,
}

impl Episode {
    fn note(&mut self, count: u64) {
        self.count += count;
    }

    fn due(&self) -> Option<Instant> {
        let told = self.told.filter(|_| self.count > 0)?;
        Some(told + BETWEEN_EVENTS)
    }

    /// How many to tell of now; without a moment, there is no later.
    fn take(&mut self, now: Option<Instant>) -> Option<u64> {
        let waits = now.is_some_and(|now| self.due().is_some_and(|due| due > now));
        if self.count == 0 || waits {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.count))
    }
}

const BETWEEN_EVENTS: Duration = Duration::from_secs(10);

/// The age of a record is by the wall clock, and the timer by another.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_told_once_and_events_keep_their_distance() {
        let begin = Instant::now();
        let mut episode = Episode::default();
        let mut told = Vec::new();
        for second in 0..35 {
            let now = begin + Duration::from_secs(second);
            if second < 21 {
                episode.note(3);
            }
            if let Some(count) = episode.take(Some(now)) {
                told.push((second, count));
            }
        }
        assert_eq!(told, [(0, 3), (10, 30), (20, 30)]);
        episode.note(2);
        assert_eq!(episode.take(None), Some(2));
        assert_eq!(episode.take(None), None);
    }
}

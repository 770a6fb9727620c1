//! Receipts that wait for replicas: [`Ack::Replicated`](crate::spool::Ack::Replicated).
//!
//! What Redis has acknowledged gathers here, and one WAIT serves all that has gathered, on a connection of
//! its own, while the next batches are on their way. What is not confirmed in time is written to disk with
//! the tail, and its receipt says so.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Queue, Waiter};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{
        Applied, Asks, Batch, LaneId, Place, Spoolable, applied::Outcome, options::Confirmation,
        replay::Sent,
    },
};

/// What waits for replicas.
pub(super) struct Confirming<T> {
    wanted: Option<Confirmation>,
    waiting: VecDeque<Unconfirmed<T>>,
    /// What has come from disk is among it. Nothing else is sent meanwhile.
    holds_disk: bool,
    asked: Option<Asked>,
    /// Not to be asked again before this.
    paused: Option<Instant>,
    /// It has been told that replicas do not answer.
    told: bool,
}

struct Unconfirmed<T> {
    batch: Batch<T>,
    whose: Whose,
    /// When it is to be on disk instead.
    until: Instant,
}

/// Whose records wait.
enum Whose {
    Callers(VecDeque<Waiter>),
    /// They are on disk, and stay there until then.
    Disk(Sent),
    /// Nobody's: part of them only.
    Nobody,
}

struct Asked {
    lane: LaneId,
    answer: BoxFuture<'static, Result<Applied, Error>>,
}

impl<T: Spoolable> Confirming<T> {
    pub(super) fn new(wanted: Option<Confirmation>) -> Self {
        Self {
            wanted,
            waiting: VecDeque::new(),
            holds_disk: false,
            asked: None,
            paused: None,
            told: false,
        }
    }

    /// Whether receipts wait for replicas.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether what comes after it has to wait, although no request is on its way.
    pub(super) fn holds_disk(&self) -> bool {
        self.holds_disk
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Applied, Error>> {
        match &mut self.asked {
            Some(asked) => asked.answer.as_mut().poll(cx),
            None => std::task::Poll::Pending,
        }
    }

    /// When time alone changes something.
    pub(super) fn due(&self) -> Option<Instant> {
        let until = self.waiting.front().map(|waits| waits.until);
        let paused = self.paused.filter(|_| self.asked.is_none());
        until.into_iter().chain(paused).min()
    }
}

impl<T: Spoolable> Queue<T> {
    /// Redis has acknowledged `batch`; its callers hear of it once replicas have it.
    pub(super) fn await_replicas(
        &mut self,
        batch: Batch<T>,
        waiters: VecDeque<Waiter>,
        now: Instant,
    ) {
        self.await_confirmation(batch, Whose::Callers(waiters), now);
    }

    /// The same for records from disk. Nothing else is sent meanwhile.
    pub(super) fn hold_on_disk(&mut self, batch: Batch<T>, sent: Sent, now: Instant) {
        self.lane.sending();
        self.confirming.holds_disk = true;
        self.await_confirmation(batch, Whose::Disk(sent), now);
    }

    /// The same for a part of what came from disk, which leaves it.
    pub(super) fn await_part(&mut self, batch: Batch<T>, now: Instant) {
        self.await_confirmation(batch, Whose::Nobody, now);
    }

    fn await_confirmation(&mut self, batch: Batch<T>, whose: Whose, now: Instant) {
        let timeout = self
            .confirming
            .wanted
            .map_or(Duration::ZERO, |wanted| wanted.timeout);
        self.confirming.waiting.push_back(Unconfirmed {
            batch,
            whose,
            until: now + timeout,
        });
    }

    /// Asks for the replicas of what waits, unless that is under way.
    pub(super) fn start_confirm(&mut self, now: Instant) {
        let Some(wanted) = self.confirming.wanted else {
            return;
        };
        let paused = self.confirming.paused.is_some_and(|until| until > now);
        if self.confirming.asked.is_some() || paused || self.keeping.is_in_pass() || self.hard {
            return;
        }
        let Some(first) = self.confirming.waiting.front() else {
            return;
        };
        let left = first.until.saturating_duration_since(now);
        if left.is_zero() {
            return;
        }
        let lane = first.batch.lane();
        let asks = Asks::Confirm {
            replicas: wanted.replicas,
            timeout: left,
            on_disk: wanted.on_disk,
        };
        let question = Batch::question(lane, self.name.clone(), asks)
            .with_lifetime(self.shared.options.lane_lifetime)
            .with_deadline(Some(now + left + ANSWER));
        self.confirming.paused = None;
        let answer = self.send(question, self.shared.way_out());
        self.confirming.asked = Some(Asked { lane, answer });
    }

    pub(super) fn on_confirmed(&mut self, answer: Result<Applied, Error>, now: Instant) {
        let (Some(asked), Some(wanted)) = (self.confirming.asked.take(), self.confirming.wanted)
        else {
            return;
        };
        let enough = match answer.map(|applied| applied.outcome) {
            Ok(Outcome::Confirmed { last, replicas }) => {
                (replicas >= u64::from(wanted.replicas)).then_some(last)
            }
            Err(error) if error.is_permanent() && !self.confirming.told => {
                self.confirming.told = true;
                let reason = error.reason();
                tracing::error!(
                    queue = &*self.name,
                    reason,
                    "Redis cannot be asked to wait for replicas"
                );
                None
            }
            _ => None,
        };
        let Some(last) = enough else {
            self.confirming.paused = Some(now + PAUSE);
            if !self.confirming.told {
                self.confirming.told = true;
                tracing::warn!(
                    queue = &*self.name,
                    replicas = wanted.replicas,
                    "replicas do not confirm in time: jobs are kept on disk until they do"
                );
            }
            return;
        };
        self.confirming.told = false;
        self.keeping
            .tail
            .let_go(asked.lane, last, !self.keeping.hears());
        let confirmed = |batch: &Batch<T>| batch.lane() == asked.lane && batch.last() <= last;
        let waited = self.confirming.waiting.len();
        self.release(confirmed, Place::Delivered, now);
        if waited > 0 && self.confirming.waiting.len() == waited {
            // Redis does not have them. That is found out about elsewhere, and takes its time.
            self.confirming.paused = Some(now + PAUSE);
        }
    }

    /// The last of those that have waited for too long, and are not on disk where they came from.
    pub(super) fn overdue_confirmation(&self, now: Instant) -> Option<(LaneId, u64)> {
        let overdue = self.overdue(now);
        let to_write = overdue.filter(|waits| !matches!(waits.whose, Whose::Disk(_)));
        to_write
            .last()
            .map(|waits| (waits.batch.lane(), waits.batch.last()))
    }

    fn overdue(&self, now: Instant) -> impl Iterator<Item = &Unconfirmed<T>> {
        let waiting = self.confirming.waiting.iter();
        waiting.take_while(move |waits| waits.until <= now || self.hard)
    }

    /// Those that the disk has need not wait any longer.
    pub(super) fn release_overdue(&mut self, now: Instant) {
        let kept: Vec<(LaneId, u64)> = {
            let tail = &self.keeping.tail;
            let on_disk = self.overdue(now).filter(|waits| {
                // What came from disk is there still, and takes no room that it had not before.
                matches!(waits.whose, Whose::Disk(_))
                    || tail.is_on_disk(waits.batch.lane(), waits.batch.last())
            });
            on_disk
                .map(|waits| (waits.batch.lane(), waits.batch.last()))
                .collect()
        };
        if kept.is_empty() {
            return;
        }
        for (lane, last) in &kept {
            self.keeping.tail.let_go(*lane, *last, false);
        }
        self.keeping.tail.join_all();
        let on_disk = |batch: &Batch<T>| kept.contains(&(batch.lane(), batch.last()));
        self.release(on_disk, Place::Spooled, now);
    }

    /// Those that nobody can keep hear so.
    pub(super) fn refuse_overdue(&mut self, now: Instant) {
        let spills = self.keeping.spills() && !self.keeping.is_disk_out(now);
        if spills || self.overdue_confirmation(now).is_none() {
            return;
        }
        let hard = self.hard;
        let mut refused = VecDeque::new();
        for waits in &mut self.confirming.waiting {
            if (waits.until <= now || hard) && !matches!(waits.whose, Whose::Disk(_)) {
                if let Whose::Callers(waiters) = std::mem::replace(&mut waits.whose, Whose::Nobody)
                {
                    refused.extend(waiters);
                }
                let (lane, last) = (waits.batch.lane(), waits.batch.last());
                self.keeping.tail.let_go(lane, last, false);
            }
        }
        self.confirming.waiting.retain(|waits| {
            !(matches!(waits.whose, Whose::Nobody) && (waits.until <= now || hard))
        });
        let error = || {
            let verdict = Verdict::new(Class::Outage, Landed::Maybe);
            Error::new(ErrorKind::Spool, verdict).with_cause(
                "Redis has it, too few replicas have confirmed it, and the disk did not take it",
            )
        };
        self.refuse(refused, error);
    }

    fn release(&mut self, which: impl Fn(&Batch<T>) -> bool, place: Place, now: Instant) {
        let waiting = std::mem::take(&mut self.confirming.waiting);
        for waits in waiting {
            if !which(&waits.batch) {
                self.confirming.waiting.push_back(waits);
                continue;
            }
            match waits.whose {
                Whose::Callers(waiters) => self.answer_batch(&waits.batch, waiters, place, now),
                Whose::Disk(mut sent) => {
                    self.confirming.holds_disk = false;
                    if self.sending.is_none() {
                        self.lane.sent();
                    }
                    let (lane, through) = (waits.batch.lane(), waits.batch.last());
                    let done = self
                        .replay
                        .remove(&mut sent, through, &self.shared, &mut self.lane);
                    if place == Place::Delivered {
                        self.shared.disk.done(done);
                    } else {
                        self.done_with(lane, through, done);
                    }
                }
                Whose::Nobody => {}
            }
        }
    }
}

/// What an answer may take beyond the time that Redis waits.
const ANSWER: Duration = Duration::from_millis(500);

/// Before replicas are asked for again.
const PAUSE: Duration = Duration::from_millis(20);

//! One queue at one deployment, as a worker sees it: [`Source`].

mod news;
mod strays;

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rand::Rng;
use tokio::{sync::watch, time::Instant};
use tower::ServiceExt;

use self::strays::Strays;
use super::{
    Delivery, Line, WorkerId,
    lease::Lease,
    settle::{Key, Settling},
    turn::{ALL, Taken, Turn, leave},
    wait,
};
use crate::{
    call::{RedisCall, Reply},
    connect::Status,
    error::Error,
    job::{
        JobId,
        task::{Execution, Keys, millis_in},
    },
    metrics::WorkerQueueMetrics,
};

pub(super) struct Source {
    pub(super) queue: Arc<str>,
    pub(super) weight: u32,
    /// How far it has come: see `weights`.
    pub(super) pass: u64,
    pub(super) was_active: bool,
    pub(super) metrics: WorkerQueueMetrics,
    pub(super) settling: Settling,
    /// What is executed for it, by job.
    pub(super) running: HashMap<JobId, Running>,
    keys: Keys,
    line: Line,
    id: WorkerId,
    /// Of the last turn.
    number: u64,
    lease: Lease,
    status: Status,
    changes: Changes,
    turn: Option<Flying>,
    waking: Option<Asking>,
    news: News,
    /// There may be jobs.
    hungry: bool,
    /// Somebody else is to be woken, as there are no slots for what this worker was woken for.
    passes_on: bool,
    /// Redis and the worker may not have the same view of what is executed here.
    out_of_step: bool,
    /// Until then the connection is a new one.
    fresh: Option<Instant>,
    /// What the last turn was for that Redis may have carried out without an answer.
    in_doubt: Option<Purpose>,
    failures: u32,
    not_before: Option<Instant>,
    /// How many jobs wait that may have no other such beside them.
    alone: u64,
    /// When the next scheduled job is due.
    due: Option<Instant>,
    /// When to look by itself, as it can't be woken.
    look: Option<Instant>,
    looks: u32,
    /// Where the look for what dead workers have left has ended.
    cursor: String,
    /// What it has found under this worker's name that is not executed here.
    strays: Strays,
    /// The clock of Redis, in milliseconds since 1970, at a moment.
    clock: Option<(Instant, u64)>,
}

/// An execution.
pub(super) struct Running {
    /// Tells it from others of the same job.
    pub(super) number: u64,
    pub(super) token: Arc<str>,
    pub(super) started_ms: u64,
    pub(super) delivery: Delivery,
}

impl Running {
    pub(super) fn key(&self) -> Key {
        let delivery = &self.delivery;
        (
            delivery.id(),
            delivery.attempt(),
            delivery.record().enqueued_ms,
        )
    }
}

/// What a turn is for. Never for two of them, so that it is known what one that got no answer may have handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To get jobs, or only to renew the lease.
    Take,
    /// To take over what dead workers have left.
    Claim,
    /// To find out what Redis and the worker have of each other.
    Resync,
}

type Asking = BoxFuture<'static, Result<Reply, Error>>;
type Changes = BoxFuture<'static, watch::Receiver<Status>>;

/// A turn on its way.
struct Flying {
    purpose: Purpose,
    answer: Asking,
    reserved: usize,
    alone: bool,
    sent: Instant,
    /// The number of the connection there was then.
    generation: u64,
    tells: bool,
}

/// What has come since the last look.
#[derive(Default)]
struct News {
    answer: Option<(Flying, Result<Reply, Error>)>,
    woken: Option<Result<Reply, Error>>,
    status: bool,
}

/// What a turn has brought.
#[derive(Default)]
pub(super) struct Arrival {
    /// To be executed.
    pub(super) jobs: Vec<Taken>,
    /// The last executions of these have ended with their worker.
    pub(super) abandoned: Vec<Taken>,
    /// No longer this worker's.
    pub(super) lost: Vec<Running>,
    /// This worker's as Redis has it, and known to nobody.
    pub(super) strays: Vec<Execution>,
}

impl Source {
    pub(super) fn new(
        queue: Arc<str>,
        weight: u32,
        line: Line,
        id: WorkerId,
        lease: Duration,
        remembers: usize,
    ) -> Self {
        let metrics = line.metrics.queue(&queue);
        let settling = Settling::new(
            queue.clone(),
            line.enqueue.clone(),
            metrics.clone(),
            remembers,
        );
        let mut status = line.connection.status();
        let now = *status.borrow_and_update();
        let mut source = Self {
            keys: Keys::of(&queue),
            queue,
            weight,
            pass: 0,
            was_active: false,
            metrics,
            settling,
            running: HashMap::new(),
            line,
            id,
            number: 0,
            lease: Lease::new(lease, rand::rng().random()),
            status: now,
            changes: next_change(status),
            turn: None,
            waking: None,
            news: News::default(),
            hungry: true,
            passes_on: false,
            out_of_step: false,
            in_doubt: None,
            fresh: None,
            failures: 0,
            not_before: None,
            alone: 0,
            due: None,
            look: None,
            looks: 0,
            cursor: "0".into(),
            strays: Strays::default(),
            clock: None,
        };
        source.lease.observe(now.up, now.generation, Instant::now());
        source
    }

    /// The worker's token for this queue.
    pub(super) fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Milliseconds since 1970 by the clock of Redis, or by ours before it has been heard.
    pub(super) fn now_ms(&self, now: Instant) -> u64 {
        match self.clock {
            Some((at, ms)) => ms + millis_in(now.saturating_duration_since(at)),
            None => crate::job::task::millis(std::time::SystemTime::now()),
        }
    }

    /// Slots that the turn on its way may fill.
    pub(super) fn reserved(&self) -> usize {
        self.turn.as_ref().map_or(0, |turn| turn.reserved)
    }

    /// Whether it has nothing on its way and nothing to find out.
    pub(super) fn is_quiet(&self) -> bool {
        let waits_for_nothing = self.turn.is_none() && self.news.answer.is_none();
        waits_for_nothing && (!self.out_of_step || !self.status.up)
    }

    /// Whether there may be jobs.
    pub(super) fn is_active(&self) -> bool {
        self.hungry || self.reserved() > 0
    }

    /// Notes what time alone brings.
    pub(super) fn tick(&mut self, now: Instant) {
        for due in [&mut self.due, &mut self.look] {
            if due.is_some_and(|at| at <= now) {
                *due = None;
                self.hungry = true;
            }
        }
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
    }

    fn can_ask(&self) -> bool {
        self.turn.is_none() && self.status.up && self.not_before.is_none()
    }

    /// Whether the turn on its way may bring a job that may have no other such beside it.
    pub(super) fn asks_alone(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.alone)
    }

    /// Whether free slots would be of use to it now.
    pub(super) fn wants(&self, now: Instant, alone: bool) -> bool {
        self.next(now, 1, true, alone) == Some(Purpose::Take)
    }

    /// What to ask now, if anything, with so many slots; if there is none of those that must be `alone`, one of them
    /// may be for such a job.
    pub(super) fn next(
        &self,
        now: Instant,
        slots: usize,
        working: bool,
        alone: bool,
    ) -> Option<Purpose> {
        let hungry = self.hungry || (alone && self.alone > 0);
        let is_due = |at: Instant| at <= now;
        if !self.can_ask() {
            None
        } else if self.out_of_step || (working && self.lease.comparison_due().is_some_and(is_due)) {
            Some(Purpose::Resync)
        } else if working && self.look_due().is_some_and(is_due) && self.lease.holds(now) {
            Some(Purpose::Claim)
        } else if (hungry && slots > 0 && working && !self.settling.is_refused())
            || self.passes_on
            || self.lease.renewal_due().is_none_or(is_due)
        {
            Some(Purpose::Take)
        } else {
            None
        }
    }

    /// What is taken over has to be decided on, so not while nobody takes decisions.
    fn look_due(&self) -> Option<Instant> {
        let due = self.lease.look_due();
        due.filter(|_| !self.settling.is_refused())
    }

    /// When [`next`](Self::next) may say something else although nothing has happened.
    pub(super) fn timer(&self, working: bool) -> Option<Instant> {
        let mut timers = vec![self.settling.due(), self.due, self.look];
        if self.turn.is_none() && self.status.up {
            let look = self.look_due().filter(|_| working);
            let compare = self.lease.comparison_due().filter(|_| working);
            let ask = [self.lease.renewal_due(), look, compare];
            let ask = ask.into_iter().flatten().min();
            // Nothing is asked before that, whatever is due.
            timers.push(ask.max(self.not_before));
            timers.push(self.not_before);
        }
        timers.into_iter().flatten().min()
    }

    /// Whether the next turn is to tell about the worker.
    pub(super) fn tells(&self, now: Instant) -> bool {
        self.lease.tells(now)
    }

    /// How many retries the worker's budget would allow at once.
    pub(super) fn show_budget(&self, tokens: f64) {
        self.line.metrics.budget.set(tokens);
    }

    /// Sends a turn.
    pub(super) fn ask(&mut self, purpose: Purpose, slots: usize, alone: bool, about: Option<&str>) {
        let now = Instant::now();
        self.number += 1;
        self.passes_on = false;
        let known: Option<Vec<_>> = (purpose == Purpose::Resync).then(|| {
            let running = self.running.iter();
            running
                .map(|(id, running)| (*id, running.delivery.attempt()))
                .collect()
        });
        let wanted = if purpose == Purpose::Take { slots } else { 0 };
        let alone = alone && self.alone > 0 && wanted > 0;
        let begins = purpose == Purpose::Claim && self.cursor == "0";
        let cursor = match begins && self.strays.looks_at_all() {
            true => ALL,
            false => &*self.cursor,
        };
        let turn = Turn {
            token: self.id.as_str(),
            number: self.number,
            lease: self.lease.length(),
            wanted,
            alone,
            claim_from: (purpose == Purpose::Claim).then_some(cursor),
            // Nobody waits for its answer longer than that.
            claim_until: self.now_ms(now) + millis_in(self.limit()),
            about,
            known: known.as_deref(),
        };
        let call = turn.call(&self.keys, self.limit());
        self.turn = Some(Flying {
            purpose,
            answer: self.line.call.clone().oneshot(call).boxed(),
            reserved: wanted,
            alone,
            sent: now,
            generation: self.status.generation,
            tells: about.is_some(),
        });
    }

    /// A turn that has had no answer by then is asked anew, so that the lease is renewed in time.
    fn limit(&self) -> Duration {
        (self.lease.length() / 3).min(LONGEST_TURN)
    }

    /// Waits to be woken, if there is nothing else to do.
    pub(super) fn wait_to_be_woken(&mut self) {
        let is_idle = self.can_ask() && !self.hungry && !self.out_of_step;
        if self.waking.is_some() || self.look.is_some() || !is_idle {
            return;
        }
        let limit = wait::to_be_woken(rand::rng().random());
        let mut wake = redis::cmd("BLPOP");
        wake.arg(self.keys.wake())
            .arg(format!("{:.3}", limit.as_secs_f64()));
        let call = RedisCall::new("worker_wait", wake)
            .with_exclusive()
            .with_timeout(limit + LONGEST_TURN);
        self.waking = Some(self.line.connection.clone().oneshot(call).boxed());
    }

    /// Does not want to be woken any more.
    pub(super) fn stop_waiting(&mut self) {
        self.waking = None;
        self.look = None;
    }

    /// Takes in what has come; whether anything has.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if let Some(turn) = &mut self.turn
            && let Poll::Ready(answer) = turn.answer.poll_unpin(cx)
        {
            self.news.answer = self.turn.take().map(|turn| (turn, answer));
        }
        if let Some(waking) = &mut self.waking
            && let Poll::Ready(woken) = waking.poll_unpin(cx)
        {
            self.waking = None;
            self.news.woken = Some(woken);
        }
        while let Poll::Ready(mut changed) = self.changes.poll_unpin(cx) {
            self.status = *changed.borrow_and_update();
            self.changes = next_change(changed);
            self.news.status = true;
        }
        let settled = self.settling.poll(cx, now);
        let News {
            answer,
            woken,
            status,
        } = &self.news;
        settled || answer.is_some() || woken.is_some() || *status
    }

    /// Says that the worker works no more, if Redis has ever heard of it, and all it had to tell is settled.
    pub(super) fn leave(&mut self) -> Option<Asking> {
        if self.number == 0 || self.settling.unsettled() > 0 || !self.status.up {
            return None;
        }
        let in_doubt = self.turn.is_some() || self.out_of_step;
        let call = leave(&self.keys, self.id.as_str(), in_doubt, LONGEST_TURN);
        Some(self.line.call.clone().oneshot(call).boxed())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.metrics.in_flight.sub(self.running.len() as i64);
        self.metrics.unsettled.sub(self.settling.unsettled() as i64);
    }
}

fn next_change(mut status: watch::Receiver<Status>) -> Changes {
    async move {
        if status.changed().await.is_err() {
            // The connection is held here, so it does not end before this.
            std::future::pending::<()>().await;
        }
        status
    }
    .boxed()
}

/// A turn is answered in milliseconds, if at all.
const LONGEST_TURN: Duration = Duration::from_secs(2);

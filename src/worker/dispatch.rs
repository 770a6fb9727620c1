//! The worker at work: [`Dispatcher`], one task that owns everything, executions included.

use std::{any::Any, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    WorkerReport,
    conclude::Judge,
    execute::Finished,
    extensions::Extensions,
    handler::Handler,
    presence::{About, Counters},
    source::Source,
    weights::{Stake, catch_up, share},
};
use crate::job::task::millis;

/// A worker that runs.
pub(super) struct Dispatcher {
    pub(super) sources: Vec<Source>,
    pub(super) handler: Handler,
    pub(super) judge: Judge,
    pub(super) extensions: Arc<Extensions>,
    pub(super) concurrency: usize,
    /// How many jobs may wait here for a slot.
    pub(super) prefetch: usize,
    /// Those of handlers; closed at the end, when nothing more is to begin.
    pub(super) slots: Arc<Semaphore>,
    pub(super) timeout: Duration,
    pub(super) shutdown_within: Duration,
    pub(super) stop: BoxFuture<'static, ()>,
    pub(super) about: About,
    /// All executions, those included that have been cancelled and have not ended yet.
    pub(super) jobs: JoinSet<Finished>,
    /// Executions begun: the number of the last one.
    pub(super) numbered: u64,
    /// The execution that may have no other such beside it.
    pub(super) alone: Option<u64>,
    pub(super) counters: Counters,
    /// What must not end before the worker does.
    pub(super) _home: Arc<dyn Any + Send + Sync>,
}

impl Dispatcher {
    /// Works until it is told to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops all executions. Their jobs are executed again after the lease.
    pub(super) async fn run(mut self) -> WorkerReport {
        while !self.step(true, None).await {}
        self.end().await
    }

    /// Begins what can be begun, and takes in what comes next, or nothing by `until`; whether it has been told to
    /// stop.
    pub(super) async fn step(&mut self, working: bool, until: Option<Instant>) -> bool {
        self.begin(Instant::now(), working);
        let timers = self
            .sources
            .iter()
            .filter_map(|source| source.timer(working));
        let timer = timers.chain(until).min();
        let mut finished = Vec::new();
        let Self {
            sources,
            jobs,
            stop,
            ..
        } = self;
        let news = poll_fn(|cx| {
            let now = Instant::now();
            let mut any = false;
            for source in sources.iter_mut() {
                any |= source.poll(cx, now);
            }
            while finished.len() < MOST_AT_ONCE
                && let Poll::Ready(Some(ended)) = jobs.poll_join_next(cx)
            {
                any = true;
                // A task that has not ended by itself was aborted with the runtime.
                finished.extend(ended);
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        });
        let mut stopped = false;
        tokio::select! {
            biased;
            // First, since a busy worker always has news.
            () = stop, if working => stopped = true,
            () = news => {}
            () = at(timer) => {}
        }
        let now = Instant::now();
        for ended in finished {
            self.finished(ended, now);
        }
        for at in 0..self.sources.len() {
            let free = self.free();
            let arrival = self.sources[at].take_news(now, free);
            self.arrived(at, arrival, now, working && !stopped);
        }
        stopped
    }

    /// Sends the turns that are due, and waits where there is nothing else to do.
    fn begin(&mut self, now: Instant, working: bool) {
        self.sources.iter_mut().for_each(|source| source.tick(now));
        self.catch_up();
        let free = self.free();
        let mut alone = self.alone.is_none() && !self.sources.iter().any(Source::asks_alone);
        let stakes: Vec<_> = self
            .sources
            .iter()
            .map(|source| Stake {
                weight: source.weight,
                pass: source.pass,
                wants: working && source.wants(now, alone),
            })
            .collect();
        let given = share(free, &stakes);
        for (at, slots) in given.into_iter().enumerate() {
            let source = &self.sources[at];
            if let Some(purpose) = source.next(now, slots, working, alone) {
                let about = source.tells(now).then(|| self.tell());
                if about.is_some() {
                    source.show_budget(self.judge.pace.tokens());
                }
                self.sources[at].ask(purpose, slots, alone, about.as_deref());
                alone &= !self.sources[at].asks_alone();
            }
        }
        if working && free > 0 {
            let sources = self.sources.iter_mut();
            sources.for_each(Source::wait_to_be_woken);
        }
    }

    /// Queues that have had nothing to do begin where the others are.
    fn catch_up(&mut self) {
        for at in 0..self.sources.len() {
            let source = &self.sources[at];
            let (is, was) = (source.is_active(), source.was_active);
            if is && !was {
                let others = self.sources.iter().filter(|other| other.was_active);
                let pass = catch_up(source.pass, others.map(|other| other.pass));
                self.sources[at].pass = pass;
            }
            self.sources[at].was_active = is;
        }
    }

    /// How many more jobs may be taken now.
    ///
    /// As many as can be executed at once, and be waiting for that: a job that is taken counts as executed. And no
    /// more than whose completions could be kept in memory, should neither Redis nor the disk take any.
    pub(super) fn free(&self) -> usize {
        let reserved: usize = self.sources.iter().map(Source::reserved).sum();
        let taken = self.jobs.len() + reserved;
        let room = self.room().saturating_sub(taken);
        // While enough of them wait, the next ones are worth a turn only when they are many.
        if taken > self.concurrency && room < self.prefetch.div_ceil(2) {
            return 0;
        }
        let most = MOST_UNSETTLED.max(self.room());
        room.min(most.saturating_sub(self.unsettled() + reserved))
    }

    /// For jobs that are executed, and those that wait here for it.
    pub(super) fn room(&self) -> usize {
        self.concurrency + self.prefetch
    }

    /// Completions that are neither in Redis nor on disk yet.
    pub(super) fn unsettled(&self) -> usize {
        let sources = self.sources.iter();
        sources.map(|source| source.settling.unsettled()).sum()
    }

    /// How many executions there are that are still wanted.
    pub(super) fn in_flight(&self) -> usize {
        self.sources.iter().map(|source| source.running.len()).sum()
    }

    /// What is told about this worker now.
    fn tell(&self) -> String {
        let kept = self.sources.iter().map(|source| source.settling.kept());
        let about = About {
            in_flight: self.in_flight(),
            beat_at: millis(std::time::SystemTime::now()),
            counters: Counters {
                kept: kept.sum(),
                ..self.counters
            },
            ..self.about.clone()
        };
        serde_json::to_string(&about).unwrap_or_default()
    }
}

async fn at(timer: Option<Instant>) {
    match timer {
        Some(timer) => sleep_until(timer).await,
        None => std::future::pending().await,
    }
}

/// How many executions that have ended are taken in before anything else is looked at.
const MOST_AT_ONCE: usize = 1024;

/// With so many completions in memory no more jobs are taken.
const MOST_UNSETTLED: usize = 1024;

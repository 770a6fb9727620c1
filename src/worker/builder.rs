//! How to work: [`Builder`].

use std::{any::Any, fmt, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, pending},
};
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Failure, IntoHandler, Line, WorkerError, WorkerId, WorkerReport,
    budget::Pace,
    conclude::Judge,
    decision::Rules,
    dispatch::Dispatcher,
    extensions::Extensions,
    presence::{About, Counters, Share, host},
    source::Source,
};
use crate::{
    error::InvalidSetting,
    job::{Retries, task::millis},
    retry::RetryBudget,
    spool::Readiness,
};

/// Settings of a worker. Made by [`Seawall::worker`](crate::Seawall::worker); see the [module docs](super) for
/// examples.
///
/// # Default
///
/// - one queue, of weight 1
/// - concurrency: 16 jobs at once, over all queues
/// - prefetch: none
/// - timeout: 30 minutes for one execution
/// - retries: [`Retries::default`], for jobs that bring none of their own
/// - budget: one retry for five executions and 10 a second, with a burst of 100; others are put off
/// - poison: the third worker that dies in a job makes it a dead letter
/// - results: not kept
/// - dead letters: the last 10,000 of a queue, each for 90 days
/// - lease: 30 s
/// - at the end: 25 s for handlers to finish
#[must_use = "a worker does nothing until it runs"]
pub struct Builder {
    queues: Vec<(Arc<str>, u32)>,
    concurrency: usize,
    prefetch: usize,
    timeout: Duration,
    rules: Rules,
    budget: Pace,
    result_ttl: Duration,
    failure_ttl: Duration,
    dead_letters: u64,
    lease: Duration,
    extensions: Extensions,
    stop: BoxFuture<'static, ()>,
    shutdown_within: Duration,
    lines: Vec<Line>,
    home: Arc<dyn Any + Send + Sync>,
}

impl Builder {
    /// Works `queue` over each of `lines`; `home` is kept until it has ended.
    pub(crate) fn new(queue: Arc<str>, lines: Vec<Line>, home: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            queues: vec![(queue, 1)],
            concurrency: 16,
            prefetch: 0,
            timeout: Duration::from_secs(30 * 60),
            rules: Rules {
                retries: Retries::default(),
                retry_if: None,
                never_if: None,
                poison_after: 3,
            },
            budget: Pace::default(),
            result_ttl: Duration::ZERO,
            failure_ttl: 90 * DAY,
            dead_letters: 10_000,
            lease: Duration::from_secs(30),
            extensions: Extensions::default(),
            stop: pending().boxed(),
            shutdown_within: Duration::from_secs(25),
            lines,
            home,
        }
    }

    /// Sets the weight of the first queue, from 1 to 1,000.
    ///
    /// Of the jobs that are started while several queues have some, each queue's part is as its weight is. No queue
    /// waits for ever, and none holds back slots that only others have a use for.
    pub fn weight(mut self, weight: u32) -> Self {
        if let Some((_, of_first)) = self.queues.first_mut() {
            *of_first = weight;
        }
        self
    }

    /// Works another queue as well, with this [`weight`](Self::weight).
    pub fn queue(mut self, name: impl Into<Arc<str>>, weight: u32) -> Self {
        self.queues.push((name.into(), weight));
        self
    }

    /// Sets how many jobs are executed at once, from 1 to 4,096, over all queues.
    ///
    /// A job is fetched when there is a slot for it, unless a [`prefetch`](Self::prefetch) is set.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs;
        self
    }

    /// Sets how many jobs are fetched beyond those that are executed, at most 10,000, over all queues.
    ///
    /// For jobs that take less time than the way to Redis: they are fetched many at a time. Meanwhile no other
    /// worker has them; they are counted as started, and if this worker dies, they were executed. When it ends
    /// in order, they are given back.
    pub fn prefetch(mut self, jobs: usize) -> Self {
        self.prefetch = jobs;
        self
    }

    /// Sets how long one execution may take, from 1 ms to 30 days, for jobs that do not say so themselves.
    ///
    /// Then its future is dropped, and the job has failed with the error type `timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets when failed jobs are executed again that do not say so themselves.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.rules.retries = retries;
        self
    }

    /// Executes jobs again after these failures too, although they look permanent or are not in a job's
    /// [`retry_on`](Retries::retry_on).
    pub fn retry_if(
        mut self,
        predicate: impl Fn(&Failure) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.retry_if = Some(Arc::new(predicate));
        self
    }

    /// Never executes jobs again after these failures. A predicate that panics takes no failure.
    pub fn never_if(
        mut self,
        predicate: impl Fn(&Failure) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.never_if = Some(Arc::new(predicate));
        self
    }

    /// Sets how many retries there may be in relation to executions, so that a broken dependency does not fill
    /// every slot. A retry that the budget has nothing left for is put off until it has, for an hour at most.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Pace::new(budget);
        self
    }

    /// Makes a job a dead letter when so many workers have died in it; at least 1.
    ///
    /// A worker takes all jobs along that it executes when it dies. So before the death that would be the last one for
    /// a job, it is executed by a worker that has no other such job at that time: what dies then is the cause.
    pub fn poison_after(mut self, deaths: u32) -> Self {
        self.rules.poison_after = deaths;
        self
    }

    /// Sets how long it is known how a job ended, with the handler's result, for jobs that do not say so themselves.
    /// Zero is not at all; at most a year. A result of more than 64 KiB is not kept.
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl = ttl;
        self
    }

    /// Sets how long dead letters are kept, for jobs that do not say so themselves. Zero is not at all; at most ten
    /// years.
    pub fn failure_ttl(mut self, ttl: Duration) -> Self {
        self.failure_ttl = ttl;
        self
    }

    /// Sets how many dead letters a queue has at most, from 1 to 10,000,000; those that would have expired first go.
    pub fn dead_letters(mut self, most: u64) -> Self {
        self.dead_letters = most;
        self
    }

    /// Sets for how long a worker that is not heard of counts as alive, from 1 s to 1 hour: then others may take its
    /// jobs over.
    ///
    /// It is renewed each third of that while the worker lives, however long a handler runs. A handler must not block
    /// its thread: that may keep the renewals from running as well. Nor is it renewed while the circuit breaker
    /// refuses calls, which may go on after Redis is back: with less than twice the [longest
    /// time](crate::breaker::BreakerOptions::with_open_time_cap) of that, a worker that lives may be taken for dead.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Gives handlers a value: see [`Delivery::extension`](super::Delivery::extension). One of each type.
    pub fn extension<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// Stops fetching, and ends, once this future does: a signal, for example.
    pub fn shutdown_on<F>(mut self, stop: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.stop = stop.map(drop).boxed();
        self
    }

    /// Sets how long handlers may still take after [`shutdown_on`](Self::shutdown_on), at most a day. Then they are
    /// cancelled, and their jobs given back: other workers have them at once, and the attempt does not count.
    ///
    /// Up to 5 s more may pass until it has ended, if handlers or Redis do not answer.
    pub fn shutdown_within(mut self, limit: Duration) -> Self {
        self.shutdown_within = limit;
        self
    }

    /// Executes jobs until [`shutdown_on`](Self::shutdown_on) ends it, through outages of Redis as well.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] before anything is fetched: a setting makes no sense, or the [`Seawall`](crate::Seawall) has
    /// been shut down. A Redis that is away is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it stops at once: handlers are dropped at an await, and their jobs are executed again by others after
    /// the lease. Nothing is left running.
    pub async fn run<M>(
        self,
        handler: impl IntoHandler<M> + Send,
    ) -> Result<WorkerReport, WorkerError> {
        self.check()?;
        let is_closed = |line: &Line| line.spool.readiness() == Readiness::Closed;
        if self.lines.iter().all(is_closed) {
            return Err(WorkerError::Closed);
        }
        let runtime = Handle::try_current().map_err(|_| WorkerError::NoRuntime)?;
        let dispatcher = self.dispatcher(handler.into_handler());
        // In a task of its own: whatever polls this future, and how seldom, the lease is renewed.
        let task = AbortOnDropHandle::new(runtime.spawn(dispatcher.run()));
        task.await.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => WorkerError::NoRuntime,
        })
    }

    fn dispatcher(self, handler: super::Handler) -> Dispatcher {
        let id = WorkerId::fresh();
        let remembers = 4 * self.concurrency.max(1024);
        let mut sources = Vec::new();
        for line in &self.lines {
            for (queue, weight) in &self.queues {
                sources.push(Source::new(
                    queue.clone(),
                    *weight,
                    line.clone(),
                    id.clone(),
                    self.lease,
                    remembers,
                ));
            }
        }
        let queues = self.queues.iter().map(|(name, weight)| Share {
            name: name.to_string(),
            weight: *weight,
        });
        Dispatcher {
            sources,
            handler,
            judge: Judge {
                rules: self.rules,
                pace: self.budget,
                result_ttl: self.result_ttl,
                failure_ttl: self.failure_ttl,
                dead_letters: self.dead_letters,
            },
            extensions: Arc::new(self.extensions),
            concurrency: self.concurrency,
            prefetch: self.prefetch,
            slots: Arc::new(Semaphore::new(self.concurrency)),
            timeout: self.timeout,
            shutdown_within: self.shutdown_within,
            stop: self.stop,
            about: About {
                host: host(),
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                queues: queues.collect(),
                concurrency: self.concurrency,
                started_at: millis(std::time::SystemTime::now()),
                ..About::default()
            },
            jobs: JoinSet::new(),
            numbered: 0,
            alone: None,
            counters: Counters::default(),
            _home: self.home,
        }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        let refuse = |what, why| Err(InvalidSetting::new(what, why));
        let mut names: Vec<_> = self.queues.iter().map(|(name, _)| name).collect();
        names.sort();
        let sizes = names.iter().map(|name| name.len());
        if !sizes
            .clone()
            .all(|size| (1..=LONGEST_QUEUE).contains(&size))
        {
            return refuse("queue", "a name has 1 to 1,024 bytes");
        }
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("queue", "each name may be given once");
        }
        if names.len() > MOST_QUEUES {
            return refuse("queue", "a worker has at most 256");
        }
        let weights = self.queues.iter().map(|(_, weight)| *weight);
        if !weights.clone().all(|weight| (1..=1000).contains(&weight)) {
            return refuse("weight", "must be between 1 and 1,000");
        }
        if !(1..=4096).contains(&self.concurrency) {
            return refuse("concurrency", "must be between 1 and 4,096");
        }
        if self.prefetch > 10_000 {
            return refuse("prefetch", "must be at most 10,000");
        }
        if !(Duration::from_millis(1)..=30 * DAY).contains(&self.timeout) {
            return refuse("timeout", "must be between 1 ms and 30 days");
        }
        self.rules.retries.check()?;
        if self.rules.poison_after == 0 {
            return refuse("poison_after", "must be at least 1");
        }
        if self.result_ttl > 366 * DAY {
            return refuse("result_ttl", "must be at most a year");
        }
        if self.failure_ttl > 3660 * DAY {
            return refuse("failure_ttl", "must be at most ten years");
        }
        if !(1..=10_000_000).contains(&self.dead_letters) {
            return refuse("dead_letters", "must be between 1 and 10,000,000");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.lease) {
            return refuse("lease", "must be between 1 s and 1 hour");
        }
        if self.shutdown_within > DAY {
            return refuse("shutdown_within", "must be at most a day");
        }
        Ok(())
    }
}

/// Shows no extension.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("queues", &self.queues)
            .field("concurrency", &self.concurrency)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_QUEUE: usize = 1024;
const MOST_QUEUES: usize = 256;

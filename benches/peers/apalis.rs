//! apalis-redis as a contender, set up for speed as far as its documentation goes.
//!
//! - Jobs are handed in by `push_bulk`, many at a time: one script call for all of them.
//! - The worker fetches [`BATCH`] jobs at a time, and acknowledges together what has gathered while it worked on
//!   them.
//! - Jobs are not locked one by one, which it documents as not needed for short ones, and no events are
//!   published. Results have to be persisted: it acknowledges nothing otherwise.
//! - An idle worker looks again after a millisecond ([`Ticks`]). Its own interval sometimes misses its timer when
//!   an empty fetch and the tick fall together, and then nothing happens until the next heartbeat, 30 s
//!   later; and what it publishes for new jobs does not come, since `push` schedules all of them for "now".

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{
    BackendExt as _, PollSnapshot, PollStrategy, TaskSink as _, WorkerBuilder,
    WorkerBuilderExt as _,
};
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use tokio::time::{Instant, Sleep, sleep};

/// How many jobs the worker fetches at a time: more are no faster.
pub const BATCH: usize = 1_000;

/// A queue of apalis's on a Redis.
#[derive(Clone, Debug)]
pub struct Queue {
    storage: RedisStorage<String>,
    config: Config,
}

impl Queue {
    /// The queue of that name, with a connection of its own.
    ///
    /// # Panics
    ///
    /// If there is no Redis.
    pub async fn connect(url: &str, name: &str) -> Self {
        let connection = apalis_redis::connect(url).await.expect("Redis answers");
        let config = Config::default()
            .queue(name)
            .batch_size(BATCH)
            .lock_tasks(false)
            .emit_events(false);
        Self {
            storage: RedisStorage::<String, ConnectionManager>::new(connection)
                .with_config(config.clone()),
            config,
        }
    }

    /// Hands in jobs, all in one call.
    ///
    /// # Panics
    ///
    /// If there is no Redis.
    pub async fn push(&mut self, jobs: Vec<String>) {
        self.storage.push_bulk(jobs).await.expect("they are taken");
    }

    /// A worker whose handlers do nothing but say so, until `stop` completes.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn work(
        self,
        name: &str,
        concurrency: usize,
        handled: impl Fn() + Clone + Send + Sync + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let worker = WorkerBuilder::new(name)
            .backend(self.storage.poll_with_strategy(Ticks::default()))
            .concurrency(concurrency)
            .build(move |_: String| {
                let handled = handled.clone();
                async move { handled() }
            });
        let stop = async move {
            stop.await;
            Ok::<_, std::io::Error>(())
        };
        worker.run_until(stop).await.expect("the worker goes on");
    }

    /// The set of those that are acknowledged.
    #[must_use]
    pub fn done(&self) -> String {
        self.config.done_jobs_set()
    }
}

/// Wakes the worker a millisecond after it was polled last, whatever else has woken it.
struct Ticks(Pin<Box<Sleep>>);

const TICK: Duration = Duration::from_millis(1);

impl Default for Ticks {
    fn default() -> Self {
        Self(Box::pin(sleep(TICK)))
    }
}

impl PollStrategy for Ticks {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        while self.0.as_mut().poll(cx).is_ready() {
            self.0.as_mut().reset(Instant::now() + TICK);
        }
        Poll::Pending
    }
}

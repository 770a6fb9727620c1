//! What every test of workers needs: a Redis, workers that can be stopped, and a look at the queue.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::{FromRedisValue, ToRedisArgs};
use seawall::{
    Job, Seawall,
    chaos::{RedisServer, wait_until},
    job::JobId,
    stack,
    worker::{self, Delivery, Failure, IntoHandler, WorkerError, WorkerReport},
};
use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis and an empty spool directory.
pub(crate) struct Bench {
    pub(crate) redis: RedisServer,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
        let redis = RedisServer::builder().durable().start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { redis, dir }
    }

    pub(crate) fn builder(&self) -> stack::Builder {
        Seawall::builder(&self.redis.url(), self.dir.path()).unwrap()
    }

    pub(crate) async fn seawall(&self) -> Seawall {
        connected(self.builder()).await
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        self.redis.command(&cmd).await.unwrap()
    }

    /// Changes a key of the queue `q` by hand, or looks at one.
    pub(crate) async fn hand<T: FromRedisValue>(
        &self,
        command: &str,
        key: &str,
        args: impl ToRedisArgs,
    ) -> T {
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("seawall:{{q}}:{key}")).arg(args);
        self.redis.command(&cmd).await.unwrap()
    }

    /// How many jobs the queue `q` has in each place where one can be.
    pub(crate) async fn places(&self) -> [u64; 5] {
        [
            self.ask(&["HLEN", "seawall:{q}:jobs"]).await,
            self.ask(&["LLEN", "seawall:{q}:ready"]).await,
            self.ask(&["ZCARD", "seawall:{q}:later"]).await,
            self.ask(&["HLEN", "seawall:{q}:running"]).await,
            self.ask(&["ZCARD", "seawall:{q}:dead"]).await,
        ]
    }

    /// Waits until the queue `q` has nothing left.
    pub(crate) async fn emptied(&self) {
        wait_until("the queue to be empty", PATIENCE, || async {
            self.places().await == [0; 5]
        })
        .await
        .unwrap();
        let left: u64 = self.ask(&["HLEN", "seawall:{q}:failures"]).await;
        assert_eq!(left, 0, "failures of jobs that are no more");
    }

    /// How many workers of the queue `q` have a lease, by the clock of Redis.
    pub(crate) async fn alive(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]).await;
        let now = (seconds * 1000 + micros / 1000).to_string();
        self.ask(&["ZCOUNT", "seawall:{q}:workers", &now, "+inf"])
            .await
    }

    pub(crate) async fn counted(&self, what: &str) -> u64 {
        let count: Option<u64> = self.ask(&["HGET", "seawall:{q}:counters", what]).await;
        count.unwrap_or_default()
    }
}

/// With a connection to Redis.
pub(crate) async fn connected(builder: stack::Builder) -> Seawall {
    let seawall = builder.connect().await.unwrap();
    seawall.connection().wait_ready(PATIENCE).await.unwrap();
    seawall
}

/// Enqueues a job with this payload for the workers of `q`.
pub(crate) async fn enqueue(seawall: &Seawall, payload: impl ToString) -> JobId {
    let job = Job::new("q", payload.to_string()).for_worker();
    let id = job.id();
    let _ = seawall.enqueue(job).await.unwrap();
    id
}

/// A handler that notes payload and attempt, and ends once the gate is open.
pub(crate) fn gated(executed: &Executed, gate: &Gate) -> impl Fn(Delivery) -> Handling + use<> {
    noting(executed, gate, |job| {
        format!("{} {}", text(job.payload()), job.attempt())
    })
}

/// The same, of the attempt alone.
pub(crate) fn gated_attempts(
    executed: &Executed,
    gate: &Gate,
) -> impl Fn(Delivery) -> Handling + use<> {
    noting(executed, gate, |job| job.attempt().to_string())
}

type Handling = BoxFuture<'static, Result<(), Failure>>;

fn noting(
    executed: &Executed,
    gate: &Gate,
    note: fn(&Delivery) -> String,
) -> impl Fn(Delivery) -> Handling + use<> {
    let (executed, gate) = (executed.clone(), gate.clone());
    move |job: Delivery| {
        let (executed, gate) = (executed.clone(), gate.clone());
        Box::pin(async move {
            executed.note(note(&job));
            gate.passed().await;
            Ok(())
        })
    }
}

/// A worker that runs until it is stopped.
pub(crate) struct Run {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<WorkerReport, WorkerError>>,
}

impl Run {
    pub(crate) fn start<M: 'static>(
        worker: worker::Builder,
        handler: impl IntoHandler<M> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let worker = worker.shutdown_on(stopped);
        let task = tokio::spawn(async move { worker.run(handler).await });
        Self {
            stop: Some(stop),
            task,
        }
    }

    /// Tells it to end, and waits for that.
    pub(crate) async fn stop(mut self) -> WorkerReport {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap()
    }

    /// Drops its future in the middle of whatever it does.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What has been executed, in order.
#[derive(Clone, Default)]
pub(crate) struct Executed(Arc<Mutex<Vec<String>>>);

impl Executed {
    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.0.lock().push(format!("{what}"));
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for what in self.all() {
            *counts.entry(what).or_default() += 1;
        }
        counts
    }

    /// Waits until so many executions have been noted.
    pub(crate) async fn reach(&self, count: usize) {
        wait_until("executions", PATIENCE, || async { self.len() >= count })
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.all()));
    }
}

/// What handlers wait for until the test lets them go on.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        let mut opened = self.0.subscribe();
        opened.wait_for(|open| *open).await.unwrap();
    }
}

/// The sum of the counters `name` that have all these values of labels.
pub(crate) fn counter(registry: &prometheus::Registry, name: &str, values: &[&str]) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name);
    metrics
        .flat_map(|family| family.get_metric())
        .filter(|metric| {
            let labels = metric.get_label();
            let has = |value: &&str| labels.iter().any(|label| label.value() == *value);
            values.iter().all(has)
        })
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

/// The sum of the gauges of this name.
pub(crate) fn gauge(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name);
    let metrics = metrics.flat_map(|family| family.get_metric());
    metrics.map(|metric| metric.get_gauge().get_value()).sum()
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

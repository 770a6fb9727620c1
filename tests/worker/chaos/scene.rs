//! A queue, its producer, and the workers that are hurt: [`Scene`].

use std::collections::{BTreeSet, HashMap};

use prometheus::Registry;
use redis::{Cmd, FromRedisValue};
use seawall::{RedisCall, Seawall, call::Repeat, chaos::wait_until};
use tempfile::TempDir;

use super::{
    PLENTY,
    crew::{Deeds, Orders, Plan, Task, Worker, connect, job},
    diary::{self, Ended},
    judge::{Balance, Cause, Deed, Outcomes, judge},
};

pub(super) struct Scene {
    pub(super) deeds: Deeds,
    pub(super) queue: String,
    dir: TempDir,
    url: String,
    producer: Seawall,
    numbers: HashMap<Vec<u8>, u64>,
    workers: Vec<Orders>,
}

impl Scene {
    /// At the Redis of this URL, in a queue of its own.
    pub(super) async fn new(url: &str, queue: impl Into<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let producer = connect(url, &dir.path().join("producer"), &Registry::new()).await;
        producer.connection().wait_ready(PLENTY).await.unwrap();
        Self {
            deeds: Deeds::default(),
            queue: queue.into(),
            dir,
            url: url.to_owned(),
            producer,
            numbers: HashMap::new(),
            workers: Vec::new(),
        }
    }

    /// Enqueues jobs with these plans, which are numbered on. They are delivered when Redis is there.
    pub(super) async fn enqueue(&mut self, plans: impl IntoIterator<Item = Plan>) {
        let mut jobs = Vec::new();
        for plan in plans {
            let number = self.numbers.len() as u64 + 1;
            let job = job(&self.queue, &Task { number, plan });
            self.numbers.insert(job.id().as_bytes().to_vec(), number);
            jobs.push(job);
        }
        for receipt in self.producer.enqueue_all(jobs).await {
            let _ = receipt.unwrap();
        }
    }

    /// Orders for a worker whose name, diary and spool are its own.
    pub(super) fn orders(&self, name: &str) -> Orders {
        Orders {
            name: name.to_owned(),
            url: self.url.clone(),
            spool: self.dir.path().join(format!("spool of {name}")),
            diary: self.dir.path().join(format!("{name}.diary")),
            queue: self.queue.clone(),
            concurrency: 8,
            lease_ms: 1_000,
            poison_after: 50,
            goes: false,
        }
    }

    pub(super) async fn start(&mut self, orders: Orders) -> Worker {
        let worker = Worker::start(&orders, &self.deeds);
        self.workers.push(orders);
        worker.says("ready").await;
        worker
    }

    /// Waits until nothing is in the queue but dead letters.
    pub(super) async fn settled(&self) {
        self.producer.flush().await;
        let settled = || async { self.left().await == Some(0) };
        let waiting = wait_until("all jobs to end", PLENTY, settled).await;
        if waiting.is_err() {
            let left = self.left().await;
            panic!("{left:?} jobs do not end: {}", self.places().await);
        }
    }

    /// How many jobs have not ended. None while Redis does not say.
    pub(super) async fn left(&self) -> Option<u64> {
        let jobs: u64 = self.ask("HLEN", "jobs").await?;
        let dead: u64 = self.ask("ZCARD", "dead").await?;
        Some(jobs.saturating_sub(dead))
    }

    async fn places(&self) -> String {
        let ready: Option<u64> = self.ask("LLEN", "ready").await;
        let later: Option<u64> = self.ask("ZCARD", "later").await;
        let running: Option<HashMap<Vec<u8>, String>> = self.ask("HGETALL", "running").await;
        let running: Vec<_> = running
            .unwrap_or_default()
            .into_iter()
            .map(|(id, by)| (self.numbers.get(&id).copied(), by))
            .collect();
        format!("ready {ready:?}, later {later:?}, running {running:?}")
    }

    /// How often this has been counted.
    pub(super) async fn counted(&self, what: &str) -> u64 {
        let mut get = redis::cmd("HGET");
        get.arg(self.key("counters")).arg(what);
        let count: Option<Option<u64>> = self.call(get).await;
        count.flatten().unwrap_or_default()
    }

    /// What has become of all jobs, and of those that executed them. To be asked when all have ended.
    pub(super) async fn balance(&self) -> Balance {
        let results: Option<HashMap<Vec<u8>, Vec<u8>>> = self.ask("HGETALL", "results").await;
        let mut dead = redis::cmd("ZRANGE");
        dead.arg(self.key("dead")).arg(0).arg(-1);
        let dead: Option<Vec<Vec<u8>>> = self.call(dead).await;
        let number = |id: &Vec<u8>| self.numbers[id];
        let outcomes = Outcomes {
            succeeded: results
                .unwrap()
                .iter()
                .filter(|(_, result)| result.starts_with(b"s"))
                .map(|(id, _)| number(id))
                .collect(),
            dead: dead.unwrap().iter().map(number).collect(),
        };
        let (mut executions, mut deeds) = (Vec::new(), self.deeds.lock().clone());
        for orders in &self.workers {
            let (of_worker, stalls) = diary::read(&orders.diary, &orders.name);
            executions.extend(of_worker);
            deeds.extend(stalls.into_iter().map(|(from, to)| Deed {
                cause: Cause::LeaseTaken,
                worker: Some(orders.name.clone()),
                from,
                to,
            }));
        }
        let all: BTreeSet<u64> = self.numbers.values().copied().collect();
        judge(&all, &outcomes, &executions, &deeds)
    }

    /// How many executions of this worker were cancelled.
    pub(super) fn cancelled(&self, name: &str) -> usize {
        let (executions, _) = diary::read(&self.orders(name).diary, name);
        let ended = executions.iter().filter_map(|execution| execution.ended);
        ended.filter(|(_, how)| *how == Ended::Cancelled).count()
    }

    async fn ask<T: FromRedisValue>(&self, command: &str, part: &str) -> Option<T> {
        let mut cmd = redis::cmd(command);
        cmd.arg(self.key(part));
        self.call(cmd).await
    }

    fn key(&self, part: &str) -> String {
        format!("seawall:{{{}}}:{part}", self.queue)
    }

    async fn call<T: FromRedisValue>(&self, cmd: Cmd) -> Option<T> {
        let call = RedisCall::new("look", cmd).with_repeat(Repeat::Safe);
        let reply = self.producer.call(call).await.ok()?;
        Some(reply.decode().unwrap())
    }
}

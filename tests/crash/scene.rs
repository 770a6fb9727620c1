//! A Redis, a spool directory, and the books.

use std::{path::PathBuf, sync::Arc};

use seawall::chaos::{Balance, Books, RedisServer, wait_until};
use tempfile::TempDir;

use super::{
    PLENTY,
    app::{App, End, Orders},
};

/// One run. The Redis is lent to it, so that many runs can share one: each has a queue of its own.
pub(crate) struct Scene<'a> {
    pub(crate) redis: &'a mut RedisServer,
    pub(crate) books: Arc<Books>,
    dir: TempDir,
    queue: String,
    next: u64,
}

pub(crate) async fn durable() -> RedisServer {
    RedisServer::builder().durable().start().await.unwrap()
}

impl<'a> Scene<'a> {
    /// With Redis up.
    pub(crate) async fn new(redis: &'a mut RedisServer, seed: u64) -> Self {
        if !redis.is_running() {
            redis.restart().await.unwrap();
        }
        Self {
            redis,
            books: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            queue: format!("jobs-{seed}"),
            next: 0,
        }
    }

    /// Orders for `count` jobs that follow those of all orders before.
    pub(crate) fn orders(&mut self, count: u64) -> Orders {
        let first = self.next;
        self.next += count;
        Orders {
            url: self.redis.url(),
            dir: self.dir("spool"),
            shared: false,
            queue: self.queue.clone(),
            name: "app".to_owned(),
            first,
            count,
            window: 32,
            spool_after_ms: 50,
            response_timeout_ms: 5_000,
            max_batch: 64,
            replay_rate: None,
            padding: 0,
            generation_bytes: 64 << 20,
            end: End::Stay,
        }
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start(&self, orders: &Orders) -> App {
        App::start(orders, &self.books)
    }

    /// Leaves `count` jobs or more in the spool of a killed app, with Redis away.
    pub(crate) async fn leave(&mut self, count: u64) {
        self.redis.kill().await.unwrap();
        let orders = self.orders(count + 100);
        let mut app = self.start(&orders);
        app.receipts(count).await;
        app.kill().await;
    }

    /// How many jobs have come to the far end.
    pub(crate) async fn delivered(&self) -> u64 {
        let length = redis::cmd("LLEN").arg(&self.queue).to_owned();
        self.redis.command(&length).await.unwrap()
    }

    pub(crate) async fn delivered_at_least(&self, count: u64) {
        wait_until("deliveries", PLENTY, || async {
            self.delivered().await >= count
        })
        .await
        .unwrap();
    }

    /// Empties the far end: it has been looked through.
    pub(crate) async fn clear(&self) {
        let del = redis::cmd("DEL").arg(&self.queue).to_owned();
        let _: u64 = self.redis.command(&del).await.unwrap();
    }

    /// Waits until Redis has no lane in its memory.
    pub(crate) async fn forgotten(&self) {
        wait_until("the lanes' keys to go", PLENTY, || async {
            self.lane_keys().await.is_empty()
        })
        .await
        .unwrap();
    }

    /// The keys in which Redis keeps the lanes' last numbers, of this run's queue.
    pub(crate) async fn lane_keys(&self) -> Vec<String> {
        let keys = redis::cmd("KEYS")
            .arg(format!("seawall:{{{}}}:*", self.queue))
            .to_owned();
        self.redis.command(&keys).await.unwrap()
    }

    /// Lets a last app, with a few jobs of its own, deliver what is left, and balances the books.
    pub(crate) async fn settle(&mut self, seed: u64) -> Balance {
        if !self.redis.is_running() {
            self.redis.restart().await.unwrap();
        }
        let mut orders = self.orders(20);
        orders.end = End::Flush;
        let mut app = self.start(&orders);
        app.says(super::app::Line::Flushed).await;
        app.kill().await;
        self.balance(seed).await
    }

    /// Reads the far end, and panics unless all is there, once and in order.
    pub(crate) async fn balance(&self, seed: u64) -> Balance {
        let balance = self.read().await;
        let lost = self.books.lost(10);
        assert!(balance.is_clean(), "seed {seed}: {balance}, lost {lost:?}");
        balance
    }

    /// Reads the far end, once.
    pub(crate) async fn read(&self) -> Balance {
        let all = redis::cmd("LRANGE")
            .arg(&self.queue)
            .arg(0)
            .arg(-1)
            .to_owned();
        let all: Vec<String> = self.redis.command(&all).await.unwrap();
        for job in &all {
            let mut parts = job.split(' ');
            let (name, number) = (parts.next().unwrap(), parts.next().unwrap());
            self.books.deliver((name, number.parse().unwrap()));
        }
        self.books.balance()
    }
}

//! Two Redis servers, `a` preferred to `b`, and the books of what each of them is owed.

use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{Registry, proto::Metric};
use seawall::{
    Error, Job, Seawall,
    chaos::{Books, RedisServer, wait_until},
    spool::Receipt,
    stack::{Builder, Topology},
};
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

pub(crate) struct Pair {
    pub(crate) a: RedisServer,
    pub(crate) b: RedisServer,
    pub(crate) registry: Registry,
    dir: TempDir,
    ledger: Arc<Ledger>,
}

/// Each target is a lane of the books: its jobs are numbered, and say whose they are.
#[derive(Default)]
struct Ledger {
    books: Books,
    last: Mutex<HashMap<String, u64>>,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let start = || RedisServer::builder().durable().start();
        Self {
            a: start().await.unwrap(),
            b: start().await.unwrap(),
            registry: Registry::new(),
            dir: tempfile::tempdir().unwrap(),
            ledger: Arc::default(),
        }
    }

    /// Quick to go and to come back.
    pub(crate) fn topology(&self) -> Topology {
        Topology::failover([self.a.url(), self.b.url()])
            .with_names(["a", "b"])
            .with_threshold(Duration::from_millis(200))
            .with_grace(Duration::from_millis(200))
            .with_longest_hold(Duration::from_millis(400))
    }

    pub(crate) fn builder(&self, topology: Topology) -> Builder {
        let builder = Seawall::builder(topology, self.dir()).unwrap();
        builder.connection(|options| {
            let probe = Duration::from_millis(100);
            options.with_probe(probe, probe * 5)
        })
    }

    pub(crate) async fn open(&self, topology: Topology) -> Seawall {
        self.builder(topology).connect().await.unwrap()
    }

    /// Opened with its metrics in the registry, and both targets healthy.
    pub(crate) async fn seawall(&self) -> Seawall {
        let builder = self.builder(self.topology()).metrics(&self.registry);
        let seawall = builder.connect().await.unwrap();
        until("both targets", || {
            seawall.targets().all(|target| target.is_healthy())
        })
        .await;
        seawall
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn dir_of(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Hands in the next job of the active target. There is no await between the look at who that is and the
    /// enqueue, and these tests have one thread: nothing can change in between.
    pub(crate) fn hand_in(
        &self,
        seawall: &Seawall,
    ) -> impl Future<Output = Result<Receipt, Error>> + Send + use<> {
        let target = active(seawall);
        let number = {
            let mut last = self.ledger.last.lock();
            let last = last.entry(target.clone()).or_default();
            *last += 1;
            *last
        };
        let ledger = self.ledger.clone();
        ledger.books.attempt((&*target, number));
        let receipt = seawall.enqueue(Job::new("q", format!("{target}-{number}")));
        async move {
            let receipt = receipt.await?;
            ledger.books.acknowledge((&*target, number));
            Ok(receipt)
        }
    }

    pub(crate) async fn hand_in_many(&self, seawall: &Seawall, count: usize) -> Vec<Receipt> {
        let receipts: Vec<_> = (0..count).map(|_| self.hand_in(seawall)).collect();
        let receipts = futures_util::future::join_all(receipts).await;
        receipts.into_iter().map(Result::unwrap).collect()
    }

    /// Each server holds what it is owed, once and in order, and nothing of the other's.
    pub(crate) async fn judge(&self) {
        self.judge_of("this").await;
    }

    /// `what` is what it is said of.
    pub(crate) async fn judge_of(&self, what: &str) {
        for (name, redis) in [("a", &self.a), ("b", &self.b)] {
            for job in list(redis).await {
                let (owner, number) = job.split_once('-').unwrap();
                assert_eq!(owner, name, "{what}: {job} is in the wrong deployment");
                self.ledger.books.deliver((owner, number.parse().unwrap()));
            }
        }
        let balance = self.ledger.books.balance();
        let lost = self.ledger.books.lost(10);
        assert!(balance.is_clean(), "{what}: {balance}\n{lost:?}");
        assert_eq!(balance.delivered, balance.attempted, "{what}: {balance}");
    }

    /// The sum of a metric's series that have this target.
    pub(crate) fn metric(&self, name: &str, target: &str) -> f64 {
        self.sum(name, &[target])
    }

    /// How many lanes of the target are in this state.
    pub(crate) fn lanes(&self, target: &str, state: &str) -> f64 {
        self.sum("seawall_lanes", &[target, state])
    }

    fn sum(&self, name: &str, values: &[&str]) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name);
        let metrics = metrics.flat_map(|family| family.get_metric());
        let has = |metric: &Metric, value: &str| {
            let mut labels = metric.get_label().iter();
            labels.any(|label| label.value() == value)
        };
        metrics
            .filter(|metric| values.iter().all(|value| has(metric, value)))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

/// The jobs in the queue, from front to back.
pub(crate) async fn list(redis: &RedisServer) -> Vec<String> {
    let all = redis::cmd("LRANGE").arg("q").arg(0).arg(-1).to_owned();
    redis.command(&all).await.unwrap()
}

pub(crate) fn jobs(name: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("{name}-{number}")).collect()
}

pub(crate) fn active(seawall: &Seawall) -> String {
    let active = seawall.targets().find(|target| target.is_active());
    active.unwrap().name().to_owned()
}

pub(crate) async fn until_active(seawall: &Seawall, name: &str) {
    until("the other target", || active(seawall) == name).await;
}

pub(crate) async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let met = wait_until(what, PLENTY, || std::future::ready(met()));
    met.await.unwrap();
}

/// Waits until nothing is left for any target.
pub(crate) async fn drained(seawall: &Seawall) {
    let flushed = tokio::time::timeout(PLENTY, seawall.flush()).await;
    flushed.unwrap_or_else(|_| panic!("not drained: {:?}", seawall.health()));
}

pub(crate) fn waiting(seawall: &Seawall, name: &str) -> u64 {
    seawall.target(name).unwrap().spool().stats().records
}

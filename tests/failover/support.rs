//! A Sentinel set, a seawall on it, and a look at the far end.

use std::{path::Path, time::Duration};

use prometheus::Registry;
use seawall::{
    Job, Seawall,
    chaos::{SentinelSet, wait_until},
    spool::{Receipt, SpoolOptions},
};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A set behind proxies, and a directory for the spool.
pub(crate) struct Scene {
    pub(crate) set: SentinelSet,
    pub(crate) dir: TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let set = SentinelSet::builder().proxied().start().await.unwrap();
        set.wait_until_healthy().await.unwrap();
        Self {
            set,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn app(&self, change: impl FnOnce(SpoolOptions) -> SpoolOptions) -> App {
        App::at(&self.set.url(), self.dir.path(), change).await
    }

    pub(crate) async fn primary(&self) -> usize {
        self.set.primary().await.expect("the sentinels know one")
    }

    /// Kills the primary, and says which one has taken its place.
    pub(crate) async fn kill_primary(&mut self) -> usize {
        let old = self.set.kill_primary().await.unwrap();
        self.set.wait_for_primary_other_than(old).await.unwrap()
    }

    /// The list `key` as the node has it.
    pub(crate) async fn list(&self, node: usize, key: &str) -> Vec<u64> {
        let list = redis::cmd("LRANGE").arg(key).arg(0).arg(-1).to_owned();
        self.set.node(node).command(&list).await.unwrap()
    }
}

/// The application.
pub(crate) struct App {
    pub(crate) seawall: Seawall,
    pub(crate) registry: Registry,
}

impl App {
    /// Opens one, and waits until it has a connection.
    pub(crate) async fn at(
        url: &str,
        dir: &Path,
        change: impl FnOnce(SpoolOptions) -> SpoolOptions,
    ) -> Self {
        let registry = Registry::new();
        let seawall = Seawall::builder(url, dir)
            .unwrap()
            // On a busy machine nothing goes to disk unless the test means it.
            .spool(|spool| change(spool.with_spool_after(Duration::from_secs(2))))
            .metrics(&registry)
            .connect()
            .await
            .unwrap();
        let app = Self { seawall, registry };
        app.connected().await;
        app
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) {
        let up = || async { self.seawall.health().up };
        wait_until("a connection", PATIENCE, up).await.unwrap();
    }

    /// Hands these in one after the other, as many as a caller does who waits for each.
    pub(crate) async fn enqueue(
        &self,
        queue: &'static str,
        numbers: std::ops::Range<u64>,
    ) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for number in numbers {
            let job = Job::new(queue, number.to_string());
            receipts.push(self.seawall.enqueue(job).await.expect("accepted"));
        }
        receipts
    }

    /// Waits until Redis has everything.
    pub(crate) async fn drained(&self) {
        let flushed = tokio::time::timeout(PATIENCE, self.seawall.flush()).await;
        assert!(flushed.is_ok(), "not drained: {:?}", self.seawall.health());
    }

    /// The sum of a family of counters or gauges, as far as one label has this value; all of it if that is empty.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name);
        metrics
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                let mut labels = metric.get_label().iter();
                label.is_empty() || labels.any(|pair| pair.value() == label)
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    /// Waits until a metric is `wanted`.
    pub(crate) async fn until(&self, name: &str, label: &str, wanted: impl Fn(f64) -> bool) {
        let met = || async { wanted(self.metric(name, label)) };
        if wait_until(name, PATIENCE, met).await.is_err() {
            panic!("{name} {label} is {}", self.metric(name, label));
        }
    }

    /// Waits until replicas have all of it.
    pub(crate) async fn safe(&self) {
        self.until("seawall_tail_records", "memory", |records| records == 0.0)
            .await;
        self.until("seawall_tail_records", "disk", |records| records == 0.0)
            .await;
    }
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

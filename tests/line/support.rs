//! What every test of the line needs: a Redis, a spool directory, and a look at the far end.

use std::path::Path;

use seawall::{
    Seawall,
    chaos::{RedisServer, wait_until},
    stack::Builder,
};
use tempfile::TempDir;

/// A Redis and an empty spool directory.
pub(crate) struct Bench {
    pub(crate) redis: RedisServer,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let redis = RedisServer::builder()
            .durable()
            .start()
            .await
            .expect("redis-server starts");
        Self {
            redis,
            dir: tempfile::tempdir().expect("a temp directory"),
        }
    }

    pub(crate) fn spool_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn builder(&self) -> Builder {
        Seawall::builder(&self.redis.url(), self.spool_dir()).expect("the settings are right")
    }

    pub(crate) async fn seawall(&self) -> Seawall {
        self.builder().connect().await.expect("it opens")
    }

    /// The list `key`, from front to back.
    pub(crate) async fn list(&self, key: &str) -> Vec<String> {
        self.redis
            .command(redis::cmd("LRANGE").arg(key).arg(0).arg(-1))
            .await
            .expect("Redis answers")
    }
}

/// Waits until all that was handed in is in Redis.
pub(crate) async fn drained(seawall: &Seawall) {
    let patience = std::time::Duration::from_secs(30);
    if tokio::time::timeout(patience, seawall.flush())
        .await
        .is_err()
    {
        panic!("not drained: {:?}", seawall.health());
    }
}

/// Waits until `seawall` has a connection.
pub(crate) async fn connected(seawall: &Seawall) {
    let patience = std::time::Duration::from_secs(30);
    wait_until("a connection", patience, || async { seawall.health().up })
        .await
        .expect("it connects");
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The counter `name` of `queue`; 0 if there is none.
pub(crate) fn counter(registry: &prometheus::Registry, name: &str, queue: &str) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name);
    metrics
        .flat_map(|family| family.get_metric())
        .filter(|metric| {
            metric
                .get_label()
                .iter()
                .any(|label| label.value() == queue)
        })
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

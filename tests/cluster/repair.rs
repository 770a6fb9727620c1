//! What a failover loses, and what is given back.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    chaos::{RedisCluster, wait_until},
    spool::{Ack, SpoolOptions},
};

use crate::support::{Line, PLENTY, cmd, key_of_each, list, replicated};

struct Scene {
    cluster: RedisCluster,
    line: Line,
    registry: Registry,
    /// A queue on the first primary, and one on another.
    queue: String,
    other: String,
}

impl Scene {
    async fn new(change: impl FnOnce(SpoolOptions) -> SpoolOptions) -> Self {
        let cluster = RedisCluster::start().await.unwrap();
        let registry = Registry::new();
        let line = Line::with(&cluster, |builder| builder.spool(change).metrics(&registry)).await;
        let mut keys = key_of_each(&cluster, 3).await.into_iter();
        Self {
            cluster,
            line,
            registry,
            queue: keys.next().unwrap(),
            other: keys.next().unwrap(),
        }
    }

    /// The first primary acknowledges what its replica never gets, and dies. The replica takes over.
    async fn lose(&mut self) {
        self.line.enqueue(&self.queue, 0..100).await;
        self.line.enqueue(&self.other, 0..100).await;
        replicated(&self.cluster).await;
        let replica = self.cluster.replica_of(0).await.unwrap();
        self.cluster.freeze(replica).await.unwrap();
        // What is sent from here on does not even get into the replica's socket.
        let killed: u64 = self
            .cluster
            .node(0)
            .command(&cmd("CLIENT KILL TYPE replica"))
            .await
            .unwrap();
        assert_eq!(killed, 1);
        self.line.enqueue(&self.queue, 100..300).await;
        assert_eq!(self.line.seawall.health().spool.records, 0, "acknowledged");
        self.cluster.kill(0).await.unwrap();
        self.cluster.thaw(replica).unwrap();
        wait_until("a failover", PLENTY, || async {
            self.cluster.owner_of(&self.queue).await == Ok(replica)
        })
        .await
        .unwrap();
    }

    fn metric(&self, name: &str, queue: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name);
        metrics
            .flat_map(|family| family.get_metric())
            .filter(|metric| metric.get_label().iter().any(|pair| pair.value() == queue))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    async fn until(&self, name: &str, label: &str, wanted: f64) {
        let met = || async { self.metric(name, label) == wanted };
        if wait_until(name, PLENTY, met).await.is_err() {
            panic!("{name} {label} is {}", self.metric(name, label));
        }
    }
}

#[tokio::test]
async fn what_a_lagging_replica_never_got_is_sent_again_in_order() {
    let mut scene = Scene::new(|spool| spool).await;
    scene.lose().await;
    // Nobody enqueues anything: the lane asks by itself.
    scene
        .until("seawall_repaired_total", &scene.queue, 200.0)
        .await;
    scene.line.enqueue(&scene.queue, 300..400).await;
    scene.line.drained().await;
    assert_eq!(
        list(&scene.cluster, &scene.queue).await,
        Vec::from_iter(0..400)
    );
    assert_eq!(
        list(&scene.cluster, &scene.other).await,
        Vec::from_iter(0..100)
    );
    assert_eq!(
        scene.metric("seawall_lost_by_redis_total", &scene.queue),
        0.0
    );
    assert_eq!(scene.metric("seawall_repaired_total", &scene.other), 0.0);
    // Kept until the new primary has a replica that has it.
    assert!(scene.metric("seawall_tail_records", "memory") > 0.0);
    scene.cluster.restart(0).await.unwrap();
    scene.until("seawall_tail_records", "memory", 0.0).await;
    scene.until("seawall_tail_records", "disk", 0.0).await;
}

#[tokio::test]
async fn without_the_tail_it_is_lost() {
    let mut scene = Scene::new(|spool| spool.with_tail(None)).await;
    scene.lose().await;
    scene.line.enqueue(&scene.queue, 300..400).await;
    scene.line.drained().await;
    let kept: Vec<u64> = (0..100).chain(300..400).collect();
    assert_eq!(list(&scene.cluster, &scene.queue).await, kept);
    assert_eq!(
        scene.metric("seawall_lost_by_redis_total", &scene.queue),
        200.0
    );
}

#[tokio::test]
async fn what_the_replicas_of_all_primaries_have_is_let_go() {
    let scene = Scene::new(|spool| spool).await;
    for queue in [&scene.queue, &scene.other] {
        scene.line.enqueue(queue, 0..50).await;
    }
    scene.until("seawall_tail_records", "memory", 0.0).await;
    assert_eq!(
        scene.metric("seawall_lost_by_redis_total", &scene.queue),
        0.0
    );
}

#[tokio::test]
async fn a_receipt_can_wait_for_the_replica_of_its_own_primary() {
    let mut scene = Scene::new(|spool| {
        spool.with_ack(Ack::Replicated {
            replicas: 1,
            timeout: Duration::from_secs(5),
        })
    })
    .await;
    for queue in [&scene.queue, &scene.other] {
        scene.line.enqueue(queue, 0..20).await;
    }
    // What has a receipt is on the replica, at once.
    let replica = scene.cluster.replica_of(0).await.unwrap();
    scene.cluster.kill(0).await.unwrap();
    wait_until("a failover", PLENTY, || async {
        scene.cluster.owner_of(&scene.queue).await == Ok(replica)
    })
    .await
    .unwrap();
    assert_eq!(
        list(&scene.cluster, &scene.queue).await,
        Vec::from_iter(0..20)
    );
}

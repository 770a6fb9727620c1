//! Receipts that wait for replicas.

use std::time::Duration;

use seawall::{
    Job,
    chaos::RedisServer,
    spool::{Ack, SpoolOptions},
};

use crate::support::{App, Scene, numbers};

fn replicated(replicas: u32, timeout: Duration) -> impl Fn(SpoolOptions) -> SpoolOptions {
    move |spool| spool.with_ack(Ack::Replicated { replicas, timeout })
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_receipt_of_delivery_means_that_replicas_have_it() {
    let scene = Scene::new().await;
    let app = scene.app(replicated(2, LONG)).await;
    for number in 0..50 {
        let receipts = app.enqueue("q", number..number + 1).await;
        assert!(receipts[0].is_delivered());
        for node in 0..3 {
            // Each of them has it at this very moment.
            assert_eq!(scene.list(node, "q").await.len() as u64, number + 1);
        }
    }
    app.safe().await;
}

#[tokio::test]
async fn many_callers_share_one_wait() {
    let scene = Scene::new().await;
    let app = scene.app(replicated(1, LONG)).await;
    let jobs = (0..2_000).map(|number| Job::new("q", number.to_string()));
    for receipt in app.seawall.enqueue_all(jobs).await {
        assert!(receipt.expect("accepted").is_delivered());
    }
    let primary = scene.primary().await;
    assert_eq!(scene.list(primary, "q").await, numbers(0..2_000));
}

#[tokio::test]
async fn what_no_replica_confirms_is_on_disk_and_survives_both_deaths() {
    let mut scene = Scene::new().await;
    let app = scene.app(replicated(1, SHORT)).await;
    app.enqueue("q", 0..10).await;
    scene.set.wait_until_replicated().await.unwrap();
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    let receipts = app.enqueue("q", 10..40).await;
    assert!(
        receipts.iter().all(|receipt| receipt.is_spooled()),
        "{receipts:?}"
    );
    assert_eq!(scene.list(old, "q").await, numbers(0..40));
    assert!(app.metric("seawall_tail_records", "disk") >= 30.0);
    // The application and the primary die together.
    drop(app);
    let new = scene.kill_primary().await;
    let app = scene.app(replicated(1, SHORT)).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..40));
}

#[tokio::test]
async fn without_any_replica_every_job_is_kept_on_disk() {
    let redis = RedisServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let app = App::at(&redis.url(), dir.path(), replicated(1, SHORT)).await;
    let jobs = (0..100).map(|number| Job::new("q", number.to_string()));
    for receipt in app.seawall.enqueue_all(jobs).await {
        assert!(receipt.expect("accepted").is_spooled());
    }
    assert_eq!(app.metric("seawall_tail_records", "disk"), 100.0);
}

/// Redis before 7.2 does not know WAITAOF.
#[tokio::test]
async fn a_server_that_cannot_wait_for_disks_has_its_jobs_kept_here() {
    let scene = Scene::new().await;
    let app = scene
        .app(|spool| {
            spool.with_ack(Ack::ReplicatedOnDisk {
                replicas: 1,
                timeout: SHORT,
            })
        })
        .await;
    let receipts = app.enqueue("q", 0..5).await;
    assert!(
        receipts.iter().all(|receipt| receipt.is_spooled()),
        "{receipts:?}"
    );
    let primary = scene.primary().await;
    assert_eq!(scene.list(primary, "q").await, numbers(0..5));
}

#[tokio::test]
async fn what_comes_from_disk_stays_there_until_replicas_have_it() {
    let mut scene = Scene::new().await;
    let app = scene.app(replicated(1, SHORT)).await;
    let old = scene.primary().await;
    app.enqueue("q", 0..10).await;
    scene.set.wait_until_replicated().await.unwrap();
    scene.set.node(old).freeze().await.unwrap();
    let receipts = app.enqueue("q", 10..60).await;
    assert!(receipts.iter().any(|receipt| receipt.is_spooled()));
    scene.set.cut_replication(old);
    scene.set.node(old).thaw().unwrap();
    app.drained().await;
    drop(app);
    let new = scene.kill_primary().await;
    let app = scene.app(replicated(1, SHORT)).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..60));
}

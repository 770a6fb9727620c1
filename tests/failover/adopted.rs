//! A directory that processes share: what one has left that died is given back by another.

use std::{path::Path, time::Duration};

use seawall::{
    chaos::wait_until,
    spool::{Ack, SpoolDir, SpoolOptions},
};

use crate::support::{App, PATIENCE, Scene, numbers};

/// What no replica has confirmed is on disk by the time that the caller is answered.
fn replicated(dir: &Path) -> SpoolOptions {
    let dir = SpoolDir::shared(dir).with_adoption_interval(Duration::from_millis(10));
    SpoolOptions::new(dir)
        .with_spool_after(Duration::from_secs(2))
        .with_ack(Ack::Replicated {
            replicas: 1,
            timeout: Duration::from_millis(100),
        })
}

/// Two processes; 30 jobs that the first has in Redis and in its tail on disk, and that no replica has.
async fn two(scene: &Scene) -> (App, App) {
    let dir = scene.dir.path();
    let first = scene.app(|_| replicated(dir)).await;
    let other = scene.app(|_| replicated(dir)).await;
    first.enqueue("q", 0..10).await;
    scene.set.wait_until_replicated().await.unwrap();
    scene.set.cut_replication(scene.primary().await);
    let receipts = first.enqueue("q", 10..40).await;
    assert!(receipts.iter().all(|receipt| receipt.is_spooled()));
    (first, other)
}

#[tokio::test]
async fn a_tail_in_the_slot_of_a_dead_process_is_given_back_by_another() {
    let mut scene = Scene::new().await;
    let (first, other) = two(&scene).await;
    // It ends where it is, as far as a test's own process can.
    drop(first);
    let new = scene.kill_primary().await;
    other
        .until("seawall_repaired_total", "q", |count| count >= 30.0)
        .await;
    assert_eq!(scene.list(new, "q").await, numbers(0..40));
    given_up(&scene).await;
    assert_eq!(other.metric("seawall_lost_by_redis_total", "q"), 0.0);
    other.enqueue("q", 40..50).await;
    assert_eq!(scene.list(new, "q").await, numbers(0..50));
}

/// It is asked for, found to be there, and held until replicas have it.
#[tokio::test]
async fn a_tail_in_a_slot_that_redis_still_has_is_not_doubled() {
    let scene = Scene::new().await;
    let (first, other) = two(&scene).await;
    let primary = scene.primary().await;
    drop(first);
    other
        .until("seawall_spool_adopting_records", "", |records| {
            records >= 30.0
        })
        .await;
    assert_eq!(scene.list(primary, "q").await, numbers(0..40));
    scene.set.heal();
    given_up(&scene).await;
    let primary = scene.set.wait_for_primary().await.unwrap();
    assert_eq!(scene.list(primary, "q").await, numbers(0..40));
    assert_eq!(other.metric("seawall_repaired_total", "q"), 0.0);
}

/// Nothing is left in the slot of the first.
async fn given_up(scene: &Scene) {
    let mark = scene.dir.path().join("slot-1.idle");
    wait_until("the slot to be idle", PATIENCE, || async { mark.exists() })
        .await
        .unwrap();
}

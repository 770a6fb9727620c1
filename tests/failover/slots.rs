//! A directory that many processes share: what one of them has left is delivered by another.

use std::time::Duration;

use seawall::{
    chaos::wait_until,
    spool::{Ack, SpoolDir},
};

use crate::support::{PATIENCE, Scene, numbers};

/// Not left there once more because replicas have not got it yet.
#[tokio::test]
async fn a_slot_that_was_taken_over_is_empty_once_replicas_have_what_was_in_it() {
    let scene = Scene::new().await;
    let shared = || SpoolDir::shared(scene.dir.path());
    let eager = shared().with_adoption_interval(Duration::from_millis(50));
    let left = scene
        .app_in(shared(), |spool| spool.with_ack(Ack::Spooled))
        .await;
    let _heir = scene.app_in(eager, |spool| spool).await;
    let primary = scene.primary().await;
    scene.set.node(primary).freeze().await.unwrap();
    let receipts = left.enqueue("q", 0..50).await;
    assert!(receipts.iter().all(|receipt| receipt.is_spooled()));
    drop(left);
    scene.set.node(primary).thaw().unwrap();
    // The mark says that nothing waits in it.
    let mark = scene.dir.path().join("slot-1.idle");
    let empty = || async { mark.exists() };
    wait_until("an empty slot", PATIENCE, empty).await.unwrap();
    let primary = scene.primary().await;
    assert_eq!(scene.list(primary, "q").await, numbers(0..50));
}

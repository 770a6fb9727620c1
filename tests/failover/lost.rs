//! A primary that acknowledges what no replica has, and dies; or is alone with its clients.

use std::time::Duration;

use seawall::{chaos::wait_until, spool::SpoolOptions};

use crate::support::{App, PATIENCE, Scene, numbers};

/// Replicas cut off, jobs acknowledged, the primary killed, a replica promoted. Gives the new primary.
async fn lose(scene: &mut Scene, app: &App) -> usize {
    app.enqueue("q", 0..100).await;
    app.enqueue("other", 0..10).await;
    app.drained().await;
    scene.set.wait_until_replicated().await.unwrap();
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    let receipts = app.enqueue("q", 100..300).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    app.enqueue("other", 10..20).await;
    assert_eq!(scene.list(old, "q").await, numbers(0..300));
    scene.kill_primary().await
}

#[tokio::test]
async fn what_a_lagging_replica_never_got_is_sent_again_in_order() {
    let mut scene = Scene::new().await;
    let app = scene.app(|spool| spool).await;
    let new = lose(&mut scene, &app).await;
    // Nobody enqueues anything: the lanes ask by themselves.
    app.until("seawall_repaired_total", "q", |count| count >= 200.0)
        .await;
    app.until("seawall_repaired_total", "other", |count| count >= 10.0)
        .await;
    app.enqueue("q", 300..400).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..400));
    assert_eq!(scene.list(new, "other").await, numbers(0..20));
    assert_eq!(app.metric("seawall_lost_by_redis_total", "q"), 0.0);
    app.safe().await;
}

#[tokio::test]
async fn without_the_tail_it_is_lost() {
    let mut scene = Scene::new().await;
    let app = scene.app(|spool| spool.with_tail(None)).await;
    let new = lose(&mut scene, &app).await;
    app.connected().await;
    app.enqueue("q", 300..400).await;
    app.drained().await;
    let kept: Vec<u64> = numbers(0..100)
        .into_iter()
        .chain(numbers(300..400))
        .collect();
    assert_eq!(scene.list(new, "q").await, kept);
    assert_eq!(app.metric("seawall_lost_by_redis_total", "q"), 200.0);
}

/// Under load: whatever is acknowledged, by whomever, is on the master that has won.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_in_the_middle_of_the_load_loses_nothing() {
    let mut scene = Scene::new().await;
    let app = scene.app(|spool| spool).await;
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    let load = async {
        let mut number = 0;
        while !(app.metric("seawall_failovers_total", "") > 0.0 && number >= 2_000)
            && number < 20_000
        {
            app.enqueue("q", number..number + 20).await;
            number += 20;
            tokio::task::yield_now().await;
            if app.seawall.connection().status().borrow().generation > 1 && number >= 2_000 {
                break;
            }
        }
        number
    };
    let nemesis = async {
        wait_until("some load", PATIENCE, || async {
            scene.list(old, "q").await.len() > 300
        })
        .await
        .unwrap();
        scene.set.kill_primary().await.unwrap();
    };
    let (number, ()) = tokio::join!(load, nemesis);
    let new = scene.set.wait_for_primary_other_than(old).await.unwrap();
    app.connected().await;
    app.drained().await;
    app.enqueue("q", number..number + 10).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..number + 10));
}

#[tokio::test]
async fn what_a_split_brain_has_acknowledged_is_given_to_the_side_that_wins() {
    let scene = Scene::new().await;
    let app = scene.app(|spool| spool).await;
    app.enqueue("q", 0..100).await;
    scene.set.wait_until_replicated().await.unwrap();
    // The old primary alone with its client, which can ask no sentinel.
    let old = scene.set.split_brain().await.unwrap();
    let receipts = app.enqueue("q", 100..300).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    let new = scene.set.wait_for_primary_other_than(old).await.unwrap();
    let receipts = app.enqueue("q", 300..400).await;
    assert!(
        receipts.iter().all(|receipt| receipt.is_delivered()),
        "it still serves"
    );
    assert_eq!(scene.list(new, "q").await, numbers(0..100));
    scene.set.heal();
    app.until("seawall_repaired_total", "q", |count| count >= 300.0)
        .await;
    app.enqueue("q", 400..500).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..500));
    app.safe().await;
}

/// A queue that has something on disk when the primary goes: what was acknowledged goes first.
#[tokio::test]
async fn what_is_given_back_goes_before_what_waits_on_disk() {
    let mut scene = Scene::new().await;
    let app = scene
        .app(|spool: SpoolOptions| spool.with_spool_after(Duration::from_millis(50)))
        .await;
    let old = scene.primary().await;
    app.enqueue("q", 0..50).await;
    scene.set.wait_until_replicated().await.unwrap();
    scene.set.cut_replication(old);
    app.enqueue("q", 50..150).await;
    scene.set.node(old).freeze().await.unwrap();
    let receipts = app.enqueue("q", 150..200).await;
    assert!(receipts.iter().any(|receipt| receipt.is_spooled()));
    let new = scene.kill_primary().await;
    app.drained().await;
    app.enqueue("q", 200..210).await;
    assert_eq!(scene.list(new, "q").await, numbers(0..210));
}

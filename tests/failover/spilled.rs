//! A partition that lasts: what is too much for memory goes to disk, and comes back from there.

use seawall::{
    Job,
    spool::{SpoolOptions, TailOptions},
};

use crate::support::{Scene, numbers};

fn small(spool: SpoolOptions) -> SpoolOptions {
    spool
        .with_tail(TailOptions::new().with_max_memory(64 << 10))
        .with_max_batch(64, 1 << 20)
}

#[tokio::test]
async fn what_was_too_much_for_memory_is_given_back_from_disk() {
    let mut scene = Scene::new().await;
    let app = scene.app(small).await;
    let old = scene.primary().await;
    app.enqueue("q", 0..10).await;
    scene.set.wait_until_replicated().await.unwrap();
    scene.set.cut_replication(old);
    for first in (10..3_010).step_by(50) {
        let jobs = (first..first + 50).map(|number| Job::new("q", number.to_string()));
        for receipt in app.seawall.enqueue_all(jobs).await {
            let _ = receipt.expect("accepted");
        }
    }
    app.until("seawall_tail_records", "disk", |records| records > 1_000.0)
        .await;
    assert!(app.metric("seawall_tail_bytes", "memory") < 256.0 * 1024.0);
    let new = scene.kill_primary().await;
    app.until("seawall_repaired_total", "q", |count| count >= 3_000.0)
        .await;
    app.drained().await;
    app.enqueue("q", 3_010..3_020).await;
    assert_eq!(scene.list(new, "q").await, numbers(0..3_020));
    app.safe().await;
    assert_eq!(app.seawall.health().spool.records, 0);
}

#[tokio::test]
async fn what_is_beyond_the_bound_on_disk_is_given_up_and_counted() {
    let mut scene = Scene::new().await;
    let app = scene
        .app(|spool| {
            small(spool).with_tail(
                TailOptions::new()
                    .with_max_memory(64 << 10)
                    .with_max_disk(16 << 10),
            )
        })
        .await;
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    for first in (0..4_000).step_by(50) {
        let jobs = (first..first + 50).map(|number| Job::new("q", number.to_string()));
        for receipt in app.seawall.enqueue_all(jobs).await {
            let _ = receipt.expect("accepted");
        }
    }
    let given_up = app.metric("seawall_tail_given_up_total", "q");
    assert!(given_up > 0.0);
    let new = scene.kill_primary().await;
    app.until("seawall_repaired_total", "q", |count| count > 0.0)
        .await;
    app.drained().await;
    app.enqueue("q", 4_000..4_010).await;
    let list = scene.list(new, "q").await;
    let lost = app.metric("seawall_lost_by_redis_total", "q");
    assert_eq!(
        list.len() as f64,
        4_010.0 - lost,
        "what is not there is counted"
    );
    assert!(list.is_sorted_by(|one, other| one < other));
}

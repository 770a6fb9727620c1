//! The process ends in the middle of it.

use std::time::Duration;

use seawall::stack::Topology;

use crate::support::{PLENTY, Pair, active, drained, jobs, list, until, until_active, waiting};

#[tokio::test]
async fn what_is_on_disk_for_each_target_goes_to_each_after_a_restart() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 30).await;
    until_active(&seawall, "b").await;
    pair.b.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 40).await;
    assert_eq!((waiting(&seawall, "a"), waiting(&seawall, "b")), (30, 40));
    assert_eq!(
        seawall.shutdown(Duration::ZERO).await.unwrap(),
        70,
        "the sum"
    );
    drop(seawall);

    // The order does not matter, the names do.
    let swapped = Topology::failover([pair.b.url(), pair.a.url()])
        .with_names(["b", "a"])
        .with_threshold(Duration::from_millis(100));
    let seawall = pair.open(swapped).await;
    assert_eq!((waiting(&seawall, "a"), waiting(&seawall, "b")), (30, 40));
    assert_eq!(active(&seawall), "b");
    pair.a.restart().await.unwrap();
    until_active(&seawall, "a").await;
    until("what waited for a", || waiting(&seawall, "a") == 0).await;
    assert_eq!(list(&pair.a).await, jobs("a", 1..=30));
    pair.b.restart().await.unwrap();
    drained(&seawall).await;
    assert_eq!(list(&pair.b).await, jobs("b", 1..=40));
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    pair.judge().await;
}

#[tokio::test]
async fn a_process_that_just_stops_existing_leaves_each_target_its_own() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 30).await;
    until_active(&seawall, "b").await;
    pair.b.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 30).await;
    drop(seawall);
    pair.a.restart().await.unwrap();
    pair.b.restart().await.unwrap();
    // The directories are given back a moment later.
    let mut again = None;
    while again.is_none() {
        again = pair.builder(pair.topology()).connect().await.ok();
        tokio::task::yield_now().await;
    }
    let seawall = again.unwrap();
    drained(&seawall).await;
    let _ = pair.hand_in_many(&seawall, 30).await;
    drained(&seawall).await;
    pair.judge().await;
}

//! A set fails over in each way, and comes together again.

use seawall::chaos::SentinelSet;

use super::{length, push};

#[tokio::test]
async fn a_set_survives_every_kind_of_failover() {
    let mut set = SentinelSet::builder().durable().start().await.unwrap();
    assert_eq!(set.primary().await, Some(0));
    push(set.node(0), 1).await;
    set.wait_until_replicated().await.unwrap();

    set.failover().await.unwrap();
    let commanded = set.wait_for_primary_other_than(0).await.unwrap();
    set.wait_until_healthy().await.unwrap();
    push(set.node(commanded), 2).await;
    set.wait_until_replicated().await.unwrap();

    let killed = set.kill_primary().await.unwrap();
    assert_eq!(killed, commanded);
    let after_kill = set.wait_for_primary_other_than(killed).await.unwrap();
    set.revive().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    push(set.node(after_kill), 3).await;
    set.wait_until_replicated().await.unwrap();

    let frozen = set.freeze_primary().await.unwrap();
    assert_eq!(frozen, after_kill);
    let after_freeze = set.wait_for_primary_other_than(frozen).await.unwrap();
    set.revive().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    assert_eq!(set.primary().await, Some(after_freeze));
    for node in set.nodes() {
        assert_eq!(length(node).await, 3);
    }
}

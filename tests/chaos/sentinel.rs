//! A set fails over in each way, and comes together again.

use seawall::chaos::SentinelSet;

use super::{Raw, length, push};

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

#[tokio::test]
async fn passwords_guard_the_nodes_and_the_sentinels_and_the_set_knows_them() {
    let (password, other) = ("p@ss w/\u{f6}\"rd\\%", "s:ntinel ?&=");
    let set = SentinelSet::builder()
        .replicas(1)
        .master_name("main")
        .password(password)
        .sentinel_password(other)
        .start()
        .await
        .unwrap();
    set.failover().await.unwrap();
    set.wait_for_primary_other_than(0).await.unwrap();
    set.wait_until_healthy().await.unwrap();

    let url = set.url();
    let addrs: Vec<_> = set.sentinels().map(|one| one.addr().to_string()).collect();
    let addrs = addrs.join(",");
    assert_eq!(
        url,
        format!(
            "redis+sentinel://:p%40ss%20w%2F%C3%B6%22rd%5C%25@{addrs}/main/0\
             ?sentinel_pass=s%3Antinel%20%3F%26%3D"
        )
    );
    let debug = format!("{set:?} {:?}", SentinelSet::builder().password(password));
    assert!(
        !debug.contains("p@ss") && !debug.contains("s:ntinel"),
        "{debug}"
    );

    for (guarded, command) in [
        (set.node(0), "LLEN list\r\n"),
        (set.sentinel(0), "SENTINEL MYID\r\n"),
    ] {
        let mut stranger = Raw::connect(guarded.addr()).await;
        let answer = stranger.ask(command).await.unwrap();
        assert!(answer.starts_with("-NOAUTH"), "{answer}");
    }
}

#[tokio::test]
async fn behind_proxies_a_set_fails_over_and_every_sentinel_can_be_lost_and_found() {
    let mut set = SentinelSet::builder().proxied().start().await.unwrap();
    let addrs = set.node_addrs();
    assert!(set.nodes().all(|node| !addrs.contains(&node.addr())));
    let killed = set.kill_primary().await.unwrap();
    set.sentinel_mut(0).kill().await.unwrap();
    let new = set.wait_for_primary_other_than(killed).await.unwrap();
    set.sentinel(1).freeze().await.unwrap();
    assert_eq!(set.primary().await, None, "one sentinel is no majority");
    assert!(set.kill_primary().await.is_err());
    set.revive().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    assert_eq!(set.primary().await, Some(new));
}

#[tokio::test]
async fn a_primary_cut_from_its_replicas_acknowledges_what_dies_with_it() {
    let mut set = SentinelSet::builder()
        .durable()
        .proxied()
        .start()
        .await
        .unwrap();
    push(set.node(0), 1).await;
    set.wait_until_replicated().await.unwrap();

    set.cut_replication(0);
    let mut client = Raw::connect(set.node_addrs()[0]).await;
    assert_eq!(client.ask("RPUSH list 2\r\n").await.unwrap(), ":2");
    assert_eq!(set.primary().await, Some(0));
    let old = set.kill_primary().await.unwrap();
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    assert_eq!(
        length(set.node(new)).await,
        1,
        "the control: it must be lost"
    );

    set.heal();
    set.revive().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    assert_eq!(length(set.node(old)).await, 1);
}

#[tokio::test]
async fn a_split_brain_leaves_clients_with_a_primary_that_nobody_else_sees() {
    let set = SentinelSet::builder().proxied().start().await.unwrap();
    let mut client = Raw::connect(set.node_addrs()[0]).await;
    assert_eq!(client.ask("RPUSH list 1\r\n").await.unwrap(), ":1");
    set.wait_until_replicated().await.unwrap();

    let old = set.split_brain().await.unwrap();
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    assert_eq!(client.ask("RPUSH list 2\r\n").await.unwrap(), ":2");
    for addr in [set.node_addrs()[new], set.sentinel_addrs()[0]] {
        let mut across = Raw::connect(addr).await;
        across.send("PING\r\n").await;
        across.hears_nothing().await;
    }
    push(set.node(new), 3).await;

    set.heal();
    set.wait_until_healthy().await.unwrap();
    assert_eq!(set.primary().await, Some(new));
    let kept: Vec<u32> = set
        .node(old)
        .command(redis::cmd("LRANGE").arg("list").arg(0).arg(-1))
        .await
        .unwrap();
    assert_eq!(kept, [1, 3], "the old primary is a replica of the new one");
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_left_by_all() {
    let set = SentinelSet::builder()
        .replicas(1)
        .proxied()
        .start()
        .await
        .unwrap();
    let mut client = Raw::connect(set.node_addrs()[0]).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");
    set.cut_off(0);
    client.send("PING\r\n").await;
    client.hears_nothing().await;
    set.wait_for_primary_other_than(0).await.unwrap();
    set.heal();
    assert!(client.ends().await, "what fell silent is reset");
    set.wait_until_healthy().await.unwrap();
}

//! The search: sentinels that are down, frozen, wrong, or do not know the name.

use std::{error::Error as _, time::Duration};

use seawall::{
    Seawall,
    chaos::{RedisServer, SentinelSet},
    connect::{ConnectError, Trouble},
    stack::BuildError,
};

use super::{Client, NEVER, PATIENCE, fake::FakeSentinel, options, url};

async fn set(replicas: usize, sentinels: usize) -> SentinelSet {
    let set = SentinelSet::builder();
    let set = set.replicas(replicas).sentinels(sentinels).start();
    let set = set.await.unwrap();
    set.wait_until_healthy().await.unwrap();
    set
}

#[tokio::test]
async fn with_all_sentinels_down_calls_go_on_and_a_broken_connection_is_made_again() {
    let mut set = set(0, 3).await;
    let client = Client::of(&set).await;
    for sentinel in 0..3 {
        set.sentinel_mut(sentinel).kill().await.unwrap();
    }
    client.write(1).await.unwrap();
    // One more connection to the master is made, from memory.
    set.node_mut(0).kill().await.unwrap();
    client.seen(|status| !status.up).await;
    let status = client.seen(|status| status.trouble == Some(Trouble::SentinelsUnreachable));
    status.await;
    set.node_mut(0).restart().await.unwrap();
    let status = client.seen(|status| status.up).await;
    assert_eq!(status.generation, 2);
    client.write(1).await.unwrap();
    let searches = "seawall_sentinel_searches_total";
    assert_eq!(client.metric(searches, "remembered"), 1.0);
    assert_eq!(client.metric("seawall_failovers_total", ""), 0.0);
}

#[tokio::test]
async fn a_sentinel_that_names_a_replica_is_not_believed() {
    let set = set(1, 1).await;
    let [master, replica] = [set.node_addrs()[0], set.node_addrs()[1]];
    for epoch in [0, 1000] {
        let liar = FakeSentinel::start(replica, epoch).await;
        let sentinels = [liar.addr(), set.sentinel_addrs()[0]];
        let poll = Duration::from_millis(20);
        let options = options(&url(&sentinels, "mymaster")).with_sentinel_poll(poll);
        let client = Client::ready(options).await;
        assert_eq!(client.port().await, master.port());
        liar.asked(5).await;
        // Nor when it says that there was a failover.
        liar.announces(replica, epoch + 1);
        liar.asked(5).await;
        client
            .counted("seawall_role_mismatches_total", "", 1.0)
            .await;
        assert_eq!(client.port().await, master.port());
        assert_eq!(client.status().generation, 1);
        assert_eq!(client.metric("seawall_failovers_total", ""), 0.0);
    }
}

#[tokio::test]
async fn a_sentinel_that_has_missed_a_failover_does_not_lead_back_to_the_old_master() {
    // Both say that they are masters: two halves of a network.
    let (old, new) = (
        RedisServer::start().await.unwrap(),
        RedisServer::start().await.unwrap(),
    );
    let stale = FakeSentinel::start(old.addr(), 4).await;
    let leader = FakeSentinel::start(old.addr(), 4).await;
    let sentinels = [stale.addr(), leader.addr()];
    let poll = Duration::from_millis(20);
    let options = options(&url(&sentinels, "mymaster"))
        .with_sentinel_poll(poll)
        .with_connect_timeout(NEVER)
        .with_probe(NEVER, NEVER);
    let client = Client::ready(options).await;
    assert_eq!(client.port().await, old.port());
    leader.announces(new.addr(), 5);
    client.counted("seawall_failovers_total", "", 1.0).await;
    assert_eq!(client.port().await, new.port());
    stale.asked(5).await;
    // Also when the connection has to be made anew, and the stale one answers first.
    leader.answers(false);
    leader.asked(1).await;
    let kill = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .take();
    new.command::<i64>(&kill).await.unwrap();
    client.seen(|status| !status.up).await;
    stale.asked(5).await;
    assert!(!client.status().up);
    leader.answers(true);
    client
        .seen(|status| status.generation == 3 && status.up)
        .await;
    assert_eq!(client.port().await, new.port());
    assert_eq!(client.metric("seawall_failovers_total", ""), 1.0);
}

#[tokio::test]
async fn a_master_named_during_the_pause_between_two_searches_is_gone_to_at_once() {
    let server = RedisServer::start().await.unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sentinel = FakeSentinel::start(nobody.local_addr().unwrap(), 1).await;
    drop(nobody);
    // The pause alone would last longer than the test.
    let options = options(&url(&[sentinel.addr()], "mymaster")).with_reconnect_delay(NEVER, NEVER);
    let client = Client::open(options);
    client
        .seen(|status| status.trouble == Some(Trouble::Unreachable))
        .await;
    sentinel.announces(server.addr(), 2);
    client.connection.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(client.port().await, server.port());
}

#[tokio::test]
async fn a_frozen_sentinel_holds_up_nothing() {
    let set = set(0, 3).await;
    set.sentinel(0).freeze().await.unwrap();
    // Nothing is given up for taking long.
    let options = options(&set.url())
        .with_connect_timeout(NEVER)
        .with_probe(NEVER, NEVER);
    let client = Client::ready(options).await;
    client.write(1).await.unwrap();
    client.connection.check(NEVER).await.unwrap();
}

#[tokio::test]
async fn sentinels_that_the_url_does_not_name_are_learnt() {
    let mut set = set(1, 3).await;
    let only = [set.sentinel_addrs()[0]];
    let client = Client::ready(options(&url(&only, "mymaster"))).await;
    // What is learnt has a link of its own, so the one that is named is not needed any more.
    for sentinel in 1..3 {
        connected_to(set.sentinel(sentinel)).await;
    }
    set.sentinel_mut(0).kill().await.unwrap();
    let old = set.kill_primary().await.unwrap();
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    client.write_again().await;
    assert_eq!(client.port().await, set.node(new).port());
}

async fn connected_to(sentinel: &RedisServer) {
    seawall::chaos::wait_until("a client of ours", PATIENCE, || async {
        let list = redis::cmd("CLIENT").arg("LIST").take();
        let clients: String = sentinel.command(&list).await.unwrap_or_default();
        clients.contains("name=seawall") && clients.contains("sub=1")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_wrong_name_is_an_error_at_the_start_that_lists_the_right_ones() {
    let set = set(0, 3).await;
    let url = url(&set.sentinel_addrs(), "nomaster");
    let dir = tempfile::tempdir().unwrap();
    let built = Seawall::builder(&url, dir.path()).unwrap().connect().await;
    let error = built.expect_err("there is no such master");
    assert!(matches!(
        error,
        BuildError::Connect(ConnectError::UnknownMaster { .. })
    ));
    let text = error.source().unwrap().to_string();
    assert!(
        text.contains("nomaster") && text.contains(set.master_name()),
        "{text}"
    );
    // A connection by itself goes on looking.
    let client = Client::open(options(&url));
    client.connection.check(PATIENCE).await.unwrap_err();
    client
        .seen(|status| status.trouble == Some(Trouble::UnknownMaster))
        .await;
}

#[tokio::test]
async fn sentinels_that_are_away_do_not_keep_an_app_from_starting() {
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hole.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = url(&[silent], "mymaster");
    let seawall = Seawall::builder(&url, dir.path())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let receipt = seawall
        .enqueue(seawall::Job::new("emails", "hello"))
        .await
        .unwrap();
    assert_eq!(receipt.place(), seawall::spool::Place::Spooled);
    let status = seawall.connection().status();
    assert!(!status.borrow().up);
}

#[tokio::test]
async fn a_name_with_another_master_than_before_is_followed_by_all_that_say_so() {
    let (one, other) = (
        RedisServer::start().await.unwrap(),
        RedisServer::start().await.unwrap(),
    );
    let sentinels = [
        FakeSentinel::start(one.addr(), 7).await,
        FakeSentinel::start(one.addr(), 7).await,
    ];
    let addrs: Vec<_> = sentinels.iter().map(FakeSentinel::addr).collect();
    let poll = Duration::from_millis(20);
    let client = Client::ready(options(&url(&addrs, "m")).with_sentinel_poll(poll)).await;
    // Reset by hand: the epochs begin at 0 again.
    sentinels
        .iter()
        .for_each(|sentinel| sentinel.says(other.addr(), 0));
    client.counted("seawall_failovers_total", "", 1.0).await;
    assert_eq!(client.port().await, other.port());
}

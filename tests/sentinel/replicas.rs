//! Reads from replicas, for calls that ask for them.

use parking_lot::Mutex;
use redis::{Cmd, cmd};
use seawall::{
    RedisCall,
    chaos::{SentinelSet, wait_until},
    connect::Connection,
};
use tower::ServiceExt;

use super::{Client, PATIENCE, options};

const READS: &str = "seawall_replica_reads_total";

async fn set() -> SentinelSet {
    let set = SentinelSet::builder().replicas(1).sentinels(1);
    let set = set.start().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    set
}

/// The port of the server that a read by replica is answered by: keys say where they are.
async fn read(connection: &Connection, command: &mut Cmd) -> Option<String> {
    let call = RedisCall::new("read", command.take()).with_replica_read();
    let reply = connection.clone().oneshot(call).await.unwrap();
    reply.decode().unwrap()
}

#[tokio::test]
async fn only_calls_that_ask_for_it_and_only_read_are_answered_by_replicas() {
    let set = set().await;
    let client = Client::ready(options(&set.url()).with_replica_reads(true)).await;
    wait_until("a read by a replica", PATIENCE, || async {
        read(&client.connection, cmd("GET").arg("k")).await;
        client.metric(READS, "replica") > 0.0
    })
    .await
    .unwrap();
    let before = client.metric(READS, "replica");
    // It asks, and writes: the master has it.
    let call = RedisCall::new("write", cmd("SET").arg("k").arg(1).take()).with_replica_read();
    client.connection.clone().oneshot(call).await.unwrap();
    // It reads, and does not ask.
    client.send(cmd("GET").arg("k")).await.unwrap();
    assert_eq!(client.metric(READS, "replica"), before);
    let gets = commandstats(&set, 1).await;
    read(&client.connection, cmd("GET").arg("k")).await;
    assert_eq!(commandstats(&set, 1).await, gets + 1);
    // What a replica refuses for good is the answer.
    let wrong = RedisCall::new("read", cmd("LLEN").arg("k").take()).with_replica_read();
    set.wait_until_replicated().await.unwrap();
    let error = client.connection.clone().oneshot(wrong).await.unwrap_err();
    assert_eq!(error.verdict().class, seawall::classify::Class::Permanent);
}

/// How many GETs a node has answered.
async fn commandstats(set: &SentinelSet, node: usize) -> u64 {
    let info = cmd("INFO").arg("commandstats").take();
    let said = Mutex::new(String::new());
    // A server that is made a replica cuts its clients off.
    wait_until("an answer", PATIENCE, || async {
        let answer: Option<String> = set.node(node).command(&info).await.ok();
        let answered = answer.is_some();
        *said.lock() = answer.unwrap_or_default();
        answered
    })
    .await
    .unwrap();
    let said = said.into_inner();
    let gets = said
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    gets.map_or(0, |gets| gets.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn by_default_no_replica_is_asked_and_none_is_connected_to() {
    let set = set().await;
    let client = Client::of(&set).await;
    read(&client.connection, cmd("GET").arg("k")).await;
    assert_eq!(
        client.metric(READS, "replica") + client.metric(READS, "master"),
        0.0
    );
    let list = cmd("CLIENT").arg("LIST").take();
    let clients: String = set.node(1).command(&list).await.unwrap();
    assert!(!clients.contains("name=seawall"), "{clients}");
}

#[tokio::test]
async fn the_master_answers_for_a_replica_that_is_frozen_killed_or_promoted() {
    let mut set = set().await;
    let client = Client::ready(options(&set.url()).with_replica_reads(true)).await;
    client.write(1).await.unwrap();
    set.wait_until_replicated().await.unwrap();
    let by_replica = || async {
        let before = client.metric(READS, "replica");
        let answer = read(&client.connection, cmd("GET").arg("k")).await;
        assert_eq!(answer.as_deref(), Some("1"));
        client.metric(READS, "replica") > before
    };
    let by_master = || async { !by_replica().await };
    wait_until("reads by the replica", PATIENCE, by_replica)
        .await
        .unwrap();
    // Each read is answered all the while.
    set.node(1).freeze().await.unwrap();
    wait_until("reads by the master", PATIENCE, by_master)
        .await
        .unwrap();
    set.node(1).thaw().unwrap();
    wait_until("reads by the replica again", PATIENCE, by_replica)
        .await
        .unwrap();
    set.node_mut(1).kill().await.unwrap();
    wait_until("reads by the master", PATIENCE, by_master)
        .await
        .unwrap();
    set.node_mut(1).restart().await.unwrap();
    wait_until("reads by the replica again", PATIENCE, by_replica)
        .await
        .unwrap();
    set.wait_until_healthy().await.unwrap();
    set.failover().await.unwrap();
    assert_eq!(set.wait_for_primary_other_than(0).await.unwrap(), 1);
    client.counted("seawall_failovers_total", "", 1.0).await;
    // The old master is the replica now.
    let gets = commandstats(&set, 0).await;
    wait_until("reads by the old master", PATIENCE, || async {
        let call = RedisCall::new("read", cmd("GET").arg("k").take()).with_replica_read();
        let _ = client.connection.clone().oneshot(call).await;
        commandstats(&set, 0).await > gets
    })
    .await
    .unwrap();
}

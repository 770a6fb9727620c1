//! What a Redis Cluster says to a client that does not know it is one.

use seawall::chaos::{RedisServer, wait_until};

use crate::support::{
    NOT_NOW, OUTAGE, PERMANENT, PLENTY, call, chain, connection, pipeline, refusal, send,
    server_with, tell, transaction,
};

async fn node() -> RedisServer {
    server_with(&[("cluster-enabled", "yes")]).await
}

async fn has_state_ok(redis: &RedisServer) {
    let ok = async || {
        let info: String = redis
            .command(redis::cmd("CLUSTER").arg("INFO"))
            .await
            .unwrap();
        info.contains("cluster_state:ok")
    };
    wait_until("a cluster that is well", PLENTY, ok)
        .await
        .unwrap();
}

async fn id(redis: &RedisServer) -> String {
    redis
        .command(redis::cmd("CLUSTER").arg("MYID"))
        .await
        .unwrap()
}

async fn slot(redis: &RedisServer, key: &str) -> u16 {
    redis
        .command(redis::cmd("CLUSTER").arg("KEYSLOT").arg(key))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_cluster_that_serves_no_slots_is_an_outage() {
    let redis = node().await;
    let connection = connection(&redis.url()).await;
    for refused in [
        call("SET a 1"),
        transaction(&["SET a 1"]),
        pipeline(&["SET a 1"]),
    ] {
        let error = refusal(&connection, refused).await;
        assert_eq!(error.verdict(), OUTAGE, "{}", chain(&error));
        assert!(chain(&error).contains("CLUSTERDOWN"), "{}", chain(&error));
    }
    tell(&redis, "CLUSTER ADDSLOTSRANGE 0 16383").await;
    has_state_ok(&redis).await;
    send(&connection, call("SET a 1")).await.expect("it is up");
    let error = refusal(&connection, call("MSET a 1 b 2")).await;
    assert_eq!(error.verdict(), PERMANENT);
    assert!(chain(&error).contains("CROSSSLOT"), "{}", chain(&error));
}

/// They pass by themselves: the map of the cluster is being changed.
#[tokio::test]
async fn a_slot_on_the_move_is_transient() {
    let (here, there) = tokio::join!(node(), node());
    let slot = slot(&here, "{q}1").await;
    tell(&here, &format!("CLUSTER MEET 127.0.0.1 {}", there.port())).await;
    tell(&here, "CLUSTER ADDSLOTSRANGE 0 16383").await;
    has_state_ok(&here).await;
    let there = id(&there).await;
    let knows = async || {
        let nodes: String = here
            .command(redis::cmd("CLUSTER").arg("NODES"))
            .await
            .unwrap();
        nodes.contains(&there)
    };
    wait_until("the other node", PLENTY, knows).await.unwrap();
    let connection = connection(&here.url()).await;
    send(&connection, call("SET {q}1 x")).await.unwrap();
    tell(&here, &format!("CLUSTER SETSLOT {slot} MIGRATING {there}")).await;
    #[rustfmt::skip]
    let moving = [
        ("ASK",      call("GET {q}2")),
        ("TRYAGAIN", call("MGET {q}1 {q}2")),
        ("TRYAGAIN", pipeline(&["MGET {q}1 {q}2"])),
        ("ASK",      transaction(&["GET {q}2"])),
    ];
    for (code, refused) in moving {
        let error = refusal(&connection, refused).await;
        assert_eq!(error.verdict(), NOT_NOW, "{}", chain(&error));
        assert!(chain(&error).contains(code), "{}", chain(&error));
    }
    tell(&here, "DEL {q}1").await;
    tell(&here, &format!("CLUSTER SETSLOT {slot} NODE {there}")).await;
    let error = refusal(&connection, call("GET {q}2")).await;
    assert_eq!(error.verdict(), NOT_NOW, "{}", chain(&error));
    assert!(chain(&error).contains("MOVED"), "{}", chain(&error));
}

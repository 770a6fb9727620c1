//! The cluster of the chaos kit does what it says.

use seawall::chaos::{RedisCluster, wait_until};

use crate::support::{PLENTY, cmd};

#[tokio::test]
async fn the_kits_cluster_fails_over_by_command_and_by_itself() {
    let mut cluster = RedisCluster::start().await.unwrap();
    cluster.command::<()>("a", &cmd("SET a 1")).await.unwrap();
    let first = cluster.owner_of("a").await.unwrap();
    let replica = cluster.replica_of(first).await.unwrap();
    cluster.failover(replica).await.unwrap();
    cluster.wait_until_ok().await.unwrap();
    assert_eq!(cluster.owner_of("a").await.unwrap(), replica);
    assert_eq!(cluster.command::<u8>("a", &cmd("GET a")).await, Ok(1));

    cluster.freeze(replica).await.unwrap();
    wait_until("a failover", PLENTY, || async {
        cluster.owner_of("a").await == Ok(first)
    })
    .await
    .unwrap();
    cluster.thaw(replica).unwrap();
    cluster.wait_until_ok().await.unwrap();
    assert_eq!(cluster.replica_of(first).await, Ok(replica));
}

#[tokio::test]
async fn the_kits_cluster_moves_a_slot_in_steps() {
    let cluster = RedisCluster::builder()
        .replicas(0)
        .password("s3cret: \"word\"")
        .start()
        .await
        .unwrap();
    let from = cluster.owner_of("{q}").await.unwrap();
    let to = (from + 1) % 3;
    for key in ["{q}1", "{q}2"] {
        let set = redis::cmd("SET").arg(key).arg("x").to_owned();
        cluster.command::<()>("{q}", &set).await.unwrap();
    }
    let slot = cluster.slot_of("{q}").await.unwrap();
    let migration = cluster.begin_migration(slot, from, to).await.unwrap();
    migration.move_these(&cluster, &["{q}1"]).await.unwrap();
    let get = async |line: &str| {
        let answer = cluster.node(from).command::<redis::Value>(&cmd(line)).await;
        answer
            .err()
            .and_then(|error| error.code().map(str::to_owned))
    };
    assert_eq!(get("GET {q}1").await.as_deref(), Some("ASK"));
    assert_eq!(get("MGET {q}1 {q}2").await.as_deref(), Some("TRYAGAIN"));
    assert_eq!(get("GET {q}2").await, None);
    while migration.move_keys(&cluster, 1).await.unwrap() > 0 {}
    migration.finish(&cluster).await.unwrap();
    cluster.wait_until_ok().await.unwrap();
    assert_eq!(cluster.owner_of("{q}1").await, Ok(to));
    assert_eq!(get("GET {q}1").await.as_deref(), Some("MOVED"));
}

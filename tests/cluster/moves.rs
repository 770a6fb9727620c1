//! Slots that change their node while they are written to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use seawall::{
    Job,
    chaos::{RedisCluster, wait_until},
    job::Destination,
    sequence::Command,
};

use crate::support::{Line, PLENTY, call, clean, cmd, connection, list, more, send, under_load};

#[tokio::test]
async fn a_failover_by_command_under_load_loses_and_doubles_nothing() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let line = Line::to(&cluster).await;
    let queues: Vec<String> = (0..6).map(|number| format!("q{number}")).collect();
    let before = line.seawall.connection().status().borrow().generation;
    let balance = under_load(&mut cluster, &line, &queues, async |cluster, accepted| {
        for queue in ["q0", "q1", "q2"] {
            more(accepted, 50).await;
            let primary = cluster.owner_of(queue).await.unwrap();
            let replica = cluster.replica_of(primary).await.unwrap();
            cluster.failover(replica).await.unwrap();
            cluster.wait_until_ok().await.unwrap();
            more(accepted, 50).await;
            assert_eq!(cluster.owner_of(queue).await, Ok(replica));
        }
    })
    .await;
    clean(&balance);
    let after = line.seawall.connection().status().borrow().generation;
    assert!(after > before, "a new primary is a new generation");
}

/// ASK, TRYAGAIN and MOVED, each for as long as it takes to be met.
#[tokio::test]
async fn a_slot_that_moves_in_the_middle_of_a_lane_loses_and_doubles_nothing() {
    let mut cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    let queues = ["{q}1".to_owned(), "{q}2".to_owned(), "other".to_owned()];
    let balance = under_load(&mut cluster, &line, &queues, async |cluster, accepted| {
        let slot = cluster.slot_of("{q}").await.unwrap();
        for _ in 0..3 {
            more(accepted, 100).await;
            let from = cluster.owner_of_slot(slot).await.unwrap();
            let migration = cluster
                .begin_migration(slot, from, (from + 1) % 3)
                .await
                .unwrap();
            more(accepted, 50).await;
            // The list without its lane: neither node has both.
            migration.move_these(cluster, &["{q}1"]).await.unwrap();
            more(accepted, 50).await;
            while migration.move_keys(cluster, 10).await.unwrap() > 0 {}
            more(accepted, 50).await;
            migration.finish(cluster).await.unwrap();
        }
    })
    .await;
    clean(&balance);
}

/// The keys of a group are not all there yet when the slot begins to move.
#[tokio::test]
async fn groups_of_commands_survive_a_slot_that_moves() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    let done = AtomicBool::new(false);
    let accepted = AtomicU64::new(0);
    let producer = async {
        let mut number = 0_u64;
        while !done.load(Relaxed) {
            let group = vec![
                Command::new("INCR").arg("{g}:count"),
                Command::new("HSET")
                    .arg(format!("{{g}}:job:{number}"))
                    .arg("state")
                    .arg("queued"),
                Command::new("RPUSH")
                    .arg("{g}:list")
                    .arg(number.to_string()),
            ];
            let job = Job::new("{g}", "").with_destination(Destination::commands(group));
            let _receipt = line.seawall.enqueue(job).await.unwrap();
            number += 1;
            accepted.store(number, Relaxed);
        }
        number
    };
    let nemesis = async {
        let slot = cluster.slot_of("{g}").await.unwrap();
        more(&accepted, 50).await;
        let from = cluster.owner_of_slot(slot).await.unwrap();
        let migration = cluster
            .begin_migration(slot, from, (from + 1) % 3)
            .await
            .unwrap();
        more(&accepted, 20).await;
        migration
            .move_these(&cluster, &["{g}:count"])
            .await
            .unwrap();
        more(&accepted, 20).await;
        while migration.move_keys(&cluster, 10).await.unwrap() > 0 {}
        migration.finish(&cluster).await.unwrap();
        more(&accepted, 50).await;
        done.store(true, Relaxed);
    };
    let (count, ()) = futures_util::join!(producer, nemesis);
    line.drained().await;
    assert_eq!(line.seawall.health().spool.parked, 0);
    cluster.wait_until_ok().await.unwrap();
    assert_eq!(list(&cluster, "{g}:list").await, Vec::from_iter(0..count));
    let counted: u64 = cluster.command("{g}", &cmd("GET {g}:count")).await.unwrap();
    assert_eq!(counted, count);
}

#[tokio::test]
async fn a_call_follows_its_slot_and_is_done_once() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let connection = connection(&cluster.url()).await;
    let slot = cluster.slot_of("n").await.unwrap();
    let from = cluster.owner_of_slot(slot).await.unwrap();
    let to = (from + 1) % 3;
    let incr = async || {
        let reply = send(&connection, call("INCR n")).await.unwrap();
        reply.decode::<u64>().unwrap()
    };
    assert_eq!(incr().await, 1);
    let migration = cluster.begin_migration(slot, from, to).await.unwrap();
    assert_eq!(incr().await, 2, "it is still there");
    while migration.move_keys(&cluster, 10).await.unwrap() > 0 {}
    assert_eq!(incr().await, 3, "ASK");
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("INCR").arg("n").cmd("INCR").arg("n");
    let error = send(&connection, seawall::RedisCall::new("two", pipe.clone()))
        .await
        .unwrap_err();
    assert!(
        error.is_transient() && !error.may_have_landed(),
        "{error:?}"
    );
    migration.finish(&cluster).await.unwrap();
    assert_eq!(incr().await, 4, "MOVED");
    cluster.migrate_slot(slot, to, from).await.unwrap();
    let answers: Vec<u64> = send(&connection, seawall::RedisCall::new("two", pipe))
        .await
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(answers, [5, 6], "MOVED, for a transaction");
}

/// A node that joins has no slot, and so is in no map that a client reads.
#[tokio::test]
async fn a_script_is_loaded_again_on_the_node_that_its_slot_moves_to() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    line.enqueue("q", 0..10).await;
    let slot = cluster.slot_of("q").await.unwrap();
    let from = cluster.owner_of_slot(slot).await.unwrap();
    for step in 1..4 {
        let (from, to) = ((from + step - 1) % 3, (from + step) % 3);
        cluster
            .node(to)
            .command::<()>(&cmd("SCRIPT FLUSH"))
            .await
            .unwrap();
        let migration = cluster.begin_migration(slot, from, to).await.unwrap();
        while migration.move_keys(&cluster, 10).await.unwrap() > 0 {}
        line.enqueue("q", step as u64 * 10..step as u64 * 10 + 5)
            .await;
        migration.finish(&cluster).await.unwrap();
        line.enqueue("q", step as u64 * 10 + 5..step as u64 * 10 + 10)
            .await;
    }
    line.drained().await;
    wait_until("an agreement", PLENTY, || async {
        cluster.owner_of_slot(slot).await == Ok(from)
    })
    .await
    .unwrap();
    assert_eq!(list(&cluster, "q").await, Vec::from_iter(0..40));
}

//! Nodes that are killed, frozen or cut off from the majority.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rand::Rng;
use seawall::{
    chaos::{RedisCluster, wait_until},
    connect::Trouble,
};

use crate::{
    seeds::{dice, seeds},
    support::{
        Line, PLENTY, call, clean, connection, key_of_each, list, more, replicated, send,
        under_load,
    },
};

fn queues() -> Vec<String> {
    (0..6).map(|number| format!("q{number}")).collect()
}

/// What the replica had is all there is to be lost, and it had everything.
async fn a_primary_goes(
    how: impl AsyncFn(&mut RedisCluster, usize),
    back: impl AsyncFn(&mut RedisCluster, usize),
) {
    let mut cluster = RedisCluster::start().await.unwrap();
    let line = Line::to(&cluster).await;
    for queue in queues() {
        line.enqueue(&queue, 0..20).await;
    }
    replicated(&cluster).await;
    let gone = cluster.owner_of("q0").await.unwrap();
    let replica = cluster.replica_of(gone).await.unwrap();
    how(&mut cluster, gone).await;
    // Into the outage, through it, and after it.
    let balance = under_load(
        &mut cluster,
        &line,
        &queues_of("r"),
        async |cluster, accepted| {
            wait_until("a new primary", PLENTY, || async {
                cluster.owner_of("q0").await == Ok(replica)
            })
            .await
            .unwrap();
            more(accepted, 500).await;
            back(cluster, gone).await;
            more(accepted, 500).await;
        },
    )
    .await;
    clean(&balance);
    for queue in queues() {
        line.enqueue(&queue, 20..40).await;
    }
    line.drained().await;
    for queue in queues() {
        assert_eq!(
            list(&cluster, &queue).await,
            Vec::from_iter(0..40),
            "{queue}"
        );
    }
}

fn queues_of(prefix: &str) -> Vec<String> {
    (0..6).map(|number| format!("{prefix}{number}")).collect()
}

#[tokio::test]
async fn a_primary_that_is_killed_is_followed_by_its_replica() {
    a_primary_goes(
        async |cluster, node| cluster.kill(node).await.unwrap(),
        async |cluster, node| cluster.restart(node).await.unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_primary_that_is_frozen_is_followed_by_its_replica() {
    a_primary_goes(
        async |cluster, node| cluster.freeze(node).await.unwrap(),
        async |cluster, node| cluster.thaw(node).unwrap(),
    )
    .await;
}

/// Nobody waits for a node that is none of his, be it dead or silent.
#[tokio::test]
async fn a_dead_or_frozen_node_holds_up_no_call_to_another() {
    let mut cluster = RedisCluster::builder()
        .replicas(0)
        .node_timeout(Duration::from_secs(60))
        .arg("cluster-require-full-coverage", "no")
        .start()
        .await
        .unwrap();
    let line = Line::to(&cluster).await;
    let keys = key_of_each(&cluster, 3).await;
    for frozen in [false, true] {
        if frozen {
            cluster.freeze(0).await.unwrap();
        } else {
            cluster.kill(0).await.unwrap();
        }
        let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
        let of_the_lost = async {
            while !stop.load(Relaxed) {
                let read = call(&format!("GET {}", keys[0]));
                if line.seawall.call(read).await.is_err() {
                    failed.fetch_add(1, Relaxed);
                }
            }
        };
        let of_the_others = async {
            // Until the lost one has been given up, and for a while after.
            while failed.load(Relaxed) < 5 {
                for key in &keys[1..] {
                    let incr = call(&format!("INCR {key}"));
                    line.seawall.call(incr).await.expect("its node is up");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.store(true, Relaxed);
        };
        futures_util::join!(of_the_lost, of_the_others);
        assert!(line.seawall.health().up);
        let error = line.seawall.call(call(&format!("GET {}", keys[0]))).await;
        assert!(
            !error.unwrap_err().is_outage(),
            "the breaker is one for all"
        );
        if frozen {
            cluster.thaw(0).unwrap();
        } else {
            cluster.restart(0).await.unwrap();
        }
        wait_until("an answer", PLENTY, || async {
            let read = call(&format!("GET {}", keys[0]));
            line.seawall.call(read).await.is_ok()
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn jobs_wait_for_a_cluster_without_a_majority_and_then_go() {
    let mut cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    let mut status = line.seawall.connection().status();
    let balance = under_load(&mut cluster, &line, &queues(), async |cluster, accepted| {
        more(accepted, 50).await;
        for node in [0, 1] {
            cluster.freeze(node).await.unwrap();
        }
        let down = status.wait_for(|status| status.trouble == Some(Trouble::ClusterDown));
        drop(tokio::time::timeout(PLENTY, down).await.unwrap().unwrap());
        more(accepted, 200).await;
        for node in [0, 1] {
            cluster.thaw(node).unwrap();
        }
        cluster.wait_until_ok().await.unwrap();
        let up = status.wait_for(|status| status.up);
        drop(tokio::time::timeout(PLENTY, up).await.unwrap().unwrap());
    })
    .await;
    clean(&balance);
}

#[tokio::test]
async fn a_cluster_whose_seeds_are_all_gone_is_found_by_the_nodes_that_were_learnt() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let connection = connection(&cluster.url_of(&[0])).await;
    replicated(&cluster).await;
    cluster.kill(0).await.unwrap();
    let key = key_of_each_but(&cluster, 0).await;
    wait_until("an answer through the successor", PLENTY, || async {
        send(&connection, call(&format!("GET {key}"))).await.is_ok()
            && cluster.owner_of(&key).await.is_ok_and(|owner| owner != 0)
    })
    .await
    .unwrap();
    cluster.wait_until_ok().await.unwrap();
    connection.wait_ready(PLENTY).await.unwrap();
    for key in ["a", "b", "c", "d"] {
        send(&connection, call(&format!("SET {key} 1")))
            .await
            .unwrap();
    }
}

/// A key whose node is not this one.
async fn key_of_each_but(cluster: &RedisCluster, node: usize) -> String {
    for number in 0.. {
        let key = format!("k{number}");
        if cluster
            .owner_of(&key)
            .await
            .is_ok_and(|owner| owner != node)
        {
            return key;
        }
    }
    unreachable!("there are other nodes")
}

/// All that was acknowledged is on disk, so any loss or double would be ours.
#[tokio::test]
async fn kills_freezes_and_moves_lose_and_double_nothing() {
    let mut cluster = RedisCluster::builder()
        .replicas(0)
        .durable()
        .start()
        .await
        .unwrap();
    for seed in seeds(4) {
        let mut dice = dice(seed);
        let line = Line::to(&cluster).await;
        let queues = queues_of(&format!("s{seed}:"));
        let balance = under_load(&mut cluster, &line, &queues, async |cluster, accepted| {
            for _ in 0..5 {
                more(accepted, dice.random_range(1..100)).await;
                let node = dice.random_range(0..3);
                match dice.random_range(0..3) {
                    0 => {
                        cluster.kill(node).await.unwrap();
                        more(accepted, dice.random_range(0..50)).await;
                        cluster.restart(node).await.unwrap();
                    }
                    1 => {
                        cluster.freeze(node).await.unwrap();
                        more(accepted, dice.random_range(0..50)).await;
                        cluster.thaw(node).unwrap();
                    }
                    _ => {
                        let queue = &queues[dice.random_range(0..queues.len())];
                        let slot = cluster.slot_of(queue).await.unwrap();
                        let from = cluster.owner_of_slot(slot).await.unwrap();
                        cluster
                            .migrate_slot(slot, from, (from + 1) % 3)
                            .await
                            .unwrap();
                    }
                }
                cluster.wait_until_ok().await.unwrap();
            }
        })
        .await;
        assert!(
            balance.is_clean() && balance.lost == 0,
            "seed {seed}: {balance}"
        );
    }
}

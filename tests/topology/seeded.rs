//! Anything that can happen to two deployments and one process, by seeds.

use std::time::Duration;

use rand::{Rng as _, rngs::SmallRng};
use seawall::{Seawall, chaos::RedisServer, spool::Replay};

use crate::{
    seeds::{dice, seeds},
    support::{PLENTY, Pair, active, drained, until},
};

/// However servers die, freeze and come back, and the process with them: each job is in the deployment that
/// was active when it was handed in, once and in order.
#[tokio::test]
async fn whatever_happens_each_deployment_has_its_own_once_and_in_order() {
    for seed in seeds(6) {
        one(seed).await;
    }
}

async fn one(seed: u64) {
    let mut dice = dice(seed);
    let mut pair = Pair::new().await;
    let mut seawall = open(&pair).await;
    for _ in 0..25 {
        match dice.random_range(0..10) {
            0 | 1 => strike(&mut dice, &mut pair.a).await,
            2 | 3 => strike(&mut dice, &mut pair.b).await,
            4 => {
                let before = active(&seawall);
                // It may never come to that, and then something else happens next.
                let switched = until("a switch", || active(&seawall) != before);
                let _ = tokio::time::timeout(Duration::from_millis(500), switched).await;
            }
            5 => {
                let within = Duration::from_millis(dice.random_range(0..50));
                let left = seawall.shutdown(within).await.unwrap();
                drop(seawall);
                seawall = open(&pair).await;
                let found: u64 = seawall
                    .targets()
                    .map(|target| target.spool().stats().records)
                    .sum();
                // Some may have been delivered while it was being opened.
                assert!(found <= left, "seed {seed}: {found} found, {left} left");
            }
            _ => {
                let count = dice.random_range(1..60);
                let _ = pair.hand_in_many(&seawall, count).await;
            }
        }
    }
    for redis in [&mut pair.a, &mut pair.b] {
        recover(redis).await;
    }
    drained(&seawall).await;
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0, "seed {seed}");
    pair.judge_of(&format!("seed {seed}")).await;
}

async fn open(pair: &Pair) -> Seawall {
    let builder = pair.builder(pair.topology());
    let builder = builder.spool(|spool| {
        let replay = Replay::unpaced();
        spool
            .with_spool_after(Duration::from_millis(50))
            .with_replay(replay.with_delays(Duration::from_millis(2), Duration::from_millis(20)))
    });
    builder.connect().await.unwrap()
}

/// Kills it, freezes it, or ends that.
async fn strike(dice: &mut SmallRng, redis: &mut RedisServer) {
    if dice.random() {
        recover(redis).await;
    } else if dice.random() && redis.is_running() {
        redis.freeze().await.unwrap();
    } else {
        redis.kill().await.unwrap();
    }
}

async fn recover(redis: &mut RedisServer) {
    if redis.is_running() {
        redis.thaw().unwrap();
    } else {
        redis.restart().await.unwrap();
    }
}

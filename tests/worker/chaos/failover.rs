//! A primary that dies with what its replicas do not have: starts of executions, and their ends.

use rand::Rng as _;
use seawall::chaos::SentinelSet;

use super::{
    crew::Plan::{Fails, Takes},
    diary::now,
    judge::{Cause, Deed},
    scene::Scene,
    seeds::{dice, seeds},
};

#[tokio::test]
async fn every_job_ends_although_a_failover_loses_starts_and_ends_of_executions() {
    for seed in seeds(1) {
        let mut dice = dice(seed);
        let set = SentinelSet::builder().replicas(1).durable().proxied();
        let mut set = set.start().await.unwrap();
        set.wait_until_healthy().await.unwrap();
        let mut scene = Scene::new(&set.url(), "jobs").await;
        let first = scene.start(scene.orders("first")).await;
        let second = scene.start(scene.orders("second")).await;
        scene
            .enqueue((0..100).map(|_| Takes(dice.random_range(0..40))))
            .await;
        first.says_of("begun", 10).await;

        let old = set.primary().await.unwrap();
        let from = now();
        set.cut_replication(old);
        let done = first.count("succeeded") + second.count("succeeded");
        let plans = (0..200).map(|at| match at % 10 {
            0 => Fails(1),
            _ => Takes(dice.random_range(0..40)),
        });
        scene.enqueue(plans).await;
        first
            .says_of("succeeded", done / 2 + dice.random_range(20..60))
            .await;
        set.kill_primary().await.unwrap();
        set.wait_for_primary_other_than(old).await.unwrap();
        scene.deeds.lock().push(Deed {
            cause: Cause::FailedOver,
            worker: None,
            from,
            to: now(),
        });
        set.heal();
        set.revive().await.unwrap();

        scene.settled().await;
        // What no replica has yet would be kept on disk.
        set.wait_until_replicated().await.unwrap();
        first.stop().await;
        second.stop().await;
        let balance = scene.balance().await;
        balance.must_be_clean(&format!("failover, seed {seed}"));
        assert_eq!(balance.succeeded, 300, "{balance}");
    }
}

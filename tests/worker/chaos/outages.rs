//! A Redis that is killed or frozen while handlers run. No job is executed twice for that.

use std::time::Duration;

use seawall::chaos::{RedisServer, wait_until};
use tokio::time::sleep;

use super::{
    PLENTY,
    crew::Plan::{Held, Takes},
    scene::Scene,
};

#[tokio::test]
async fn what_ends_while_redis_is_dead_is_not_executed_again() {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 8]).await;
    let mut worker = scene.start(scene.orders("worker")).await;
    let mut other = scene.start(scene.orders("other")).await;
    all_begun(&redis).await;

    redis.kill().await.unwrap();
    worker.go().await;
    other.go().await;
    let done = || async { worker.count("succeeded") + other.count("succeeded") == 8 };
    wait_until("all handlers to end", PLENTY, done)
        .await
        .unwrap();
    sleep(LONGER_THAN_A_LEASE).await;
    redis.restart().await.unwrap();

    scene.settled().await;
    worker.stop().await;
    other.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("Redis dead at the end");
    assert_eq!((balance.succeeded, balance.executions), (8, 8), "{balance}");
}

#[tokio::test]
async fn what_is_under_way_while_redis_is_dead_is_not_executed_again() {
    under_way_in_an_outage(true).await;
}

#[tokio::test]
async fn what_is_under_way_while_redis_is_frozen_is_not_executed_again() {
    under_way_in_an_outage(false).await;
}

async fn under_way_in_an_outage(dead: bool) {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 8]).await;
    let mut worker = scene.start(scene.orders("worker")).await;
    let mut other = scene.start(scene.orders("other")).await;
    all_begun(&redis).await;
    if dead {
        redis.kill().await.unwrap();
        sleep(LONGER_THAN_A_LEASE).await;
        redis.restart().await.unwrap();
    } else {
        redis.freeze().await.unwrap();
        sleep(LONGER_THAN_A_LEASE).await;
        redis.thaw().unwrap();
    }
    // Time enough for each to take over what the other has left, had it left any.
    scene.enqueue([Takes(10); 8]).await;
    sleep(2 * LONGER_THAN_A_LEASE).await;
    worker.go().await;
    other.go().await;
    scene.settled().await;
    worker.stop().await;
    other.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("Redis away in the middle");
    assert_eq!(
        (balance.succeeded, balance.executions),
        (16, 16),
        "{balance}"
    );
}

#[tokio::test]
async fn what_a_killed_worker_had_on_its_disk_is_not_executed_again() {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 8]).await;
    let mut first = scene.start(scene.orders("first")).await;
    first.says_of("begun", 8).await;
    redis.kill().await.unwrap();
    first.go().await;
    first.says_of("succeeded", 8).await;
    first.says("kept 8").await;
    first.kill().await;

    redis.restart().await.unwrap();
    let mut orders = scene.orders("second");
    orders.spool = scene.orders("first").spool;
    orders.goes = true;
    let second = scene.start(orders).await;
    scene.settled().await;
    second.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("completions on the disk of a killed worker");
    assert_eq!((balance.succeeded, balance.executions), (8, 8), "{balance}");
}

/// Waits until Redis has heard of eight executions.
async fn all_begun(redis: &RedisServer) {
    let running = redis::cmd("HLEN").arg("seawall:{jobs}:running").to_owned();
    let all_begun = || async { redis.command::<u64>(&running).await == Ok(8) };
    wait_until("all jobs to begin", PLENTY, all_begun)
        .await
        .unwrap();
}

/// That of [`Orders`](super::crew::Orders).
const LONGER_THAN_A_LEASE: Duration = Duration::from_millis(1_500);

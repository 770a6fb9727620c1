//! Workers that are killed -9.

use seawall::chaos::RedisServer;

use super::{
    crew::Plan::{Fails, Held, Takes},
    judge::Cause,
    scene::Scene,
};

#[tokio::test]
async fn jobs_whose_worker_is_killed_at_their_start_are_done_by_another() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 12]).await;
    let mut first = scene.start(scene.orders("first")).await;
    first.says_of("begun", 1).await;
    first.kill().await;

    let mut orders = scene.orders("second");
    orders.goes = true;
    let second = scene.start(orders).await;
    scene.settled().await;
    second.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("killed at the start");
    assert_eq!(balance.succeeded, 12, "{balance}");
    assert!((1..=8).contains(&balance.again(Cause::Killed)), "{balance}");
}

#[tokio::test]
async fn jobs_whose_worker_is_killed_in_the_middle_are_done_by_another() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 12]).await;
    let mut first = scene.start(scene.orders("first")).await;
    first.says_of("begun", 8).await;
    // It is alive and working when its successor comes.
    let mut orders = scene.orders("second");
    (orders.goes, orders.concurrency) = (true, 2);
    let second = scene.start(orders).await;
    second.says_of("succeeded", 4).await;
    first.kill().await;

    scene.settled().await;
    second.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("killed in the middle");
    assert_eq!(balance.succeeded, 12, "{balance}");
    // Exactly those that it had begun.
    assert_eq!(balance.again(Cause::Killed), 8, "{balance}");
    assert_eq!(balance.executions, 20, "{balance}");
}

#[tokio::test]
async fn jobs_whose_worker_is_killed_at_their_end_are_neither_lost_nor_all_done_again() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue(vec![Takes(0); 3_000]).await;
    let mut first = scene.start(scene.orders("first")).await;
    first.says_of("succeeded", 100).await;
    first.kill().await;

    let second = scene.start(scene.orders("second")).await;
    scene.settled().await;
    second.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("killed at the end");
    assert_eq!(balance.succeeded, 3_000, "{balance}");
    // Those whose slots were taken at that moment, and those whose ends were on their way.
    assert!(balance.again(Cause::Killed) < 300, "{balance}");
}

#[tokio::test]
async fn deaths_and_failures_are_both_counted_as_attempts() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held, Fails(2)]).await;
    for (name, begun) in [("first", "begun 1 1"), ("second", "begun 1 2")] {
        let mut worker = scene.start(scene.orders(name)).await;
        worker.says(begun).await;
        worker.kill().await;
    }
    let mut orders = scene.orders("third");
    orders.goes = true;
    let third = scene.start(orders).await;
    // Two executions ended with their workers.
    third.says("succeeded 1 3").await;
    scene.settled().await;
    third.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("killed twice");
    assert_eq!(balance.succeeded, 2, "{balance}");
}

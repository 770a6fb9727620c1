//! Workers that are frozen, or cut off from Redis, for longer than their lease.

use seawall::chaos::{Fault, FaultProxy, RedisServer};

use super::{
    crew::Plan::{Held, Takes},
    diary::now,
    judge::Cause,
    scene::Scene,
};

#[tokio::test]
async fn a_frozen_workers_jobs_are_done_by_another_and_it_is_told() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 4]).await;
    let frozen = scene.start(scene.orders("frozen")).await;
    frozen.says_of("begun", 4).await;
    let since = frozen.freeze();
    let mut orders = scene.orders("other");
    orders.goes = true;
    let other = scene.start(orders).await;
    other.says_of("succeeded", 4).await;
    scene.settled().await;
    frozen.thaw(since);
    other.stop().await;

    // It goes on, under another name.
    scene.enqueue([Takes(1); 20]).await;
    frozen.says_of("succeeded", 20).await;
    scene.settled().await;
    frozen.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("a frozen worker");
    assert_eq!(balance.succeeded, 24, "{balance}");
    assert_eq!(balance.again(Cause::LeaseTaken), 4, "{balance}");
    assert_eq!(scene.counted("succeeded").await, 24);
    // Told, and not left to come to an end in vain.
    assert_eq!(scene.cancelled("frozen"), 4);
}

#[tokio::test]
async fn the_late_end_of_a_job_that_another_has_done_does_no_harm() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    scene.enqueue([Held; 4]).await;
    let mut orders = scene.orders("cut off");
    orders.url = proxy.url();
    let mut cut_off = scene.start(orders).await;
    cut_off.says_of("begun", 4).await;
    let since = now();
    proxy.set(Fault::BlackHole);
    // It comes to its ends while nobody hears of it.
    cut_off.go().await;
    cut_off.says_of("succeeded", 4).await;
    let mut orders = scene.orders("other");
    orders.goes = true;
    let other = scene.start(orders).await;
    other.says_of("succeeded", 4).await;
    scene.settled().await;
    proxy.heal();
    cut_off.did(Cause::LeaseTaken, since, now());
    other.stop().await;

    scene.enqueue([Takes(1); 20]).await;
    cut_off.says_of("succeeded", 24).await;
    scene.settled().await;
    cut_off.stop().await;
    let balance = scene.balance().await;
    balance.must_be_clean("a worker that was cut off");
    assert_eq!(balance.succeeded, 24, "{balance}");
    assert_eq!(balance.again(Cause::LeaseTaken), 4, "{balance}");
    assert_eq!(scene.counted("succeeded").await, 24);
}

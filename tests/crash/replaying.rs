//! Killed while what was spooled goes to Redis, and before it is removed from disk.

use rand::Rng as _;
use seawall::chaos::{Fault, FaultProxy};
use tokio::time::timeout;

use super::{
    PLENTY,
    app::End,
    dice,
    scene::{Scene, durable},
    seeds,
};

#[tokio::test]
async fn an_app_killed_again_and_again_while_it_replays_delivers_once_in_order() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let left = dice.random_range(100..800);
        scene.leave(left).await;
        scene.redis.restart().await.unwrap();
        for _ in 0..dice.random_range(1..=4) {
            let before = scene.delivered().await;
            let mut orders = scene.orders(dice.random_range(0..200));
            orders.replay_rate = Some(dice.random_range(500..20_000));
            orders.max_batch = dice.random_range(1..100);
            let app = scene.start(&orders);
            // What the first app left is there to be delivered even if this one adds nothing.
            let goal = (before + dice.random_range(1..300)).min(left);
            scene.delivered_at_least(goal).await;
            app.kill().await;
        }
        scene.settle(seed).await;
    }
}

/// Removals from disk wait for company, so at the first delivery none has been made.
#[tokio::test]
async fn an_app_killed_between_delivery_and_removal_delivers_nothing_twice() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.leave(dice(seed).random_range(1..150)).await;
        scene.redis.restart().await.unwrap();
        let orders = scene.orders(0);
        let app = scene.start(&orders);
        scene.delivered_at_least(1).await;
        app.kill().await;
        scene.settle(seed).await;
    }
}

#[tokio::test]
async fn a_batch_that_landed_without_a_reply_before_the_kill_is_not_delivered_again() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let left = dice.random_range(200..800);
        scene.leave(left).await;
        scene.redis.restart().await.unwrap();
        let proxy = FaultProxy::start(scene.redis.addr()).await.unwrap();
        for _ in 0..dice.random_range(1..=3) {
            proxy.heal();
            let before = (scene.delivered().await, proxy.dropped_replies());
            let mut orders = scene.orders(0);
            orders.url = proxy.url();
            orders.response_timeout_ms = dice.random_range(20..500);
            orders.max_batch = dice.random_range(8..64);
            orders.replay_rate = Some(1_000);
            let app = scene.start(&orders);
            scene.delivered_at_least((before.0 + 1).min(left)).await;
            proxy.set(Fault::DropReplies);
            // If all was delivered before, the probe of the connection loses its reply.
            let lost = proxy.wait_for(|counts| counts.dropped_replies > before.1);
            timeout(PLENTY, lost).await.unwrap();
            app.kill().await;
        }
        scene.settle(seed).await;
    }
}

/// Shutting down, an app has Redis forget its lane; what was delivered must be off the disk by then.
#[tokio::test]
async fn an_app_killed_after_redis_forgot_its_lane_delivers_nothing_twice() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.redis.kill().await.unwrap();
        let mut orders = scene.orders(dice(seed).random_range(1..60));
        // Redis has nothing from it that could come late.
        orders.end = End::Shutdown(60_000);
        let count = orders.count;
        let mut app = scene.start(&orders);
        app.receipts(count).await;
        scene.redis.restart().await.unwrap();
        scene.delivered_at_least(count).await;
        scene.forgotten().await;
        app.kill().await;
        scene.settle(seed).await;
    }
}

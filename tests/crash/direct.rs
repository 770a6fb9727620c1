//! Killed while jobs go straight to Redis, and their answers are lost.

use rand::Rng as _;
use seawall::chaos::{Fault, FaultProxy};
use tokio::time::timeout;

use super::{
    PLENTY, dice,
    scene::{Scene, durable},
    seeds,
};

/// A job that landed and was never acknowledged is there at most once: that is the books' `recovered`.
#[tokio::test]
async fn an_app_killed_before_it_heard_of_its_deliveries_leaves_each_job_at_most_once() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let proxy = FaultProxy::start(scene.redis.addr()).await.unwrap();
        let mut orders = scene.orders(20_000);
        orders.url = proxy.url();
        orders.window = dice.random_range(1..200);
        orders.spool_after_ms = 60_000;
        orders.max_batch = dice.random_range(1..100);
        let mut app = scene.start(&orders);
        app.receipts(dice.random_range(1..500)).await;
        proxy.set(Fault::DropReplies);
        let lost = proxy.wait_for(|counts| counts.dropped_replies > 0);
        timeout(PLENTY, lost).await.unwrap();
        app.kill().await;
        scene.settle(seed).await;
    }
}

/// The same batch is in Redis and, since nobody knew, on disk.
#[tokio::test]
async fn what_landed_unheard_and_was_spooled_for_it_is_not_delivered_again() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let proxy = FaultProxy::start(scene.redis.addr()).await.unwrap();
        let mut orders = scene.orders(20_000);
        orders.url = proxy.url();
        orders.window = dice.random_range(1..200);
        orders.response_timeout_ms = 20;
        orders.max_batch = dice.random_range(1..100);
        let mut app = scene.start(&orders);
        app.receipts(dice.random_range(1..200)).await;
        proxy.set(Fault::DropReplies);
        app.until("a spooled job", |line| {
            matches!(line, super::app::Line::Spooled(_))
        })
        .await;
        app.receipts(dice.random_range(1..300)).await;
        if dice.random() {
            // Back before the app dies: it is killed with its own replay under way.
            proxy.heal();
            app.receipts(dice.random_range(1..300)).await;
        }
        app.kill().await;
        scene.settle(seed).await;
    }
}

//! Killed while jobs go to disk.

use rand::Rng as _;

use super::{
    dice,
    scene::{Scene, durable},
    seeds,
};

#[tokio::test]
async fn what_an_app_spooled_before_it_was_killed_is_delivered_once_in_order() {
    let mut redis = durable().await;
    for seed in seeds(8) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.redis.kill().await.unwrap();
        for _ in 0..dice.random_range(1..=3) {
            let mut orders = scene.orders(2_000);
            orders.window = dice.random_range(1..200);
            let mut app = scene.start(&orders);
            app.receipts(dice.random_range(1..400)).await;
            app.kill().await;
        }
        scene.settle(seed).await;
    }
}

/// Redis goes while the app runs, so that its lane turns from direct to spooling under load.
#[tokio::test]
async fn an_app_killed_as_its_lane_turns_to_disk_loses_nothing() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let mut orders = scene.orders(20_000);
        orders.window = dice.random_range(1..200);
        orders.max_batch = dice.random_range(1..100);
        let mut app = scene.start(&orders);
        app.receipts(dice.random_range(1..400)).await;
        scene.redis.kill().await.unwrap();
        app.receipts(dice.random_range(1..400)).await;
        app.kill().await;
        scene.settle(seed).await;
    }
}

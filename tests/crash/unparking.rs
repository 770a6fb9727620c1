//! Killed while parked jobs are sent again.

use rand::Rng as _;

use super::{
    app::{End, Line},
    dice,
    scene::{Scene, durable},
    seeds,
};

#[tokio::test]
async fn an_app_killed_again_and_again_while_it_unparks_sends_each_job_once() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.redis.kill().await.unwrap();
        let mut orders = scene.orders(400);
        orders.window = dice.random_range(1..64);
        let queue = orders.queue.clone();
        let mut app = scene.start(&orders);
        app.receipts(dice.random_range(10..200)).await;
        app.kill().await;
        scene.redis.restart().await.unwrap();
        let tell = async |scene: &Scene<'_>, words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            let answered = scene.redis.command::<redis::Value>(&command).await;
            answered.unwrap();
        };
        for _ in 0..dice.random_range(1..5) {
            tell(&scene, &["SET", &queue, "of the wrong type"]).await;
            let mut orders = scene.orders(0);
            orders.end = End::Unpark;
            orders.max_batch = dice.random_range(1..100);
            let mut app = scene.start(&orders);
            for _ in 0..dice.random_range(1..20) {
                app.until("some sent again", |line| matches!(line, Line::Unparked(_)))
                    .await;
            }
            app.kill().await;
        }
        tell(&scene, &["DEL", &queue]).await;
        let mut orders = scene.orders(0);
        orders.end = End::Unpark;
        let mut app = scene.start(&orders);
        app.says(Line::Flushed).await;
        app.kill().await;
        // What was refused at different times is not in the order it came in.
        let balance = scene.read().await;
        assert_eq!(
            (balance.lost, balance.duplicated),
            (0, 0),
            "seed {seed}: {balance}"
        );
    }
}

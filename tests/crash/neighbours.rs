//! Two applications: on one queue, and on one directory.

use rand::Rng as _;

use super::{
    app::{End, Line},
    dice,
    scene::{Scene, durable},
    seeds,
};

#[tokio::test]
async fn two_apps_on_one_queue_each_keep_their_books_through_an_outage() {
    let mut redis = durable().await;
    for seed in seeds(3) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        // More than a pipe holds answers, so that neither is done before Redis goes.
        let mut orders = [scene.orders(6_000), scene.orders(6_000)];
        for (orders, name) in orders.iter_mut().zip(["one", "other"]) {
            orders.name = name.to_owned();
            orders.dir = scene.dir(name);
            orders.window = dice.random_range(1..100);
            orders.end = End::Flush;
        }
        let [mut one, mut other] = [scene.start(&orders[0]), scene.start(&orders[1])];
        one.receipts(dice.random_range(1..400)).await;
        other.receipts(dice.random_range(1..400)).await;
        scene.redis.kill().await.unwrap();
        one.until("a spooled job", |line| matches!(line, Line::Spooled(_)))
            .await;
        other
            .until("a spooled job", |line| matches!(line, Line::Spooled(_)))
            .await;
        one.receipts(dice.random_range(1..200)).await;
        scene.redis.restart().await.unwrap();
        one.says(Line::Flushed).await;
        other.says(Line::Flushed).await;
        one.kill().await;
        other.kill().await;
        let balance = scene.balance(seed).await;
        assert_eq!(
            (balance.acknowledged, balance.delivered),
            (12_000, 12_000),
            "seed {seed}"
        );
    }
}

#[tokio::test]
async fn a_second_app_on_one_directory_is_told_who_has_it_and_the_first_goes_on() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let mut orders = scene.orders(300);
    orders.end = End::Shutdown(60_000);
    orders.window = 1;
    let mut first = scene.start(&orders);
    first.receipts(10).await;

    let refused = scene.orders(10);
    let mut second = scene.start(&refused);
    let Line::Refused(why) = second
        .until("a refusal", |line| matches!(line, Line::Refused(_)))
        .await
    else {
        unreachable!()
    };
    second.ends().await;
    assert!(
        why.contains(&format!("in use by process {}", first.pid())),
        "{why}"
    );
    assert!(why.contains(&*orders.dir.to_string_lossy()), "{why}");

    first.receipts(10).await;
    scene.redis.restart().await.unwrap();
    first.says(Line::Left(0)).await;
    first.ends().await;
    let balance = scene.balance(0).await;
    assert_eq!((balance.acknowledged, balance.delivered), (300, 300));
}

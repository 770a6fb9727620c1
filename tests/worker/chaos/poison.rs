//! Jobs that end the process they are executed in.

use seawall::chaos::RedisServer;

use super::{
    crew::Plan::{Deadly, Takes},
    scene::Scene,
};

#[tokio::test]
async fn a_job_that_kills_its_workers_is_buried_and_those_beside_it_are_not() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let mut scene = Scene::new(&redis.url(), "jobs").await;
    // All of them together fill the worker's slots, and so do they each time they come back.
    scene
        .enqueue([Takes(300), Takes(300), Deadly, Takes(300)])
        .await;
    let mut deaths = 0;
    loop {
        let mut orders = scene.orders(&format!("worker {deaths}"));
        (orders.concurrency, orders.poison_after) = (4, 3);
        let mut worker = scene.start(orders).await;
        while !worker.has_died() && scene.left().await != Some(0) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        if scene.left().await == Some(0) {
            break worker.stop().await;
        }
        deaths += 1;
    }
    let balance = scene.balance().await;
    balance.must_be_clean("poison");
    assert_eq!((balance.succeeded, balance.dead), (3, 1), "{balance}");
    assert_eq!(deaths, 3);
}

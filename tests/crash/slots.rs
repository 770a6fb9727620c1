//! Many applications on one directory, some of which are killed: the others deliver what those left.

use std::{collections::BTreeSet, path::Path};

use rand::{Rng as _, rngs::SmallRng};
use seawall::chaos::wait_until;

use super::{
    PLENTY,
    app::{App, End, Line, Orders},
    dice,
    scene::{Scene, durable},
    seeds,
};

/// Orders for as many apps, each with a lane of its own in the books, on one directory.
fn orders(scene: &mut Scene<'_>, apps: usize, jobs: u64, dice: &mut SmallRng) -> Vec<Orders> {
    let one = |number| Orders {
        shared: true,
        name: format!("app-{number}"),
        window: dice.random_range(1..100),
        max_batch: dice.random_range(1..100),
        ..scene.orders(jobs)
    };
    (0..apps).map(one).collect()
}

/// The numbers of the slots, and of those in which nothing waits.
fn slots(dir: &Path) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut all, mut idle) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(number) = name.strip_prefix("slot-") else {
            continue;
        };
        match number.strip_suffix(".idle") {
            Some(number) => idle.insert(number.parse().unwrap()),
            None => all.insert(number.parse().unwrap()),
        };
    }
    (all, idle)
}

/// Waits until nothing is left in the slots that no app has.
async fn adopted(dir: &Path, living: usize) {
    wait_until("the slots of the dead to be delivered", PLENTY, || async {
        let (all, idle) = slots(dir);
        all.len() - idle.len() == living
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {:?}", slots(dir)));
}

#[tokio::test]
async fn what_killed_apps_left_is_delivered_by_the_others_while_they_go_on() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let count = dice.random_range(2..6);
        let all = orders(&mut scene, count, 20_000, &mut dice);
        let mut apps: Vec<App> = all.iter().map(|orders| scene.start(orders)).collect();
        for app in &mut apps {
            app.receipts(dice.random_range(1..100)).await;
        }
        scene.redis.kill().await.unwrap();
        for app in &mut apps {
            app.until("a spooled job", |line| matches!(line, Line::Spooled(_)))
                .await;
            app.receipts(dice.random_range(1..300)).await;
        }
        let dead = dice.random_range(1..count);
        let survivors = apps.split_off(dead);
        for app in apps {
            app.kill().await;
        }
        if dice.random() {
            // One more takes a slot that is free, with all that is in it.
            let more = orders(&mut scene, 1, 0, &mut dice).remove(0);
            let mut more = scene.start(&more);
            more.says(Line::Done).await;
            scene.redis.restart().await.unwrap();
            more.kill().await;
        } else {
            scene.redis.restart().await.unwrap();
        }
        let mut living = survivors;
        for app in &mut living {
            app.receipts(dice.random_range(1..300)).await;
        }
        // Nobody reads what the survivors say now, so they stop when their pipes are full.
        adopted(&all[0].dir, living.len()).await;
        let last = living.pop().unwrap();
        for app in living {
            app.kill().await;
        }
        adopted(&all[0].dir, 1).await;
        last.kill().await;
        let mut end = orders(&mut scene, 1, 0, &mut dice).remove(0);
        end.end = End::Flush;
        let mut end_app = scene.start(&end);
        end_app.says(Line::Flushed).await;
        adopted(&end.dir, 1).await;
        end_app.kill().await;
        scene.balance(seed).await;
    }
}

#[tokio::test]
async fn an_app_killed_while_it_adopts_leaves_the_rest_to_the_next() {
    let mut redis = durable().await;
    for seed in seeds(6) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.redis.kill().await.unwrap();
        let count = dice.random_range(2..5);
        let all = orders(&mut scene, count, 2_000, &mut dice);
        let mut apps: Vec<App> = all.iter().map(|orders| scene.start(orders)).collect();
        for app in &mut apps {
            app.receipts(dice.random_range(100..500)).await;
        }
        for app in apps {
            app.kill().await;
        }
        scene.redis.restart().await.unwrap();
        let mut adopters = orders(&mut scene, 3, 0, &mut dice);
        for adopter in &mut adopters {
            adopter.replay_rate = Some(dice.random_range(500..5_000));
            let before = scene.delivered().await;
            let app = scene.start(adopter);
            scene
                .delivered_at_least((before + dice.random_range(1..100)).min(100))
                .await;
            app.kill().await;
        }
        let mut last = adopters.remove(0);
        (last.replay_rate, last.end) = (None, End::Flush);
        let mut app = scene.start(&last);
        app.says(Line::Flushed).await;
        adopted(&last.dir, 1).await;
        app.kill().await;
        scene.balance(seed).await;
    }
}

#[tokio::test]
async fn apps_that_start_at_the_same_moment_never_share_a_slot() {
    let mut redis = durable().await;
    for seed in seeds(4) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let mut all = orders(&mut scene, 8, 10, &mut dice);
        for orders in &mut all {
            orders.end = End::Flush;
        }
        let mut apps: Vec<App> = all.iter().map(|orders| scene.start(orders)).collect();
        for app in &mut apps {
            app.says(Line::Flushed).await;
        }
        let (slots, _) = slots(&all[0].dir);
        assert!(slots.len() >= 8, "seed {seed}: {slots:?}");
        for app in apps {
            app.kill().await;
        }
        scene.balance(seed).await;
    }
}

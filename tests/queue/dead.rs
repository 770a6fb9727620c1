//! Dead letters: requeued, purged, and what else happens to them at the same time.

use std::{collections::BTreeSet, sync::Arc};

use seawall::{
    RedisCall,
    job::JobId,
    worker::{JobState, Queue, TaskError},
};

use super::support::{PLENTY, Scene, ids};

#[tokio::test]
async fn a_requeued_job_waits_behind_the_others_with_its_history_and_all_its_retries() {
    let scene = Scene::new().await;
    let dead = scene.dead("timeout").await;
    let waiting = scene.queued().await;
    let queue = scene.queue();
    assert!(queue.requeue(dead).await.unwrap());
    assert_eq!(ids(&scene.all(JobState::Queued, 10).await), [waiting, dead]);
    let found = queue.job(dead).await.unwrap().unwrap();
    assert_eq!(found.attempts(), Some(4));
    let error = found.error().unwrap();
    assert_eq!((error.attempts(), error.history().len()), (4, 4));
    assert_eq!(error.error_type(), "timeout");
    assert_eq!(error.deaths(), 0);
    let requeued = error.requeued_at().unwrap();
    let ago = std::time::SystemTime::now()
        .duration_since(requeued)
        .unwrap();
    assert!(ago < PLENTY);
    assert_eq!(error.attempts_before_requeue(), 4);
    assert_eq!(error.retry_count(), 0);
    assert_eq!(queue.stat().await.unwrap().dead, 0);
}

#[tokio::test]
async fn requeueing_wakes_one_who_waits() {
    let scene = Scene::new().await;
    let dead = scene.dead("timeout").await;
    scene.raw("DEL wake", &[]).await;
    scene.queue().requeue(dead).await.unwrap();
    assert_eq!(scene.ask::<u64>("LLEN wake", &[]).await, 1);
    // One token is enough.
    let dead = scene.dead("timeout").await;
    scene.queue().requeue(dead).await.unwrap();
    assert_eq!(scene.ask::<u64>("LLEN wake", &[]).await, 1);
}

#[tokio::test]
async fn what_is_requeued_twice_waits_once() {
    let scene = Scene::new().await;
    let dead = scene.dead("timeout").await;
    let queue = scene.queue();
    let (one, other) = tokio::join!(queue.requeue(dead), queue.requeue(dead));
    assert!(one.unwrap() != other.unwrap());
    assert!(!queue.requeue(dead).await.unwrap());
    assert_eq!(queue.requeue_all().await.unwrap(), 0);
    assert_eq!(scene.ask::<u64>("LLEN ready", &[]).await, 1);
}

#[tokio::test]
async fn only_a_dead_letter_can_be_requeued_or_purged() {
    let scene = Scene::new().await;
    let others = [
        scene.queued().await,
        scene.scheduled().await,
        scene.running().await,
        scene.failed(2).await,
        scene.done('s').await,
        JobId::from_bytes([7; 16]),
    ];
    let queue = scene.queue();
    for id in others {
        let before = scene.state(id).await;
        assert!(!queue.requeue(id).await.unwrap());
        assert!(!queue.purge_one(id).await.unwrap());
        assert_eq!(scene.state(id).await, before);
    }
    assert_eq!(queue.requeue_all().await.unwrap(), 0);
    assert_eq!(queue.purge().await.unwrap(), 0);
}

#[tokio::test]
async fn all_of_a_type_are_requeued_or_purged_and_the_others_stay() {
    let scene = Scene::new().await;
    let mut of = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for at in 0..900 {
        let kind = at % 3;
        of[kind].insert(scene.dead(["timeout", "http_503", "poison"][kind]).await);
    }
    let queue = scene.queue();
    assert_eq!(queue.requeue_all_of("http_5").await.unwrap(), 0);
    assert_eq!(queue.requeue_all_of("http_503").await.unwrap(), 300);
    let queued = scene.all(JobState::Queued, 1_000).await;
    assert_eq!(
        queued.iter().map(|job| job.id()).collect::<BTreeSet<_>>(),
        of[1]
    );
    assert_eq!(queue.purge_all_of("timeout").await.unwrap(), 300);
    let left = scene.all(JobState::Dead, 1_000).await;
    assert_eq!(
        left.iter().map(|job| job.id()).collect::<BTreeSet<_>>(),
        of[2]
    );
    assert_eq!(queue.requeue_all().await.unwrap(), 300);
    assert_eq!(queue.stat().await.unwrap().ready, 600);
}

#[tokio::test]
async fn a_purge_leaves_nothing_of_the_dead_and_everything_else() {
    let scene = Scene::new().await;
    for _ in 0..450 {
        scene.dead("timeout").await;
    }
    let kept = [
        scene.queued().await,
        scene.failed(1).await,
        scene.running().await,
    ];
    // Whatever somebody has put there.
    let entries: [&[u8]; 4] = [b"1", b"garbage", b"1", &[7; 16]];
    scene.raw("ZADD dead", &entries).await;
    assert_eq!(scene.queue().purge().await.unwrap(), 450);
    for part in ["dead", "failures"] {
        let exists = scene.ask::<u64>(&format!("EXISTS {part}"), &[]).await;
        assert_eq!(exists, u64::from(part == "failures"), "{part}");
    }
    assert_eq!(scene.ask::<u64>("HLEN jobs", &[]).await, 3);
    for id in kept {
        assert!(scene.state(id).await.is_some());
    }
}

#[tokio::test]
async fn each_of_those_that_are_requeued_and_purged_at_once_is_one_or_the_other() {
    let scene = Scene::new().await;
    for _ in 0..600 {
        scene.dead("timeout").await;
    }
    let queue = scene.queue();
    let (requeued, purged) = tokio::join!(queue.requeue_all(), queue.purge());
    let (requeued, purged) = (requeued.unwrap(), purged.unwrap());
    // Each stops behind as many as there were when it began, and may leave some to the other.
    requeued
        .checked_add(purged)
        .filter(|sum| *sum <= 600)
        .unwrap();
    let left = queue.purge().await.unwrap();
    assert_eq!(requeued + purged + left, 600);
    assert_eq!(queue.stat().await.unwrap().ready, requeued);
    let queued = scene.all(JobState::Queued, 1_000).await;
    assert_eq!(queued.len() as u64, requeued);
    assert_eq!(scene.ask::<u64>("HLEN jobs", &[]).await, requeued);
}

/// A letter may be requeued and be dead again between a look at it and what is done about it.
#[tokio::test]
async fn a_letter_that_is_not_the_one_that_was_looked_at_stays() {
    let scene = Arc::new(Scene::new().await);
    let dead = scene.dead("timeout").await;
    let line = {
        let scene = Arc::clone(&scene);
        tower::service_fn(move |call: RedisCall| {
            let scene = Arc::clone(&scene);
            async move {
                if call.name() == "queue_requeue" {
                    scene.bury(dead, "other").await;
                }
                scene.app.call(call).await
            }
        })
    };
    let queue = Queue::new("emails", line).with_timeout(PLENTY);
    assert_eq!(queue.requeue_all_of("timeout").await.unwrap(), 0);
    let found = scene.queue().job(dead).await.unwrap().unwrap();
    assert_eq!(found.state(), JobState::Dead);
    assert_eq!(found.error().map(TaskError::error_type), Some("other"));
}

#[tokio::test]
async fn a_job_that_nobody_has_can_be_deleted() {
    let scene = Scene::new().await;
    let queue = scene.queue();
    for id in [
        scene.queued().await,
        scene.scheduled().await,
        scene.failed(1).await,
        scene.dead("timeout").await,
    ] {
        assert!(queue.delete(id).await.unwrap());
        assert_eq!(scene.state(id).await, None);
        assert!(!queue.delete(id).await.unwrap());
    }
    let running = scene.running().await;
    assert!(!queue.delete(running).await.unwrap());
    assert_eq!(scene.state(running).await, Some(JobState::Running));
    for part in ["later", "dead", "failures"] {
        let exists = scene.ask::<u64>(&format!("EXISTS {part}"), &[]).await;
        assert_eq!(exists, 0, "{part}");
    }
    assert!(scene.all(JobState::Queued, 10).await.is_empty());
}

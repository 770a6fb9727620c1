//! Jobs that a real worker runs, looked at while it does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use seawall::{
    Job,
    chaos::wait_until,
    job::{JobId, PROCEDURE, Retries},
    sequence::Write,
    worker::{Delivery, Failure, JobState, Page, TaskError, WorkerState},
};
use tokio::sync::{Semaphore, oneshot};

use super::{
    packed::of_execution,
    support::{PLENTY, Scene, TOKEN, failures, in_an_hour},
};

async fn becomes(scene: &Scene, id: JobId, state: JobState) {
    let is = || async { scene.state(id).await == Some(state) };
    wait_until(state.as_str(), PLENTY, is).await.unwrap();
}

#[tokio::test]
async fn a_requeued_job_is_run_as_often_as_a_new_one_and_its_attempts_go_on() {
    let scene = Scene::new().await;
    let seen: Arc<Mutex<Vec<(u32, u32)>>> = Arc::default();
    let works = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = oneshot::channel::<()>();
    let handler = {
        let (seen, works) = (Arc::clone(&seen), Arc::clone(&works));
        move |delivery: Delivery| {
            seen.lock()
                .push((delivery.attempt(), delivery.retries_left()));
            let works = works.load(Ordering::Relaxed);
            async move {
                match works {
                    true => Ok("done"),
                    false => Err(Failure::new("http_503", "come back")),
                }
            }
        }
    };
    let worker = scene
        .app
        .worker("emails")
        .retries(Retries::fixed(Duration::from_millis(1)).with_max(2))
        .result_ttl(Duration::from_secs(60))
        .shutdown_on(async {
            let _ = stopped.await;
        });
    let worker = tokio::spawn(worker.run(handler));
    let id = scene.queued().await;
    becomes(&scene, id, JobState::Dead).await;
    assert!(scene.queue().requeue(id).await.unwrap());
    // It may not have been taken yet, and is dead no more.
    becomes(&scene, id, JobState::Dead).await;
    let found = scene.queue().job(id).await.unwrap().unwrap();
    let error = found.error().unwrap();
    assert_eq!((found.attempts(), error.attempts()), (Some(6), 6));
    assert_eq!((error.retry_count(), error.history().len()), (2, 6));
    assert_eq!(error.reason().unwrap().as_str(), "exhausted");

    works.store(true, Ordering::Relaxed);
    assert_eq!(scene.queue().requeue_all_of("http_503").await.unwrap(), 1);
    becomes(&scene, id, JobState::Succeeded).await;
    let expected = [(1, 2), (2, 1), (3, 0), (4, 2), (5, 1), (6, 0), (7, 2)];
    assert_eq!(*seen.lock(), expected);
    // Nothing is left of its failures.
    assert_eq!(scene.ask::<u64>("EXISTS failures", &[]).await, 0);
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
}

/// A worker that was cut off may have noted a failure of long ago, and deliver it now.
#[tokio::test]
async fn what_an_execution_of_before_says_late_changes_nothing_of_a_requeued_job() {
    let scene = Scene::new().await;
    let id = scene.dead("timeout").await;
    assert!(scene.queue().requeue(id).await.unwrap());
    let record: Vec<u8> = scene.ask("HGET jobs", &[id.as_bytes()]).await;
    let (noted, hour) = (failures(4, "late"), in_an_hour());
    let (noted, hour) = (&noted[..], hour.as_bytes());
    let late = |kind: u8, attempt: u32, parts: &[&[u8]]| {
        let run = format!("{attempt} {TOKEN}");
        let packed = of_execution(kind, id.as_bytes(), &record[1..9], &run, parts);
        Write::procedure("emails", &PROCEDURE, packed)
    };
    let writes = [
        late(b'R', 4, &[hour, noted]),
        late(b'D', 4, &[hour, b"100", noted]),
        late(b'R', 1, &[hour, noted]),
        late(b'E', 4, &[b"s", b"1000", b""]),
    ];
    for write in writes {
        let _ = scene.app.enqueue(write).await.unwrap();
    }
    scene.app.flush().await;
    let found = scene.queue().job(id).await.unwrap().unwrap();
    assert_eq!(found.state(), JobState::Queued);
    assert_eq!(found.error().map(TaskError::error_type), Some("timeout"));
}

#[tokio::test]
async fn a_worker_is_seen_with_its_jobs_while_it_works_and_not_after_it_has_ended() {
    let scene = Scene::new().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |_: Delivery| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map_err(Failure::from)?.forget();
                Ok::<_, Failure>("the result")
            }
        }
    };
    let worker = scene.app.worker("emails").concurrency(3);
    let worker = worker
        .result_ttl(Duration::from_secs(60))
        .shutdown_on(async {
            let _ = stopped.await;
        });
    let worker = tokio::spawn(worker.run(handler));
    for _ in 0..5 {
        scene.queued().await;
    }
    let queue = scene.queue();
    let all_run = || async { queue.stat().await.is_ok_and(|stat| stat.running == 3) };
    wait_until("three jobs that run", PLENTY, all_run)
        .await
        .unwrap();
    let workers = queue.workers().await.unwrap();
    assert_eq!(workers.len(), 1);
    let there = &workers[0];
    assert_eq!((there.state, there.in_flight), (WorkerState::Alive, 3));
    assert_eq!((there.pid, there.concurrency), (std::process::id(), 3));
    assert!(!there.host.is_empty() && there.last_beat.is_some());
    assert_eq!(there.queues, ["emails"]);
    let running = queue.jobs(JobState::Running, Page::first()).await.unwrap();
    assert_eq!(running.jobs.len(), 3);
    for job in &running.jobs {
        assert_eq!(
            (job.worker(), job.attempts()),
            (Some(there.id.as_str()), Some(1))
        );
    }
    gate.add_permits(5);
    let done = || async { queue.stat().await.is_ok_and(|stat| stat.done == 5) };
    wait_until("five outcomes", PLENTY, done).await.unwrap();
    assert_eq!(queue.stat().await.unwrap().counters.succeeded, 5);
    let found = queue.job(running.jobs[0].id()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&found.result().unwrap()).contains("the result"));
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
    assert!(queue.workers().await.unwrap().is_empty());
}

/// Each letter is purged, or requeued and run by a worker, which may make it a letter again: none is both.
#[tokio::test]
async fn letters_that_are_purged_while_a_worker_runs_those_that_are_requeued_are_all_accounted_for()
{
    let scene = Scene::new().await;
    for _ in 0..400 {
        scene.dead("timeout").await;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = scene
        .app
        .worker("emails")
        .concurrency(8)
        .shutdown_on(async {
            let _ = stopped.await;
        });
    let worker = tokio::spawn(worker.run(async |_: Delivery| Ok::<_, Failure>(())));
    let queue = scene.queue();
    let (requeued, purged) = tokio::join!(queue.requeue_all(), queue.purge());
    let (requeued, purged) = (
        requeued.unwrap(),
        purged.unwrap() + queue.purge().await.unwrap(),
    );
    assert_eq!(requeued + purged, 400);
    let is_done = || async { scene.ask::<u64>("HLEN jobs", &[]).await == 0 };
    wait_until("no job left", PLENTY, is_done).await.unwrap();
    assert_eq!(queue.stat().await.unwrap().counters.succeeded, requeued);
    assert_eq!(scene.ask::<u64>("EXISTS failures", &[]).await, 0);
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_that_is_deleted_is_not_run_though_its_id_still_waits() {
    let scene = Scene::new().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let (deleted, kept) = (scene.queued().await, scene.queued().await);
    assert!(scene.queue().delete(deleted).await.unwrap());
    // The same id once more is a job once more.
    let again = scene.queued().await;
    assert!(scene.queue().delete(again).await.unwrap());
    scene.add(Job::new("emails", "again").with_id(again)).await;
    let seen: Arc<Mutex<Vec<JobId>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |delivery: Delivery| {
            seen.lock().push(delivery.id());
            async { Ok::<_, Failure>(()) }
        }
    };
    let worker = scene.app.worker("emails").shutdown_on(async {
        let _ = stopped.await;
    });
    let worker = tokio::spawn(worker.run(handler));
    let is_done = || async { scene.ask::<u64>("HLEN jobs", &[]).await == 0 };
    wait_until("no job left", PLENTY, is_done).await.unwrap();
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
    assert_eq!(*seen.lock(), [kept, again]);
    assert_eq!(scene.ask::<u64>("EXISTS ready", &[]).await, 0);
}

//! One job, asked for by its id, in each state that there is.

use std::time::{Duration, SystemTime};

use seawall::{
    Job,
    job::{Destination, Handling, JobId, Retries},
    worker::{JobInfo, JobState},
};

use super::support::{Scene, TOKEN, failures, in_an_hour, now_ms};

#[tokio::test]
async fn a_job_is_found_in_the_state_it_is_in() {
    let scene = Scene::new().await;
    for (id, state) in [
        (scene.queued().await, JobState::Queued),
        (scene.scheduled().await, JobState::Scheduled),
        (scene.running().await, JobState::Running),
        (scene.failed(2).await, JobState::Failed),
        (scene.dead("timeout").await, JobState::Dead),
        (scene.done('s').await, JobState::Succeeded),
        (scene.done('x').await, JobState::Expired),
        (scene.done('d').await, JobState::Discarded),
    ] {
        assert_eq!(scene.state(id).await, Some(state));
        let listed = scene.all(state, 10).await;
        assert_eq!(listed.iter().map(JobInfo::id).collect::<Vec<_>>(), [id]);
    }
}

#[tokio::test]
async fn an_id_that_the_queue_does_not_know_is_no_job() {
    let scene = Scene::new().await;
    let unknown = JobId::from_bytes([7; 16]);
    assert_eq!(scene.state(unknown).await, None);
    scene.queued().await;
    assert_eq!(scene.state(unknown).await, None);
    // Of another queue neither.
    let other = Job::new("other", "x");
    let id = other.id();
    scene.add(other).await;
    assert_eq!(scene.state(id).await, None);
}

#[tokio::test]
async fn an_outcome_is_forgotten_when_its_time_is_over_though_nobody_has_removed_it() {
    let scene = Scene::new().await;
    let id = scene.done('s').await;
    let past = (now_ms() - 1).to_string();
    scene
        .raw("ZADD done", &[past.as_bytes(), id.as_bytes()])
        .await;
    assert_eq!(scene.state(id).await, None);
    assert!(scene.all(JobState::Succeeded, 10).await.is_empty());
    assert_eq!(scene.queue().stat().await.unwrap().done, 0);
}

#[tokio::test]
async fn all_of_a_waiting_job_is_shown() {
    let scene = Scene::new().await;
    let hour = Duration::from_secs(3600);
    let job = Job::new("emails", "hello")
        .with_header("traceparent", "00-1-2-01")
        .delayed(hour)
        .expires_in(2 * hour);
    let before = SystemTime::now() - Duration::from_secs(1);
    let id = scene.add(job).await;
    let found = scene.queue().job(id).await.unwrap().unwrap();
    let after = SystemTime::now() + Duration::from_secs(1);
    assert_eq!(found.id(), id);
    assert_eq!(found.attempts(), Some(0));
    assert_eq!(&found.payload().unwrap()[..], b"hello");
    assert_eq!(found.payload_len(), Some(5));
    assert_eq!(
        found.headers(),
        [("traceparent".into(), "00-1-2-01".into())]
    );
    assert!((before..after).contains(&found.enqueued_at().unwrap()));
    assert!((before + hour..after + hour).contains(&found.due_at().unwrap()));
    assert!((before + 2 * hour..after + 2 * hour).contains(&found.expires_at().unwrap()));
    assert_eq!(found.unreadable(), None);
    assert!(found.error().is_none() && found.result().is_none());
    assert!(found.worker().is_none() && found.kept_until().is_none());
}

#[tokio::test]
async fn a_running_job_names_its_worker_and_counts_the_attempt_that_runs() {
    let scene = Scene::new().await;
    let id = scene.failed(2).await;
    scene.raw("ZREM later", &[id.as_bytes()]).await;
    let by = format!("3 {TOKEN}");
    scene
        .raw("HSET running", &[id.as_bytes(), by.as_bytes()])
        .await;
    let found = scene.queue().job(id).await.unwrap().unwrap();
    assert_eq!(found.state(), JobState::Running);
    assert_eq!(found.worker(), Some(TOKEN));
    assert_eq!(found.attempts(), Some(3));
}

#[tokio::test]
async fn the_retries_that_are_left_are_known_of_a_job_that_brings_its_own() {
    let scene = Scene::new().await;
    let handling = || Handling::new().with_retries(Retries::fixed(Duration::ZERO).with_max(3));
    let left = async |id| scene.queue().job(id).await.unwrap().unwrap().retries_left();
    let job = Job::new("emails", "x").with_destination(Destination::worker(handling()));
    let id = job.id();
    let _ = scene.app.enqueue(job).await.unwrap();
    scene.app.flush().await;
    assert_eq!(left(id).await, Some(3));
    scene.raw("LREM ready", &[b"0", id.as_bytes()]).await;
    scene
        .raw(
            "HSET running",
            &[id.as_bytes(), format!("1 {TOKEN}").as_bytes()],
        )
        .await;
    assert_eq!(left(id).await, Some(3), "the first execution is no retry");
    scene
        .raw("HSET failures", &[id.as_bytes(), &failures(1, "x")])
        .await;
    scene
        .raw(
            "HSET running",
            &[id.as_bytes(), format!("2 {TOKEN}").as_bytes()],
        )
        .await;
    assert_eq!(left(id).await, Some(2));
    scene.raw("HDEL running", &[id.as_bytes()]).await;
    scene.bury(id, "x").await;
    assert_eq!(left(id).await, Some(0));
    scene.queue().requeue(id).await.unwrap();
    assert_eq!(left(id).await, Some(3));
    assert_eq!(
        left(scene.queued().await).await,
        None,
        "they are the worker's"
    );
}

#[tokio::test]
async fn a_finished_job_has_its_result_and_nothing_of_what_it_was() {
    let scene = Scene::new().await;
    let id = scene.done('s').await;
    let found = scene.queue().job(id).await.unwrap().unwrap();
    assert_eq!(&found.result().unwrap()[..], b"the result");
    assert!(found.kept_until().unwrap() > SystemTime::now());
    assert!(found.payload().is_none() && found.enqueued_at().is_none());
    assert_eq!(found.attempts(), None);
    let listed = scene.all(JobState::Succeeded, 10).await.remove(0);
    assert_eq!((listed.result(), listed.result_len()), (None, Some(10)));
}

#[tokio::test]
async fn no_output_shows_what_is_in_a_job() {
    let scene = Scene::new().await;
    let job = Job::new("emails", "s3cret").with_header("h", "s3cret");
    let queued = scene.add(job).await;
    let done = scene.done('s').await;
    scene
        .raw("HSET results", &[done.as_bytes(), b"ss3cret"])
        .await;
    for id in [queued, done] {
        let found = scene.queue().job(id).await.unwrap().unwrap();
        let shown = format!("{found:?} {:?}", scene.queue());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(!shown.contains("115, 51"), "{shown}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_shown_as_such_beside_the_others() {
    let scene = Scene::new().await;
    let bad = scene.dead("timeout").await;
    let good = scene.dead("timeout").await;
    for garbage in [&b"\xffof a newer version"[..], b"", b"\x01short"] {
        scene.raw("HSET jobs", &[bad.as_bytes(), garbage]).await;
        let found = scene.queue().job(bad).await.unwrap().unwrap();
        assert_eq!(found.state(), JobState::Dead);
        assert!(found.unreadable().unwrap().contains("cannot read the job"));
        assert!(found.payload().is_none() && found.payload_len().is_none());
        assert_eq!(found.attempts(), Some(4));
        let listed = scene.all(JobState::Dead, 10).await;
        assert_eq!(listed.len(), 2);
        let of = |id| listed.iter().find(|job| job.id() == id).unwrap();
        assert!(of(bad).unreadable().is_some() && of(good).unreadable().is_none());
    }
}

#[tokio::test]
async fn garbage_among_the_ids_is_passed_over() {
    let scene = Scene::new().await;
    let (queued, dead) = (scene.queued().await, scene.dead("timeout").await);
    scene.raw("LPUSH ready", &[b"garbage", b""]).await;
    // An id that was left behind, and one that is there twice.
    scene
        .raw("RPUSH ready", &[&[7; 16], queued.as_bytes()])
        .await;
    scene
        .raw(
            "ZADD dead",
            &[b"-inf", b"garbage", b"inf", b"more", b"1", &[7; 16]],
        )
        .await;
    scene.raw("HSET running", &[b"garbage", b"x"]).await;
    scene.raw("HSET running", &[&[7; 16], b"x"]).await;
    scene.raw("HSET failures", &[&[7; 16], b"\xff"]).await;
    scene.raw("HSET counters", &[b"dead", b"many"]).await;
    let listed = scene.all(JobState::Queued, 1).await;
    assert!(listed.iter().all(|job| job.id() == queued) && !listed.is_empty());
    assert_eq!(scene.all(JobState::Dead, 1).await[0].id(), dead);
    assert!(scene.all(JobState::Running, 10).await.is_empty());
    assert!(
        scene
            .queue()
            .frequent_retriers(10)
            .await
            .unwrap()
            .is_empty()
    );
    scene.queue().stat().await.unwrap();
    scene.queue().workers().await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_type_is_told_by_its_part() {
    let scene = Scene::new().await;
    scene.queued().await;
    for part in [
        "later", "running", "failures", "dead", "done", "results", "counters", "wake", "workers",
        "about", "turns", "gone",
    ] {
        scene.raw(&format!("DEL {part}"), &[]).await;
        scene.raw(&format!("SET {part}"), &[b"a string"]).await;
        let queue = scene.queue();
        let id = JobId::from_bytes([1; 16]);
        let errors = [
            queue.stat().await.unwrap_err(),
            queue.job(id).await.unwrap_err(),
            queue.workers().await.unwrap_err(),
            queue.purge().await.unwrap_err(),
            queue.delete(id).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_permanent() && !error.may_have_landed(), "{error}");
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains(&format!(":{part} is a string")), "{why}");
        }
        scene.raw(&format!("DEL {part}"), &[]).await;
    }
    scene.queue().stat().await.unwrap();
}

#[tokio::test]
async fn stat_counts_everything_at_one_moment() {
    let scene = Scene::new().await;
    let empty = scene.queue().stat().await.unwrap();
    assert_eq!(
        (empty.ready, empty.workers, empty.oldest_ready),
        (0, 0, None)
    );
    let first = scene.queued().await;
    for _ in 0..2 {
        scene.queued().await;
        scene.scheduled().await;
        scene.running().await;
        scene.failed(1).await;
        scene.dead("timeout").await;
        scene.done('s').await;
    }
    let sooner = (now_ms() + 60_000).to_string();
    scene
        .raw(
            "ZADD later",
            &[sooner.as_bytes(), scene.taken().await.as_bytes()],
        )
        .await;
    scene
        .raw("HSET counters", &[b"succeeded", b"7", b"dead", b"2"])
        .await;
    scene
        .raw(
            "ZADD workers",
            &[in_an_hour().as_bytes(), TOKEN.as_bytes(), b"1", b"late"],
        )
        .await;
    let stat = scene.queue().stat().await.unwrap();
    assert_eq!((stat.ready, stat.later, stat.running), (3, 5, 2));
    assert_eq!((stat.retrying, stat.dead, stat.done), (2, 2, 2));
    assert_eq!(stat.workers, 1);
    assert_eq!((stat.counters.succeeded, stat.counters.dead), (7, 2));
    let oldest = scene.queue().job(first).await.unwrap().unwrap();
    assert_eq!(stat.oldest_ready, oldest.enqueued_at());
    let until_due = stat.next_due.unwrap().duration_since(stat.at).unwrap();
    assert!(until_due <= Duration::from_secs(60), "{until_due:?}");
}

#[tokio::test]
async fn a_large_record_is_shown_whole_and_listed_by_its_beginning() {
    let scene = Scene::new().await;
    let long = "x".repeat(100_000);
    let job = Job::new("emails", long.clone()).with_header("h", "v");
    let plain = scene.add(job.clone()).await;
    let headers = (0..50).fold(job, |job, at| {
        job.with_header(format!("h{at}"), "v".repeat(1_000))
    });
    let headers = headers.with_id(JobId::from_bytes([3; 16]));
    let with_headers = scene.add(headers).await;
    for id in [plain, with_headers] {
        let found = scene.queue().job(id).await.unwrap().unwrap();
        assert_eq!(found.payload().unwrap().len(), 100_000);
    }
    let listed = scene.all(JobState::Queued, 10).await;
    let sizes: Vec<_> = listed.iter().map(|job| job.payload_len()).collect();
    assert_eq!(sizes, [Some(100_000); 2]);
    assert_eq!(listed[1].headers().len(), 51);
    assert!(listed.iter().all(|job| job.payload().is_none()));
}

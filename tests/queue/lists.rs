//! Lists that are walked through page by page, while the queue moves and while it does not.

use std::collections::{BTreeSet, HashSet};

use seawall::{
    Job,
    job::JobId,
    worker::{JobInfo, JobState, Page},
};

use super::support::{Scene, TOKEN, failures, ids, in_an_hour, now_ms};

/// That many jobs, of which nothing has happened to any.
async fn many(scene: &Scene, count: usize) -> Vec<JobId> {
    let jobs: Vec<_> = (0..count)
        .map(|at| Job::new("emails", format!("{at}")).for_worker())
        .collect();
    let ids = jobs.iter().map(Job::id).collect();
    for receipt in scene.app.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    // On a busy machine some may have gone by way of the disk.
    scene.app.flush().await;
    ids
}

/// Puts them all somewhere, with what belongs to each.
async fn put(
    scene: &Scene,
    command: &str,
    ids: &[JobId],
    with: impl Fn(usize, JobId) -> [Vec<u8>; 2],
) {
    for (at, some) in ids.chunks(1_000).enumerate() {
        let pairs = some.iter().enumerate();
        let pairs: Vec<_> = pairs
            .flat_map(|(next, id)| with(at * 1_000 + next, *id))
            .collect();
        let pairs: Vec<&[u8]> = pairs.iter().map(|part| &part[..]).collect();
        scene.raw(command, &pairs).await;
    }
}

#[tokio::test]
async fn ten_thousand_jobs_are_walked_through_in_every_list() {
    let scene = Scene::new().await;
    let all = many(&scene, 10_000).await;
    for size in [333, 1_000] {
        assert_eq!(ids(&scene.all(JobState::Queued, size).await), all);
    }
    // Many of the same time: a score is not enough to go on with.
    let score = in_an_hour().into_bytes();
    scene.raw("DEL ready", &[]).await;
    put(&scene, "ZADD later", &all, |_, id| {
        [score.clone(), id.as_bytes().to_vec()]
    })
    .await;
    let found = ids(&scene.all(JobState::Scheduled, 777).await);
    assert_eq!(found.len(), all.len());
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), all.len());

    // One of a hundred has failed: those between are looked at and passed over.
    let failed: Vec<_> = all.iter().copied().step_by(100).collect();
    put(&scene, "HSET failures", &failed, |_, id| {
        [id.as_bytes().to_vec(), failures(1, "x")]
    })
    .await;
    let found = ids(&scene.all(JobState::Failed, 7).await);
    assert_eq!(
        found.iter().collect::<BTreeSet<_>>(),
        failed.iter().collect()
    );
    assert_eq!(found.len(), failed.len());

    scene.raw("DEL later", &[]).await;
    let by = format!("1 {TOKEN}").into_bytes();
    put(&scene, "HSET running", &all, |_, id| {
        [id.as_bytes().to_vec(), by.clone()]
    })
    .await;
    let found = ids(&scene.all(JobState::Running, 1_000).await);
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), all.len());
    scene.raw("DEL running", &[]).await;

    let later = |at: usize, id: JobId| {
        let score = (now_ms() + 3_600_000 + at as u64).to_string();
        [score.into_bytes(), id.as_bytes().to_vec()]
    };
    put(&scene, "ZADD dead", &all, later).await;
    assert_eq!(ids(&scene.all(JobState::Dead, 1_000).await), all);
}

#[tokio::test]
async fn a_walk_goes_on_where_it_was_while_jobs_are_taken_from_the_front() {
    let scene = Scene::new().await;
    let all = many(&scene, 500).await;
    let queue = scene.queue();
    let mut seen = Vec::new();
    let mut page = Some(Page::first().with_size(50));
    let mut taken = 0;
    while let Some(wanted) = page {
        let found = queue.jobs(JobState::Queued, wanted).await.unwrap();
        seen.extend(ids(&found.jobs));
        page = found.next;
        // A worker takes some that were seen.
        let ids: Vec<Vec<u8>> = scene.ask("LPOP ready", &[b"20"]).await;
        taken += ids.len();
        for id in &ids {
            let by = format!("1 {TOKEN}");
            scene.raw("HSET running", &[id, by.as_bytes()]).await;
        }
    }
    assert!(taken >= 200);
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_walk_that_is_overtaken_misses_none_that_still_wait() {
    let scene = Scene::new().await;
    let all = many(&scene, 500).await;
    let queue = scene.queue();
    let first = queue.jobs(JobState::Queued, Page::first()).await.unwrap();
    assert_eq!(ids(&first.jobs), all[..100]);
    // All that were seen are gone, and more.
    let taken: Vec<Vec<u8>> = scene.ask("LPOP ready", &[b"150"]).await;
    for id in &taken {
        scene.raw("HDEL jobs", &[id]).await;
    }
    let next = queue
        .jobs(JobState::Queued, first.next.unwrap())
        .await
        .unwrap();
    assert_eq!(ids(&next.jobs), all[150..250]);
    // Some are given back.
    scene
        .raw("LPUSH ready", &[&[1; 16], &[2; 16], &[3; 16]])
        .await;
    let last = queue
        .jobs(JobState::Queued, next.next.unwrap())
        .await
        .unwrap();
    assert_eq!(ids(&last.jobs), all[250..350]);
}

#[tokio::test]
async fn a_walk_through_the_dead_goes_on_when_the_last_one_seen_is_no_more() {
    let scene = Scene::new().await;
    let all = many(&scene, 300).await;
    let score = |at: usize| (now_ms() + 3_600_000 + at as u64).to_string().into_bytes();
    put(&scene, "ZADD dead", &all, |at, id| {
        [score(at), id.as_bytes().to_vec()]
    })
    .await;
    let queue = scene.queue();
    let first = queue.jobs(JobState::Dead, Page::first()).await.unwrap();
    assert!(queue.purge_one(all[99]).await.unwrap());
    assert!(queue.purge_one(all[100]).await.unwrap());
    let next = queue
        .jobs(JobState::Dead, first.next.unwrap())
        .await
        .unwrap();
    assert_eq!(ids(&next.jobs), all[101..201]);
}

#[tokio::test]
async fn a_page_of_an_absurd_size_is_refused() {
    let scene = Scene::new().await;
    for size in [0, 1_001, usize::MAX] {
        let page = Page::first().with_size(size);
        let error = scene
            .queue()
            .jobs(JobState::Queued, page)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), seawall::error::ErrorKind::Invalid);
    }
    let page = scene
        .queue()
        .jobs(JobState::Queued, Page::first())
        .await
        .unwrap();
    assert!(page.jobs.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn those_that_fail_most_come_first_and_the_dead_are_not_among_them() {
    let scene = Scene::new().await;
    let all = many(&scene, 3_000).await;
    put(&scene, "HSET failures", &all, |at, id| {
        [id.as_bytes().to_vec(), failures(1 + at as u32 % 3, "x")]
    })
    .await;
    let worst = scene.failed(9).await;
    let second = scene.failed(7).await;
    scene.dead("x").await;
    let found = scene.queue().frequent_retriers(4).await.unwrap();
    let attempts: Vec<_> = found.iter().filter_map(JobInfo::attempts).collect();
    assert_eq!(attempts, [9, 7, 3, 3]);
    assert_eq!(ids(&found)[..2], [worst, second]);
    assert_eq!(found[0].error().unwrap().error_type(), "timeout");
    assert!(scene.queue().frequent_retriers(0).await.unwrap().is_empty());
    let most = scene.queue().frequent_retriers(usize::MAX).await.unwrap();
    assert_eq!(most.len(), 1_000);
}

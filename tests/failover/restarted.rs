//! The application ends, or is killed, while replicas lack what the primary has acknowledged.

use std::time::Duration;

use seawall::{
    Seawall,
    chaos::wait_until,
    spool::{Ack, SpoolOptions, TailOptions},
};

use crate::support::{PATIENCE, Scene, numbers};

#[tokio::test]
async fn what_replicas_lack_at_an_orderly_end_is_left_to_the_next_run() {
    let mut scene = Scene::new().await;
    let app = scene.app(|spool| spool).await;
    app.enqueue("q", 0..100).await;
    scene.set.wait_until_replicated().await.unwrap();
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    app.enqueue("q", 100..300).await;
    let left = app
        .seawall
        .shutdown(Duration::from_millis(200))
        .await
        .unwrap();
    assert!(left >= 200, "{left} wait for replicas");
    drop(app);
    let new = scene.kill_primary().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..100));

    let app = scene.app(|spool| spool).await;
    app.drained().await;
    app.enqueue("q", 300..320).await;
    assert_eq!(scene.list(new, "q").await, numbers(0..320));
    app.safe().await;
}

#[tokio::test]
async fn what_a_killed_run_had_on_disk_is_given_back_by_the_next_one() {
    let mut scene = Scene::new().await;
    let small = |spool: SpoolOptions| spool.with_tail(TailOptions::new().with_max_memory(64 << 10));
    let app = scene.app(small).await;
    app.enqueue("q", 0..10).await;
    scene.set.wait_until_replicated().await.unwrap();
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    app.enqueue("q", 10..1_010).await;
    app.until("seawall_tail_records", "disk", |records| records > 300.0)
        .await;
    let kept = app.metric("seawall_tail_records", "disk") as u64;
    // It ends where it is, as far as a test's own process can: what is in memory is gone.
    drop(app);
    let new = scene.kill_primary().await;

    let (dir, url) = (scene.dir.path().to_owned(), scene.set.url());
    // The directory is given back a moment later.
    let opened = wait_until("the directory", PATIENCE, || {
        let (dir, url) = (dir.clone(), url.clone());
        async move {
            let builder = Seawall::builder(&url, dir.as_path()).unwrap();
            let Ok(seawall) = builder.connect().await else {
                return false;
            };
            seawall.flush().await;
            seawall.shutdown(Duration::from_secs(5)).await.is_ok()
        }
    });
    opened.await.unwrap();
    let list = scene.list(new, "q").await;
    assert!(list.len() as u64 >= kept, "{} of {kept}", list.len());
    assert_eq!(list, numbers(0..list.len() as u64));
}

/// A receipt from disk is as good as the disk, also once Redis has it and its replicas lack it.
#[tokio::test]
async fn what_came_from_disk_is_still_there_when_application_and_primary_die_together() {
    let mut scene = Scene::new().await;
    let app = scene.app(|spool| spool.with_ack(Ack::Spooled)).await;
    app.enqueue("q", 0..20).await;
    app.drained().await;
    scene.set.wait_until_replicated().await.unwrap();
    let old = scene.primary().await;
    scene.set.cut_replication(old);
    app.enqueue("q", 20..120).await;
    app.drained().await;
    assert_eq!(scene.list(old, "q").await, numbers(0..120));
    drop(app);
    let new = scene.kill_primary().await;
    let app = scene.app(|spool| spool.with_ack(Ack::Spooled)).await;
    app.drained().await;
    assert_eq!(scene.list(new, "q").await, numbers(0..120));
    app.safe().await;
}

//! Records that have waited for too long.

use std::time::Duration;

use seawall::{
    chaos::wait_until,
    spool::{Overflow, Place, QueueLimits, Replay, WhenOld},
};

use super::{
    PLENTY,
    far::{Far, Run, Way},
    heard::Heard,
};

const AGE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn old_records_go_while_there_is_no_redis_and_young_ones_stay() {
    let heard = Heard::listen();
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        let patient = QueueLimits::new().with_max_age(Duration::from_secs(3600), WhenOld::Expire);
        options
            .with_max_age(AGE, WhenOld::Expire)
            .with_queue_limits("patient", patient)
    })
    .await;
    assert_eq!(run.place("patient", 1).await, Place::Spooled);
    let _ = run.places("notes", 1..=500).await;
    run.holds(1).await;
    let expired = [("queue", "notes")];
    assert_eq!(run.counted("seawall_expired_total", &expired), 500);
    assert_eq!(run.place("notes", 501).await, Place::Spooled);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("patient"), [1]);
    // It may or may not have been in time.
    assert!(far.has("notes").iter().all(|number| *number == 501));
    assert_eq!(run.spool.shutdown(PLENTY).await.unwrap(), 0);
    let expired = 500 + u64::from(far.has("notes").is_empty());
    wait_until("all to be told", PLENTY, || async {
        heard.sum("records on disk have expired", "expired") == expired
    })
    .await
    .unwrap();
}

/// Nothing else happens: nobody comes, and all other times are an hour away.
#[tokio::test]
async fn time_alone_is_enough_to_expire() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        let hour = Duration::from_secs(3600);
        options
            .with_replay(Replay::new().with_delays(hour, hour))
            .with_spool_after(hour)
            .with_disk_timeout(hour)
            .with_max_age(AGE, WhenOld::Expire)
    })
    .await;
    let _ = run.places("notes", 1..=3).await;
    run.holds(0).await;
    assert_eq!(run.counted("seawall_expired_total", &[]), 3);
}

#[tokio::test]
async fn what_an_earlier_run_left_grows_old_too() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| options).await;
    let _ = run.places("notes", 1..=10).await;
    drop(run);
    tokio::time::sleep(AGE).await;
    far.is(Way::Up);
    let run = Run::open(&dir, &far, |options| {
        options.with_max_age(AGE, WhenOld::Expire)
    })
    .await;
    run.drain().await;
    assert_eq!(run.counted("seawall_expired_total", &[]), 10);
    assert!(far.has("notes").is_empty());
}

#[tokio::test]
async fn records_that_are_kept_are_told_of_once() {
    let heard = Heard::listen();
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_age(AGE, WhenOld::Keep)
            .with_max_records(5)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    let _ = run.places("notes", 1..=5).await;
    heard.wait_for("records on disk are old").await;
    // The front moves, and is as old.
    for number in 6..=8 {
        let _ = run.place("notes", number).await;
    }
    assert_eq!(heard.count("records on disk are old"), 1);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), [4, 5, 6, 7, 8]);
    far.is(Way::Down);
    let _ = run.places("notes", 9..=10).await;
    heard.wait_for_times("records on disk are old", 2).await;
}

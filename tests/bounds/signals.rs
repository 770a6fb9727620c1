//! The watermark, and whether it is safe to enqueue.

use std::time::Duration;

use seawall::spool::{Bound, Overflow, QueueLimits, Readiness};

use super::{
    PLENTY,
    far::{Far, Run, Way},
    heard::Heard,
};

#[tokio::test]
async fn the_watermark_is_told_once_when_passed_and_once_when_there_is_room_again() {
    let heard = Heard::listen();
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        let own = QueueLimits::new().with_max_records(50);
        options
            .with_max_records(100)
            .with_watermark(0.5)
            .with_queue_limits("own", own)
    })
    .await;
    for number in 1..=49 {
        let _ = run.place("notes", number).await;
    }
    assert_eq!(heard.count("the spool is filling"), 0);
    for number in 50..=90 {
        let _ = run.place("notes", number).await;
    }
    assert_eq!(heard.count("the spool is filling"), 1);
    assert_eq!(heard.count("the spool has room again"), 0);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(heard.count("the spool has room again"), 1);
    far.is(Way::Down);
    let _ = run.places("own", 1..=30).await;
    assert_eq!(heard.count("the spool is filling"), 1);
    assert_eq!(heard.count("a queue is filling"), 1);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(heard.count("a queue has room again"), 1);
}

#[tokio::test]
async fn drops_are_told_and_the_counts_of_the_events_add_up() {
    let heard = Heard::listen();
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(5)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    for number in 1..=60 {
        let _ = run.place("notes", number).await;
    }
    let event = "the oldest records were dropped to make room";
    assert_eq!(heard.count(event), 1, "the others wait for the next one");
    assert_eq!(run.spool.shutdown(Duration::ZERO).await.unwrap(), 5);
    drop(run);
    heard.wait_for_times(event, 2).await;
    assert_eq!((heard.count(event), heard.sum(event, "dropped")), (2, 55));
}

#[tokio::test]
async fn readiness_says_what_is_wrong_and_comes_back() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        let own = QueueLimits::new().with_max_records(2);
        options.with_max_records(10).with_queue_limits("own", own)
    })
    .await;
    let mut watch = run.spool.watch_readiness();
    assert!(watch.borrow_and_update().is_ready());
    assert!(
        run.spool.readiness_of("own").is_ready(),
        "it is not there yet"
    );
    let _ = run.places("own", 1..=2).await;
    let full = Readiness::Full(Bound::QueueRecords);
    assert_eq!(run.spool.readiness_of("own"), full);
    assert!(run.spool.readiness_of("notes").is_ready());
    assert!(
        !watch.has_changed().unwrap(),
        "no queue speaks for the spool"
    );

    let _ = run.places("notes", 1..=8).await;
    let full = Readiness::Full(Bound::Records);
    assert_eq!(
        (run.spool.readiness(), *watch.borrow_and_update()),
        (full, full)
    );
    assert_eq!(run.spool.readiness_of("notes"), full);
    assert!(full.to_string().contains("SpoolOptions::with_max_records"));
    assert!(run.hand_in("notes", 9, 0).await.is_err());
    assert!(!watch.has_changed().unwrap());

    far.is(Way::Up);
    let ready = tokio::time::timeout(PLENTY, watch.wait_for(|now| now.is_ready()));
    let _ = ready.await.unwrap().unwrap();
    run.drain().await;
    assert!(run.spool.readiness_of("own").is_ready());
    watch.mark_unchanged();
    run.spool.shutdown(PLENTY).await.unwrap();
    assert_eq!(run.spool.readiness(), Readiness::Closed);
    assert_eq!(*watch.borrow_and_update(), Readiness::Closed);
}

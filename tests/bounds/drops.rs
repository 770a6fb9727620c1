//! The two overflow policies that drop.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use seawall::{
    error::ErrorKind,
    spool::{Overflow, Place, QueueLimits},
};

use super::{
    PLENTY,
    far::{Far, Run, Way},
};

#[tokio::test]
async fn the_oldest_go_and_the_newest_stay() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(5)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    for number in 1..=12 {
        assert_eq!(run.place("notes", number).await, Place::Spooled);
        assert_eq!(run.spool.stats().records, number.min(5));
    }
    assert_eq!((run.dropped("oldest"), run.dropped("newest")), (7, 0));
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), [8, 9, 10, 11, 12]);
}

#[tokio::test]
async fn a_crowd_at_once_is_let_in_in_its_order() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(100)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    let places = run.places("notes", 1..=950).await;
    assert!(places.iter().all(|place| *place == Place::Spooled));
    assert_eq!(
        (run.spool.stats().records, run.dropped("oldest")),
        (100, 850)
    );
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), (851..=950).collect::<Vec<_>>());
}

/// What a record costs is measured: it is the format's business.
#[tokio::test]
async fn for_bytes_as_many_go_as_it_takes_and_no_more() {
    let scale = tempfile::tempdir().unwrap();
    let run = Run::open(&scale, &Far::new(), |options| options).await;
    let _ = run.hand_in("notes", 1, 0).await.unwrap();
    let least = run.spool.stats().bytes;
    for seed in 0..4 {
        let mut dice = SmallRng::seed_from_u64(seed);
        let max = 8 << 10;
        let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
        let run = Run::open(&dir, &far, |options| {
            options
                .with_max_bytes(max)
                .with_overflow(Overflow::DropOldest)
        })
        .await;
        let mut model: VecDeque<(u64, u64)> = VecDeque::new();
        let held = |model: &VecDeque<(u64, u64)>| model.iter().map(|(_, cost)| *cost).sum::<u64>();
        let mut dropped = 0;
        for number in 0..120 {
            let padding = match dice.random_range(0..8) {
                0 => dice.random_range(2_000..9_000),
                _ => dice.random_range(0..600),
            };
            let cost = least + padding as u64;
            let answer = run.hand_in("notes", number, padding).await;
            if cost > max {
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::SpoolFull);
            } else {
                assert_eq!(answer.unwrap().place(), Place::Spooled);
                while held(&model) + cost > max {
                    model.pop_front();
                    dropped += 1;
                }
                model.push_back((number, cost));
            }
            let stats = run.spool.stats();
            let expected = (model.len() as u64, held(&model));
            assert_eq!(
                (stats.records, stats.bytes),
                expected,
                "seed {seed}, {number}"
            );
        }
        assert_eq!(run.dropped("oldest"), dropped);
        far.is(Way::Up);
        run.drain().await;
        let left: Vec<_> = model.iter().map(|(number, _)| *number).collect();
        assert_eq!(far.has("notes"), left, "seed {seed}");
    }
}

#[tokio::test]
async fn a_new_record_for_which_there_is_no_room_is_dropped_and_says_so() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(5)
            .with_overflow(Overflow::DropNewest)
    })
    .await;
    let places = run.places("notes", 1..=12).await;
    assert!(places[..5].iter().all(|place| *place == Place::Spooled));
    assert!(places[5..].iter().all(|place| *place == Place::Dropped));
    assert_eq!((run.dropped("oldest"), run.dropped("newest")), (0, 7));
    let told = [("receipt", "dropped")];
    assert_eq!(run.counted("seawall_enqueued_total", &told), 7);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(run.place("notes", 13).await, Place::Spooled);
    run.drain().await;
    assert_eq!(far.has("notes"), [1, 2, 3, 4, 5, 13]);
}

#[tokio::test]
async fn what_an_earlier_run_left_is_older() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| options).await;
    let _ = run.places("notes", 1..=10).await;
    drop(run);
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(10)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    let _ = run.places("notes", 11..=14).await;
    assert_eq!((run.spool.stats().records, run.dropped("oldest")), (10, 4));
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), (5..=14).collect::<Vec<_>>());
}

/// The first ten are in one chunk or a few, and four of them have been dropped.
#[tokio::test]
async fn a_run_after_drops_in_the_middle_of_a_chunk_delivers_exactly_the_rest() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let bounds = |options: seawall::spool::SpoolOptions| {
        options
            .with_max_records(10)
            .with_overflow(Overflow::DropOldest)
    };
    for (first, last) in [(1, 10), (11, 14), (15, 17)] {
        let run = Run::open(&dir, &far, bounds).await;
        let _ = run.places("notes", first..=last).await;
        assert_eq!(run.spool.stats().records, 10);
    }
    let run = Run::open(&dir, &far, bounds).await;
    assert_eq!(run.spool.stats().records, 10);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), (8..=17).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_on_its_way_is_not_dropped() {
    for (ends, earlier) in [
        (Way::Up, false),
        (Way::Down, false),
        (Way::Up, true),
        (Way::Down, true),
    ] {
        let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
        let open = || {
            Run::open(&dir, &far, |options| {
                options
                    .with_max_records(3)
                    .with_max_batch(2, 1 << 20)
                    .with_spool_after(PLENTY)
                    .with_overflow(Overflow::DropOldest)
            })
        };
        far.is(if earlier { Way::Down } else { Way::Hangs });
        let mut run = open().await;
        let _ = run.places("notes", 1..=3).await;
        if earlier {
            drop(run);
            far.is(Way::Hangs);
            run = open().await;
        }
        let mut hanging = far.hanging.subscribe();
        hanging.wait_for(|hanging| *hanging == 1).await.unwrap();
        let mut fourth = Box::pin(run.hand_in("notes", 4, 0));
        // What is behind those on their way is read, and is not dropped in front of them either. That it
        // would come to an end is what may not happen, however fast the machine.
        let early = tokio::time::timeout(Duration::from_millis(50), &mut fourth).await;
        assert!(early.is_err(), "{early:?}");
        assert_eq!(run.dropped("oldest"), 0);
        far.is(ends);
        assert_eq!(fourth.await.unwrap().place(), Place::Spooled);
        far.is(Way::Up);
        run.drain().await;
        let expected: &[u64] = match ends {
            Way::Up => &[1, 2, 3, 4],
            _ => &[2, 3, 4],
        };
        assert_eq!(far.has("notes"), expected);
        assert_eq!(run.dropped("oldest"), 4 - expected.len() as u64);
    }
}

#[tokio::test]
async fn no_queue_loses_a_record_to_another() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_records(10)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    let _ = run.places("full", 1..=10).await;
    let error = run.hand_in("late", 1, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SpoolFull);
    assert!(!error.may_have_landed());
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("SpoolOptions::with_max_records"), "{cause}");
    assert_eq!(run.dropped("oldest"), 0);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("full"), (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_queue_has_its_own_bounds_and_its_own_policy() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        let gauges = QueueLimits::new()
            .with_max_records(3)
            .with_overflow(Overflow::DropOldest);
        let others = QueueLimits::new()
            .with_max_records(6)
            .with_max_record_bytes(100);
        options
            .with_queue_limits("gauges", gauges)
            .with_default_queue_limits(others)
    })
    .await;
    let _ = run.places("gauges", 1..=20).await;
    let receipts: Vec<_> = (1..=20).map(|n| run.hand_in("jobs", n, 0)).collect();
    let refused = join_all(receipts).await.into_iter().filter_map(Result::err);
    assert!(
        refused
            .map(|error| assert_eq!(error.kind(), ErrorKind::SpoolFull))
            .count()
            == 14
    );
    let large = run.hand_in("jobs", 21, 93).await.unwrap_err();
    assert_eq!(large.kind(), ErrorKind::Invalid);
    let _ = run.hand_in("gauges", 21, 93).await.unwrap();
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("gauges"), [19, 20, 21]);
    assert_eq!(far.has("jobs"), (1..=6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_too_large_for_the_room_there_is_takes_no_other_with_it() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| options.with_max_bytes(8 << 10)).await;
    let sizes = [0, 20_000, 0, 0];
    let receipts: Vec<_> = (1..)
        .zip(sizes)
        .map(|(number, padding)| run.hand_in("notes", number, padding))
        .collect();
    let taken: Vec<_> = join_all(receipts).await.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, true, true]);
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes"), [1, 3, 4]);
}

/// More must go than is read ahead at a time.
#[tokio::test]
async fn one_large_record_may_take_the_place_of_thousands() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let run = Run::open(&dir, &far, |options| {
        options
            .with_max_batch(64, 1 << 20)
            .with_max_bytes(256 << 10)
            .with_overflow(Overflow::DropOldest)
    })
    .await;
    let _ = run.places("notes", 1..=5000).await;
    let before = run.spool.stats();
    let _ = run.hand_in("notes", 5001, 200 << 10).await.unwrap();
    let after = run.spool.stats();
    assert!(after.bytes <= 256 << 10);
    // The next one would have had room as well, had one more gone.
    assert!(after.bytes > (256 << 10) - 200, "{before:?} {after:?}");
    far.is(Way::Up);
    run.drain().await;
    assert_eq!(far.has("notes").len() as u64, after.records);
    assert_eq!(far.has("notes").last(), Some(&5001));
}

//! What a tail lets go of, gives up and takes for lost, case by case; and a model of the whole.

mod model;

use std::collections::BTreeMap;

use super::*;
use crate::replicas;

fn entry(tail: &mut Tail<()>, lane: LaneId, first: u64, last: u64, term: u64, history: &str) {
    let records = vec![(); (last - first + 1) as usize];
    let batch = Batch::new(lane, "q".into(), first, records);
    let history: Arc<str> = history.into();
    let seen = Seen { term, stamp: 0 };
    tail.acknowledged(batch, 100, seen, Some(&history), false, Instant::now());
}

#[test]
fn what_the_same_server_no_longer_has_was_removed_and_is_not_sent_again() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    entry(&mut tail, lane, 1, 5, 1, "one");
    let seen = Seen { term: 2, stamp: 0 };
    let shortfall = tail.reached(lane, 0, seen, Some(&"one".into()));
    assert_eq!(shortfall.removed, Some((1, 5)));
    assert_eq!(tail.step(), None);
    assert_eq!(tail.acknowledged_of(lane), Some(0));

    entry(&mut tail, lane, 6, 9, 2, "one");
    let shortfall = tail.reached(lane, 0, seen, Some(&"two".into()));
    assert_eq!(
        (shortfall.lost, shortfall.missing),
        (Some((1, 5)), Some((6, 9)))
    );
    assert_eq!(tail.step(), Some(Step::Send { after: 0 }));
}

#[test]
fn what_is_not_kept_any_more_is_lost_and_the_rest_is_given_back() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    entry(&mut tail, lane, 1, 5, 1, "one");
    entry(&mut tail, lane, 6, 9, 1, "one");
    let _ = tail.shed();
    let seen = Seen { term: 2, stamp: 0 };
    let shortfall = tail.reached(lane, 3, seen, Some(&"two".into()));
    assert_eq!(shortfall.lost, Some((4, 5)));
    assert_eq!(shortfall.missing, Some((6, 9)));
}

#[test]
fn without_replicas_age_lets_go_and_what_is_waited_for_stays() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    let now = Instant::now();
    entry(&mut tail, lane, 1, 5, 1, "one");
    let (age, later) = (Duration::from_secs(10), now + Duration::from_secs(60));
    let (teller, replicas) = replicas::channel();
    teller.begin_term(1, None, false);
    let alone = replicas.view();
    assert!(tail.trim(&alone, 0, age, now).is_empty() && !tail.is_empty());
    teller.expect_replicas(true);
    let _ = tail.trim(&replicas.view(), 0, age, later);
    let _ = tail.trim(&alone, 1, age, later);
    assert!(!tail.is_empty(), "replicas are to have it first");
    let _ = tail.trim(&alone, 0, age, later);
    assert!(tail.is_empty());
}

#[test]
fn what_an_earlier_run_has_left_is_asked_for_before_age_lets_it_go() {
    let mut tail: Tail<()> = Tail::new();
    let lane = LaneId::fresh();
    let disk = OnDisk {
        lane: LaneId::NONE,
        first: 1,
        last: 5,
        bytes: 10,
    };
    let now = Instant::now();
    tail.left(lane, 1, 5, disk, now);
    let later = now + Duration::from_secs(60);
    let trim = |tail: &mut Tail<()>| tail.trim(&View::default(), 0, Duration::ZERO, later);
    assert!(trim(&mut tail).is_empty() && !tail.is_empty());
    tail.begin_pass(None);
    let seen = Seen { term: 0, stamp: 0 };
    let _ = tail.reached(lane, 5, seen, None);
    let gone = trim(&mut tail);
    assert_eq!(gone.first().and_then(|gone| gone.disk), Some(disk));
    assert!(tail.is_empty());
}

/// Where they are on disk is a lane that is done with up to a number, so they leave it in order.
#[test]
fn what_is_on_disk_goes_in_order_whatever_is_given_up() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    for first in [1, 6, 11] {
        // Of several terms, so that they do not become one.
        entry(&mut tail, lane, first, first + 4, first, "one");
        let disk = OnDisk {
            lane: LaneId::NONE,
            first,
            last: first + 4,
            bytes: 10,
        };
        assert!(tail.spilled(lane, first + 4, disk).is_some());
    }
    let seen = Seen { term: 2, stamp: 0 };
    let _ = tail.reached(lane, 5, seen, Some(&"two".into()));
    assert!(tail.give_up_missing(10).is_some());
    let mut shed = || {
        tail.shed()
            .and_then(|(_, gone)| gone.disk)
            .map(|disk| disk.first)
    };
    assert_eq!((shed(), shed()), (Some(1), Some(6)));
    assert!(tail.shed().is_none(), "it is about to be sent again");
    tail.sent_again(15, seen, Some(&"two".into()), Instant::now());
    let mut gone = BTreeMap::new();
    while let Some((
        _,
        Gone {
            disk: Some(disk), ..
        },
    )) = tail.shed()
    {
        gone.insert(gone.len(), disk.first);
    }
    assert_eq!(gone.into_values().collect::<Vec<_>>(), [11]);
    assert_eq!(tail.size(), Size::default());
}

/// A Redis without replicas that is out for longer than that may come back without its last seconds.
#[test]
fn nothing_grows_old_while_redis_is_out_or_before_it_has_been_asked() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    let (age, now) = (Duration::from_secs(10), Instant::now());
    let later = now + Duration::from_secs(60);
    let (teller, replicas) = replicas::channel();
    teller.begin_term(1, None, false);
    entry(&mut tail, lane, 1, 5, 1, "one");
    let left = OnDisk {
        lane: LaneId::NONE,
        first: 1,
        last: 5,
        bytes: 10,
    };
    tail.left(lane, 6, 10, left, now);
    teller.interrupt();
    let _ = tail.trim(&replicas.view(), 0, age, later);
    teller.begin_term(2, None, false);
    let _ = tail.trim(&replicas.view(), 0, age, later);
    assert_eq!(tail.size().memory_records, 5);
    let seen = Seen { term: 2, stamp: 0 };
    let shortfall = tail.reached(lane, 3, seen, None);
    assert_eq!(shortfall.missing, Some((4, 10)));
    tail.sent_again(5, seen, None, now);
    let _ = tail.trim(&replicas.view(), 0, age, later);
    assert_eq!(tail.size().memory_records, 0);
    assert_eq!(tail.size().disk_records, 5, "it is still missing");
    // Left by an earlier run, and nobody tells of terms.
    let mut tail: Tail<()> = Tail::new();
    tail.left(lane, 1, 5, left, now);
    let _ = tail.trim(&View::default(), 0, Duration::ZERO, now);
    assert!(!tail.is_empty());
}

/// Small batches of a long partition would be as many entries for ever.
#[test]
fn what_is_on_disk_takes_little_memory_however_small_its_batches() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    let disk = |number| OnDisk {
        lane: LaneId::NONE,
        first: number,
        last: number,
        bytes: 10,
    };
    for number in 1..=5_000 {
        entry(&mut tail, lane, number, number, 1, "one");
        assert!(tail.spilled(lane, number, disk(number)).is_some());
    }
    assert_eq!(tail.entries.len(), 5);
    assert_eq!(tail.size().disk_records, 5_000);
    // Those that somebody waits for are not made one with others before.
    for number in 5_001..=5_010 {
        entry(&mut tail, lane, number, number, 1, "one");
        tail.entries.back_mut().unwrap().held = true;
        assert!(tail.spilled(lane, number, disk(number)).is_some());
    }
    assert!(tail.is_on_disk(lane, 5_003));
    tail.let_go(lane, 5_010, false);
    tail.join_all();
    assert!(tail.entries.len() <= 6);
    // All of it is read and sent again, and takes no memory for that afterwards.
    let seen = Seen { term: 2, stamp: 0 };
    let shortfall = tail.reached(lane, 0, seen, Some(&"two".into()));
    assert_eq!(shortfall.missing, Some((1, 5_010)));
    while let Some(Step::Load(_)) = tail.step() {
        let entry = tail.first_missing().unwrap();
        let (first, last) = (entry.first, entry.last);
        let records = vec![(); (last - first + 1) as usize];
        tail.loaded(Batch::new(lane, "q".into(), first, records), 1 << 20);
        assert_eq!(tail.step(), Some(Step::Send { after: first - 1 }));
        assert_eq!(tail.size().memory_bytes, 1 << 20);
        tail.sent_again(last, seen, Some(&"two".into()), Instant::now());
        assert_eq!(tail.size().memory_bytes, 0);
    }
    assert!(!tail.is_in_pass());
    let freed: u64 = std::iter::from_fn(|| tail.shed())
        .filter_map(|(_, gone)| gone.disk)
        .map(OnDisk::records)
        .sum();
    assert_eq!(freed, 5_010);
}

/// What was waited for while it was missing is waited for no longer, or it would stay for ever.
#[test]
fn what_is_let_go_while_it_is_missing_goes_once_it_is_safe() {
    let mut tail = Tail::new();
    let lane = LaneId::fresh();
    let (teller, replicas) = replicas::channel();
    teller.begin_term(1, None, true);
    entry(&mut tail, lane, 1, 5, 0, "one");
    tail.entries.back_mut().unwrap().held = true;
    let seen = Seen { term: 1, stamp: 0 };
    let _ = tail.reached(lane, 0, seen, Some(&"two".into()));
    tail.let_go(lane, 5, true);
    tail.sent_again(5, seen, Some(&"two".into()), Instant::now());
    let reading = teller.begin_reading();
    teller.reached(reading, 1);
    let _ = tail.trim(&replicas.view(), 1, Duration::MAX, Instant::now());
    assert!(tail.is_empty());
}

//! How long something is kept, and what it takes meanwhile.

use super::*;

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

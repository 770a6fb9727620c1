//! The tail against primaries that die with what their replicas lack, and readings that come when they like.

mod kept;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::replicas::{self, Replicas, Teller};

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The queue sends so many records of one of its lanes.
    Send { lane: usize, count: u64 },
    /// The answer to what was sent last comes only after the next act.
    SlowAnswer { lane: usize, count: u64 },
    /// The replica takes over so many writes of what the primary has.
    Replicate(usize),
    /// A reading begins, and one that began earlier may turn out to be reached.
    Read,
    /// The primary dies, and the replica is promoted. Another one has copied what it has.
    Failover,
    /// The connection is made anew, to the same server.
    Reconnect,
    /// The queue looks at what it has been told, and does as many steps of a pass.
    Pass(usize),
    /// The oldest entries go to disk.
    Spill(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..2usize, 1..5u64).prop_map(|(lane, count)| Act::Send { lane, count }),
        2 => (0..2usize, 1..5u64).prop_map(|(lane, count)| Act::SlowAnswer { lane, count }),
        4 => (0..6usize).prop_map(Act::Replicate),
        4 => Just(Act::Read),
        2 => Just(Act::Failover),
        1 => Just(Act::Reconnect),
        4 => (1..6usize).prop_map(Act::Pass),
        2 => (1..3usize).prop_map(Act::Spill),
    ];
    proptest::collection::vec(act, 1..80)
}

/// The writes that a server has, in order: lane and number.
type Writes = Vec<(LaneId, u64)>;

struct World {
    lanes: [LaneId; 2],
    next: [u64; 2],
    acknowledged: [u64; 2],
    tail: Tail<()>,
    teller: Teller,
    replicas: Replicas,
    view: View,
    passed: u64,
    primary: Writes,
    replica: usize,
    server: u64,
    /// Readings, and how many writes the primary had then.
    readings: Vec<(u64, usize)>,
    slow: Option<(Batch<()>, Seen, Option<Arc<str>>)>,
    spilled: u64,
    all: Writes,
}

impl World {
    fn new() -> Self {
        let (teller, replicas) = replicas::channel();
        let mut world = Self {
            lanes: [LaneId::from_bytes([1; 16]), LaneId::from_bytes([2; 16])],
            next: [1; 2],
            acknowledged: [0; 2],
            tail: Tail::new(),
            view: View::default(),
            passed: 0,
            teller,
            replicas,
            primary: Vec::new(),
            replica: 0,
            server: 0,
            readings: Vec::new(),
            slow: None,
            spilled: 0,
            all: Vec::new(),
        };
        world.begin_term();
        world
    }

    fn history(&self) -> Option<Arc<str>> {
        Some(self.server.to_string().into())
    }

    fn begin_term(&mut self) {
        self.readings.clear();
        self.teller.begin_term(self.server, self.history(), true);
    }

    fn last_of(&self, lane: LaneId) -> u64 {
        let of_lane = self.primary.iter().filter(|(of, _)| *of == lane);
        of_lane.map(|(_, number)| *number).max().unwrap_or(0)
    }

    /// As the script does. Says whether there was no gap.
    fn apply(&mut self, batch: &Batch<()>) -> Result<(), u64> {
        let last = self.last_of(batch.lane());
        if last < batch.after() {
            return Err(last);
        }
        for number in batch.first().max(last + 1)..=batch.last() {
            self.primary.push((batch.lane(), number));
        }
        Ok(())
    }

    fn seen(&self, term: u64) -> Seen {
        let stamp = self.replicas.stamp();
        Seen { term, stamp }
    }

    /// Whether the queue may send anything but the steps of a pass: not before it has heard of the server that
    /// it would reach, since what it sends is for one connection alone.
    fn may_send(&self) -> bool {
        self.slow.is_none()
            && !self.tail.is_in_pass()
            && self.passed == self.view.term
            && self.view.generation == self.server
    }

    fn send(&mut self, lane: usize, count: u64, slow: bool) {
        if !self.may_send() {
            return;
        }
        let first = self.next[lane];
        self.next[lane] += count;
        let id = self.lanes[lane];
        let batch = Batch::new(id, "q".into(), first, vec![(); count as usize])
            .with_after(self.acknowledged[lane]);
        let (term, history) = (self.view.term, self.view.history.clone());
        self.apply(&batch)
            .expect("nothing is missing on this server");
        self.all
            .extend((first..first + count).map(|number| (id, number)));
        if slow {
            let seen = Seen { term, stamp: 0 };
            self.slow = Some((batch, seen, history));
        } else {
            let seen = self.seen(term);
            self.note(batch, seen, history.as_ref());
        }
    }

    fn answer(&mut self) {
        if let Some((batch, seen, history)) = self.slow.take() {
            let seen = self.seen(seen.term);
            self.note(batch, seen, history.as_ref());
        }
    }

    fn note(&mut self, batch: Batch<()>, seen: Seen, history: Option<&Arc<str>>) {
        let lane = self.lanes.iter().position(|lane| *lane == batch.lane());
        let lane = lane.expect("one of ours");
        self.acknowledged[lane] = batch.last();
        let now = Instant::now();
        self.tail
            .acknowledged(batch, 100, seen, history, false, now);
    }

    fn read(&mut self) {
        let reading = self.teller.begin_reading();
        self.readings.push((reading, self.primary.len()));
        let passed = self.readings.iter().filter(|(_, at)| *at <= self.replica);
        if let Some((reading, _)) = passed.max() {
            self.teller.reached(*reading, 1);
        }
    }

    fn pass(&mut self, steps: usize) {
        if self.slow.is_some() {
            return;
        }
        self.view = self.replicas.view();
        if self.passed != self.view.term {
            self.passed = self.view.term;
            self.tail.begin_pass(None);
        }
        for _ in 0..steps {
            self.step();
        }
        let gone = self.tail.trim(&self.view, 0, Duration::MAX, Instant::now());
        for disk in gone.into_iter().filter_map(|gone| gone.disk) {
            assert!(disk.last <= self.spilled);
        }
    }

    fn step(&mut self) {
        if self.view.generation != self.server {
            // Each step is for the server of one connection.
            return;
        }
        let (term, history) = (self.view.term, self.view.history.clone());
        match self.tail.step() {
            None => {}
            Some(Step::Ask(lane)) => {
                let (last, seen) = (self.last_of(lane), self.seen(term));
                let shortfall = self.tail.reached(lane, last, seen, history.as_ref());
                assert_eq!((shortfall.lost, shortfall.removed), (None, None));
            }
            Some(Step::Load(_)) => {
                let entry = self.tail.first_missing().expect("it is to be loaded");
                let (lane, first, last) = (entry.lane, entry.first, entry.last);
                let records = vec![(); (last - first + 1) as usize];
                let batch = Batch::new(lane, "q".into(), first, records);
                self.tail.loaded(batch, 100);
            }
            Some(Step::Send { after }) => {
                self.tail.merge_missing(7, 1000);
                let entry = self.tail.first_missing().expect("it is to be sent");
                let batch = entry.memory.clone().expect("it is in memory");
                let batch = batch.with_after(after);
                self.apply(&batch).expect("a step leaves no gap");
                let seen = self.seen(term);
                self.tail
                    .sent_again(batch.last(), seen, history.as_ref(), Instant::now());
            }
        }
    }

    fn spill(&mut self, entries: usize) {
        let found: Vec<_> = self
            .tail
            .to_spill(100 * entries, None)
            .map(|entry| (entry.lane, entry.first, entry.last))
            .collect();
        for (lane, first, last) in found {
            let disk = OnDisk {
                lane: LaneId::NONE,
                first: self.spilled + 1,
                last: self.spilled + last - first + 1,
                bytes: 10,
            };
            self.spilled = disk.last;
            assert!(self.tail.spilled(lane, last, disk).is_some());
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send { lane, count } => self.send(lane, count, false),
            Act::SlowAnswer { lane, count } => self.send(lane, count, true),
            Act::Replicate(writes) => {
                self.replica = (self.replica + writes).min(self.primary.len());
            }
            Act::Read => self.read(),
            Act::Failover => {
                self.primary.truncate(self.replica);
                self.server += 1;
                self.begin_term();
            }
            Act::Reconnect => self.begin_term(),
            Act::Pass(steps) => self.pass(steps),
            Act::Spill(entries) => self.spill(entries),
        }
        if !matches!(act, Act::SlowAnswer { .. }) {
            self.answer();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_a_primary_takes_with_it_is_given_back_once_and_in_order(acts in acts()) {
        let mut world = World::new();
        world.view = world.replicas.view();
        world.passed = world.view.term;
        for act in acts {
            world.act(act);
        }
        world.answer();
        world.pass(1000);
        world.pass(1000);
        prop_assert!(!world.tail.is_in_pass());
        prop_assert_eq!(&world.primary, &world.all);
        // And once replicas have it, nothing is kept.
        world.replica = world.primary.len();
        world.read();
        world.pass(1);
        prop_assert!(world.tail.is_empty());
        prop_assert_eq!(world.tail.size(), Size::default());
    }
}

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
    assert!(tail.give_up_missing(15).is_some());
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
    assert_eq!(gone.into_values().collect::<Vec<_>>(), [1, 6, 11]);
    assert_eq!(tail.size(), Size::default());
}

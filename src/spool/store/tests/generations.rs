//! Generations in real files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
};

use super::{
    super::generations::{Generations, Opener},
    *,
};
use crate::spool::dir::{Directory, tests::Scratch};

/// What is done with, and what is parked.
#[derive(Default)]
struct Wanted {
    done: BTreeMap<LaneId, u64>,
    parked: BTreeSet<(LaneId, u64)>,
}

impl Live for Wanted {
    fn done(&self, lane: LaneId) -> u64 {
        self.done.get(&lane).copied().unwrap_or(0)
    }

    fn is_parked(&self, lane: LaneId, number: u64) -> bool {
        self.parked.contains(&(lane, number))
    }
}

/// A spool that is written to by hand.
struct Bench {
    scratch: Scratch,
    directory: Option<Arc<Directory>>,
    store: Option<Generations>,
    commit: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            scratch: Scratch::new(),
            directory: None,
            store: None,
            commit: 0,
        };
        bench.open();
        bench
    }

    /// As after a kill.
    fn open(&mut self) -> Audit {
        self.store = None;
        self.directory = None;
        let directory = Arc::new(Directory::open(self.scratch.path(), false).unwrap());
        let opener = Opener {
            directory: directory.clone(),
            strict: false,
            // Every commit rolls over that is asked to.
            generation_bytes: 1,
            ring: Arc::default(),
        };
        let mut opened = opener.open().unwrap();
        opened.store.begin(&Voids::default()).unwrap();
        self.store = Some(opened.store);
        self.directory = Some(directory);
        opened.audit
    }

    fn store(&mut self) -> &mut Generations {
        self.store.as_mut().unwrap()
    }

    fn write(&mut self, lane: LaneId, first: u64, records: &[&[u8]]) {
        self.commit += 1;
        let id = self.directory.as_ref().unwrap().id().unwrap();
        let chunks = commit(id, self.commit, chunks(lane, first, records));
        let store = self.store();
        store.apply(chunks).unwrap();
        store.flush().unwrap();
        store.sync().unwrap();
    }

    fn roll_over(&mut self) {
        assert!(self.store().roll_over().unwrap());
    }

    fn read(&self, lane: LaneId, from: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        let store = self.store.as_ref().unwrap();
        store
            .scan(Kind::Waiting, lane, from, &mut |key, value| {
                Frame::parse(key, &value).unwrap();
                numbers.push(key.number());
                ControlFlow::Continue(())
            })
            .unwrap();
        numbers
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.scratch.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("gen-")).collect();
        names.sort();
        names
    }

    fn reclaim(&mut self, wanted: &Wanted) -> Vec<Reclaim> {
        let mut done = Vec::new();
        while let Some(reclaim) = self.store().reclaimable(wanted) {
            self.store().reclaim(&reclaim, wanted).unwrap();
            done.push(reclaim);
        }
        done
    }
}

#[test]
fn a_lane_is_read_across_more_generations_than_stay_awake() {
    let mut bench = Bench::new();
    let (lane, other) = (LaneId::fresh(), LaneId::fresh());
    for number in 1..=20 {
        bench.write(lane, number, &[b"a"]);
        bench.write(other, number, &[b"b"]);
        bench.roll_over();
    }
    assert_eq!(bench.names().len(), 21);
    for again in 0..2 {
        assert_eq!(bench.read(lane, 1), (1..=20).collect::<Vec<_>>());
        let tail = bench.read(other, 15);
        assert!(tail.ends_with(&(15..=20).collect::<Vec<_>>()), "{tail:?}");
        if again == 0 {
            bench.open();
        }
    }
    assert!(bench.read(LaneId::fresh(), 0).is_empty());
}

#[test]
fn what_is_done_with_goes_and_what_others_need_is_named() {
    let mut bench = Bench::new();
    let (lane, other) = (LaneId::fresh(), LaneId::fresh());
    let large = [7; 3000];
    for first in [1, 11, 21] {
        bench.write(lane, first, &[&large[..]; 10]);
        bench.write(other, first, &[&large[..]; 10]);
        bench.roll_over();
    }
    let mut wanted = Wanted::default();
    assert_eq!(bench.reclaim(&wanted), []);

    // The one in the middle can go; those beside it have both of the lanes.
    wanted.done.insert(other, 40);
    assert_eq!(bench.reclaim(&wanted), []);
    wanted.done.insert(lane, 10);
    let gone = bench.reclaim(&wanted);
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].generation, gone[0].copy), (1, false));
    assert_eq!(gone[0].lanes, [lane, other]);
    assert_eq!(bench.names(), ["gen-2", "gen-3", "gen-4"]);

    wanted.done.insert(lane, 30);
    let gone = bench.reclaim(&wanted);
    let numbers: Vec<_> = gone.iter().map(|reclaim| reclaim.generation).collect();
    assert_eq!(numbers, [2, 3]);
    assert!(gone[1].lanes.is_empty() && !gone[1].others_stay);
    assert_eq!(bench.names(), ["gen-4"]);
    bench.open();
    assert!(bench.read(lane, 1).is_empty());
}

#[test]
fn a_small_remnant_is_copied_and_read_from_where_it_is_then() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    let large = [7; 3000];
    for number in 1..=100 {
        bench.write(lane, number, &[&large]);
    }
    bench.roll_over();
    bench.write(lane, 101, &[b"more"]);
    let wanted = Wanted {
        done: [(lane, 97)].into(),
        ..Wanted::default()
    };
    let gone = bench.reclaim(&wanted);
    assert_eq!(gone.len(), 1);
    assert!(gone[0].copy && gone[0].others_stay);
    assert_eq!(gone[0].lanes, [lane]);
    assert_eq!(bench.names(), ["gen-2"]);
    assert_eq!(bench.read(lane, 98), [98, 99, 100, 101]);
    bench.open();
    assert_eq!(bench.read(lane, 98), [98, 99, 100, 101]);
}

#[test]
fn what_a_kill_while_removing_leaves_is_removed() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    let gone = bench.scratch.path().join("gen-77.gone");
    fs::create_dir_all(gone.join("blobs")).unwrap();
    fs::write(gone.join("db"), "half").unwrap();
    bench.open();
    assert_eq!(bench.names(), ["gen-1", "gen-2"]);
    assert_eq!(bench.read(lane, 1), [1]);
}

#[test]
fn generations_that_were_never_written_to_do_not_gather() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    for _ in 0..5 {
        bench.open();
    }
    assert_eq!(bench.names(), ["gen-1", "gen-6"]);
    // Nor do those that were killed while they were made.
    for number in [7, 8, 9] {
        fs::create_dir(bench.scratch.path().join(format!("gen-{number}"))).unwrap();
    }
    fs::write(bench.scratch.path().join("gen-8/db"), "").unwrap();
    fs::write(bench.scratch.path().join("gen-9/conf"), "ha").unwrap();
    bench.open();
    assert_eq!(bench.names(), ["gen-1", "gen-10"]);
    assert_eq!(bench.read(lane, 1), [1]);
}

#[test]
fn a_generation_that_cannot_be_read_is_set_aside_and_never_deleted() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    bench.roll_over();
    bench.write(lane, 2, &[b"b"]);
    bench.store = None;
    bench.directory = None;
    // It opens, and reading it fails.
    let db = bench.scratch.path().join("gen-1/db");
    fs::remove_file(&db).unwrap();
    fs::create_dir(&db).unwrap();
    fs::write(db.join("kept"), "").unwrap();
    bench.open();
    assert_eq!(bench.names(), ["gen-2", "gen-3"]);
    assert_eq!(bench.read(lane, 1), [2]);
    let kept = fs::read_dir(bench.scratch.path().join("quarantine")).unwrap();
    let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].join("db/kept").exists());
}

#[test]
fn what_is_missing_may_have_been_in_a_file_of_zeros_which_is_kept() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    let db = bench.scratch.path().join("gen-1/db");
    let length = fs::metadata(&db).unwrap().len();
    bench.store = None;
    fs::write(&db, vec![0; length as usize]).unwrap();
    let directory = bench.directory.clone().unwrap();
    let opener = Opener {
        directory,
        strict: false,
        generation_bytes: 1,
        ring: Arc::default(),
    };
    let mut opened = opener.open().unwrap();
    opened.store.keep_damaged();
    opened.store.begin(&Voids::default()).unwrap();
    assert_eq!(bench.names(), ["gen-2"]);
    let kept = fs::read_dir(bench.scratch.path().join("quarantine")).unwrap();
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_void_commit_is_not_read_and_keeps_no_room() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    bench.write(lane, 2, &[&[7; 30_000]]);
    bench.store = None;
    let opener = Opener {
        directory: bench.directory.clone().unwrap(),
        strict: false,
        generation_bytes: 1,
        ring: Arc::default(),
    };
    let opened = opener.open().unwrap();
    let verdict = opened.audit.conclude(None, Some(2));
    bench.store = Some(opened.store);
    bench.store().begin(&verdict.voids).unwrap();
    assert_eq!(bench.read(lane, 1), [1]);
    let wanted = Wanted {
        done: [(lane, 1)].into(),
        ..Wanted::default()
    };
    let gone = bench.reclaim(&wanted);
    assert_eq!(gone.len(), 1);
    assert!(!gone[0].copy);
}

#[test]
fn part_of_a_record_is_not_read() {
    let mut bench = Bench::new();
    let lane = LaneId::fresh();
    bench.write(lane, 1, &[b"a"]);
    // As if the machine had died in the middle of the write.
    bench.commit += 1;
    let id = bench.directory.as_ref().unwrap().id().unwrap();
    let mut torn = commit(id, bench.commit, chunks(lane, 2, &[&[7; 100_000]]));
    torn.remove(1);
    bench.store().apply(torn).unwrap();
    bench.store().flush().unwrap();
    bench.open();
    assert_eq!(bench.read(lane, 1), [1]);
    let wanted = Wanted {
        done: [(lane, 1)].into(),
        ..Wanted::default()
    };
    assert_eq!(bench.reclaim(&wanted).len(), 1);
}

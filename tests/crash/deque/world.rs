//! What must be there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::{sleep, timeout};

use super::{
    Step,
    process::{Ask, Life, Outcome, Process, Record, Settings, Tell},
};
use crate::PLENTY;

/// Accepted, and neither delivered nor parked nor expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) id: u32,
    /// Its caller was told that it is safe.
    pub(super) sure: bool,
    pub(super) expires: Option<i64>,
    /// It has been expired, and it has not been: the batch it is in may be of either time.
    pub(super) wavering: bool,
}

pub(super) struct World {
    pub(super) process: Process,
    pub(super) life: Life,
    pub(super) seed: u64,
    pub(super) next_id: u32,
    pub(super) queues: [VecDeque<Waiting>; 3],
    /// The last numbers of the lanes.
    pub(super) last: HashMap<String, u64>,
    pub(super) parked: BTreeSet<u32>,
    pub(super) delivered: BTreeSet<u32>,
    pub(super) queue_of: BTreeMap<u32, u8>,
    pub(super) taking: u64,
    pub(super) lossy: Option<u64>,
    pub(super) batches: u64,
    /// It counts in whole chunks, and holds more than what is here: what was delivered of one and, after a
    /// kill, what was not noted as delivered, or not answered, yet.
    pub(super) vague: bool,
    pub(super) opened: bool,
    pub(super) appended: Option<Vec<(u32, Outcome)>>,
    pub(super) flushed: bool,
    pub(super) stats: Option<(u64, u64)>,
    pub(super) told_parked: Option<Vec<u32>>,
    pub(super) closed: Option<u64>,
}

pub(super) fn is_poison(id: u32) -> bool {
    id % 23 == 22
}

impl World {
    pub(super) async fn new(
        seed: u64,
        dir: &Path,
        max_records: Option<u64>,
        settings: Settings,
    ) -> Self {
        let base = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let life = Life {
            dir: dir.join("spool"),
            spooled: settings.spooled,
            fast: settings.fast,
            max_records,
            max_batch: settings.max_batch,
            base_s: base.unwrap().as_secs(),
            jump: 0,
        };
        let mut world = Self {
            process: Process::start(&life),
            life,
            seed,
            next_id: 0,
            queues: Default::default(),
            last: HashMap::new(),
            parked: BTreeSet::new(),
            delivered: BTreeSet::new(),
            queue_of: BTreeMap::new(),
            taking: 0,
            lossy: None,
            batches: 0,
            vague: false,
            opened: false,
            appended: None,
            flushed: false,
            stats: None,
            told_parked: None,
            closed: None,
        };
        world.until("it opens", |world| world.opened).await;
        world
    }

    pub(super) async fn step(&mut self, step: &Step) {
        match step {
            Step::Append { records, taking } => {
                self.taking = *taking;
                self.hand_in(records).await;
                self.until("its answers", |world| world.appended.is_some())
                    .await;
                self.note_answers();
                self.taking = 0;
            }
            Step::Deliver { most, lossy } => {
                (self.taking, self.lossy) = (*most, *lossy);
                self.until("deliveries", |world| {
                    world.taking == 0 || !world.has_deliverable()
                })
                .await;
                (self.taking, self.lossy) = (0, None);
            }
            Step::Drain => self.drain().await,
            Step::Jump(hours) => {
                let (from, to) = (self.life.jump, *hours);
                self.life.jump = to;
                self.process.ask(&Ask::Jump(to)).await;
                for waiting in self.queues.iter_mut().flatten() {
                    let expired = |now| waiting.expires.is_some_and(|at| at <= now);
                    waiting.wavering |= expired(from) != expired(to);
                }
            }
            Step::Close(settings) => {
                self.check().await;
                self.process.ask(&Ask::Close).await;
                self.until("it is closed", |world| world.closed.is_some())
                    .await;
                let left = self.closed.take().unwrap();
                if !self.vague {
                    assert_eq!(left, self.waiting(), "seed {}: left", self.seed);
                }
                self.open(*settings).await;
                self.check().await;
            }
            Step::Crash(settings) => {
                self.kill().await;
                self.open(*settings).await;
                self.check().await;
            }
            Step::CrashAppending {
                records,
                after_us,
                settings,
            } => {
                self.hand_in(records).await;
                let listening = self.until("its answers", |world| world.appended.is_some());
                let _ = timeout(Duration::from_micros(*after_us), listening).await;
                self.kill().await;
                if self.appended.is_some() {
                    self.note_answers();
                }
                self.open(*settings).await;
                self.check().await;
            }
        }
    }

    async fn hand_in(&mut self, records: &[(u8, u32, Option<i64>)]) {
        let mut handed_in = Vec::new();
        for (queue, size, expires) in records {
            let id = self.next_id;
            self.next_id += 1;
            let expires = expires.filter(|_| *size > 0);
            handed_in.push(Record {
                queue: *queue,
                id,
                size: *size,
                expires,
                sound: None,
            });
            self.queue_of.insert(id, *queue);
            self.queues[usize::from(*queue)].push_back(Waiting {
                id,
                sure: false,
                expires,
                wavering: false,
            });
        }
        self.process.ask(&Ask::Append(handed_in)).await;
    }

    fn note_answers(&mut self) {
        let mut full = false;
        for (id, outcome) in self.appended.take().unwrap() {
            let queue = &mut self.queues[usize::from(self.queue_of[&id])];
            match outcome {
                Outcome::Taken => {
                    if let Some(waiting) = queue.iter_mut().find(|waiting| waiting.id == id) {
                        waiting.sure = true;
                    }
                }
                Outcome::Refused { kind, landed } => {
                    assert!(!landed, "seed {}: {id} {kind}", self.seed);
                    assert!(!self.delivered.contains(&id), "seed {}: {id}", self.seed);
                    queue.retain(|waiting| waiting.id != id);
                    // Who waits for it has been told instead.
                    self.parked.remove(&id);
                    full |= kind == "SpoolFull";
                    let known = ["SpoolFull", "Expired", "Foreign", "Refused"];
                    assert!(known.contains(&&*kind), "seed {}: {id} {kind}", self.seed);
                }
            }
        }
        if full {
            let most = self.life.max_records;
            assert!(most.is_some(), "seed {}: full without a bound", self.seed);
        }
    }

    fn waiting(&self) -> u64 {
        self.queues.iter().map(|queue| queue.len() as u64).sum()
    }

    /// Some of what waits has gone, and maybe not a whole chunk.
    pub(super) fn has_gone(&mut self) {
        self.vague |= self.waiting() > 0;
    }

    pub(super) fn is_expired(&self, waiting: &Waiting) -> bool {
        waiting.expires.is_some_and(|at| at <= self.life.jump)
    }

    fn has_deliverable(&self) -> bool {
        let mut all = self.queues.iter().flatten();
        all.any(|waiting| waiting.sure && !self.is_expired(waiting))
    }

    async fn drain(&mut self) {
        self.taking = u64::MAX;
        self.process.ask(&Ask::Flush).await;
        self.until("all is delivered", |world| world.flushed).await;
        self.flushed = false;
        self.taking = 0;
        for waiting in self.queues.iter_mut().flat_map(std::mem::take) {
            let may_be_gone = !waiting.sure
                || waiting.wavering
                || waiting.expires.is_some_and(|at| at <= self.life.jump);
            assert!(may_be_gone, "seed {}: {waiting:?} is lost", self.seed);
        }
        self.vague = false;
        self.process.ask(&Ask::Parked).await;
        self.until("the parked ones", |world| world.told_parked.is_some())
            .await;
        let mut parked = self.told_parked.take().unwrap();
        parked.sort_unstable();
        let expected: Vec<_> = self.parked.iter().copied().collect();
        assert_eq!(parked, expected, "seed {}: parked", self.seed);
        self.check().await;
    }

    /// Compares how much it says that it holds.
    async fn check(&mut self) {
        let mut held = (0, 0);
        for _ in 0..2_000 {
            self.process.ask(&Ask::Stats).await;
            self.until("its counts", |world| world.stats.is_some())
                .await;
            let (records, parked) = self.stats.take().unwrap();
            if let Some(most) = self.life.max_records {
                // A record that is parked is in a chunk of waiting ones until all of that is done with.
                assert!(records <= most, "seed {}: {records} > {most}", self.seed);
            }
            let sure = self.queues.iter().flatten();
            let sure = sure.filter(|waiting| waiting.sure).count() as u64;
            if self.vague {
                assert!(records + parked >= sure, "seed {}: {records}", self.seed);
                return;
            }
            if (records, parked) == (self.waiting(), self.parked.len() as u64) {
                return;
            }
            held = (records, parked);
            // What it is doing just now changes it.
            sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "seed {}: it does not hold {} and {}, but {held:?}",
            self.seed,
            self.waiting(),
            self.parked.len()
        );
    }

    async fn kill(&mut self) {
        self.process.child.start_kill().unwrap();
        while let Some(tell) = self.process.hear().await {
            self.note(tell).await;
        }
        self.process.child.wait().await.unwrap();
        self.vague = true;
    }

    async fn open(&mut self, settings: Settings) {
        self.life.spooled = settings.spooled;
        self.life.fast = settings.fast;
        self.life.max_batch = settings.max_batch;
        self.opened = false;
        self.process = Process::start(&self.life);
        self.until("it opens", |world| world.opened).await;
    }

    /// Serves the process until `is_so`.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let serving = async {
            while !is_so(self) {
                match self.process.hear().await {
                    Some(tell) => self.note(tell).await,
                    None => panic!("seed {}: it has ended before {what}", self.seed),
                }
            }
        };
        if timeout(PLENTY, serving).await.is_err() {
            panic!(
                "seed {}: it hangs before {what}: {:?}",
                self.seed, self.queues
            );
        }
    }

    async fn note(&mut self, tell: Tell) {
        match tell {
            Tell::Refused(why) => panic!("seed {}: it does not open: {why}", self.seed),
            Tell::Opened => self.opened = true,
            Tell::Appended(outcomes) => self.appended = Some(outcomes),
            Tell::Flushed => self.flushed = true,
            Tell::Stats { records, parked } => self.stats = Some((records, parked)),
            Tell::Parked(parked) => self.told_parked = Some(parked),
            Tell::Closed(left) => self.closed = Some(left),
            Tell::Batch(sent) => {
                let id = sent.id;
                let answer = self.apply(sent);
                self.process.ask(&Ask::Answer(id, answer)).await;
            }
        }
    }
}

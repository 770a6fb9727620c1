//! The whole spool, in a process that is killed, against nothing but a deque for each queue.
//!
//! Where [`model`](super::model) looks at a lane between a failing far end and a failing app, this one looks
//! at the store: what is appended, of any size, what is delivered, parked and expired, whatever is closed,
//! killed, rotated and opened again in between. The far end is here and not in the process, so that it
//! remembers what the process has forgotten.
//!
//! Wall clocks cannot be set here: it is the records that say they expire so many hours earlier or later, which
//! is what a clock that jumps does to them. When a chunk was written is told by the true clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use seawall::{
    Error,
    classify::{Class, Landed, Verdict},
    spool::{
        Ack, Applied, Batch, Durability, Overflow, Replay, Spool, SpoolLayer, SpoolOptions,
        Spoolable, Undecodable,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::{sleep, timeout},
};
use tower::{Layer as _, Service as _, service_fn};

use super::{PLENTY, seeds};

// ===== what the two processes say to each other =====

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Append(Vec<Record>),
    /// So many hours later than the clock says.
    Jump(i64),
    Flush,
    Stats,
    Parked,
    Close,
    Answer(u64, Answer),
}

#[derive(Debug, Serialize, Deserialize)]
enum Tell {
    Refused(String),
    Opened,
    Appended(Vec<(u32, Outcome)>),
    Batch(Sent),
    Flushed,
    Stats { records: u64, parked: u64 },
    Parked(Vec<u32>),
    Closed(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Taken,
    Refused { kind: String, landed: bool },
}

/// A batch, as the far end sees it.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    id: u64,
    queue: u8,
    lane: String,
    after: u64,
    ends: bool,
    /// Numbers with their records; none of one that has expired, and no name of one that is damaged.
    records: Vec<(u64, Option<Option<u32>>)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Answer {
    Out { landed: bool },
    All { duplicates: u64 },
    Stopped { through: u64 },
    Refused { through: u64 },
}

// ===== the process =====

/// How the spool is opened in one life.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Life {
    dir: PathBuf,
    spooled: bool,
    fast: bool,
    max_records: Option<u64>,
    max_batch: usize,
    /// Since 1970; hours count from here.
    base_s: u64,
    jump: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Record {
    queue: u8,
    id: u32,
    size: u32,
    expires: Option<i64>,
    #[serde(default)]
    sound: Option<bool>,
}

const QUEUES: [&str; 3] = ["one", "two", "three"];
static BASE: AtomicI64 = AtomicI64::new(0);
static JUMP: AtomicI64 = AtomicI64::new(0);

fn place_of(queue: &str) -> u8 {
    QUEUES.iter().position(|name| *name == queue).unwrap() as u8
}

impl Record {
    /// No two are alike.
    fn payload(&self) -> impl Iterator<Item = u8> {
        let id = self.id;
        (0..self.size).map(move |at| (at.wrapping_mul(31) ^ id.wrapping_mul(97)) as u8)
    }
}

impl Spoolable for Record {
    fn queue(&self) -> &str {
        QUEUES[usize::from(self.queue)]
    }

    fn size(&self) -> usize {
        self.size as usize
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.id.to_le_bytes());
        if self.size == 0 {
            return;
        }
        into.extend(self.expires.unwrap_or(NEVER).to_le_bytes());
        into.extend(self.payload());
    }

    fn decode(queue: &Arc<str>, mut bytes: Bytes) -> Result<Self, Undecodable> {
        let mut record = Self {
            queue: place_of(queue),
            id: bytes.get_u32_le(),
            size: 0,
            expires: None,
            sound: Some(true),
        };
        if !bytes.is_empty() {
            record.expires = Some(bytes.get_i64_le()).filter(|at| *at != NEVER);
            record.size = bytes.len() as u32;
            record.sound = Some(record.payload().eq(bytes));
        }
        Ok(record)
    }

    fn expires_at(&self) -> Option<SystemTime> {
        let hours = self.expires? - JUMP.load(Relaxed);
        let seconds = BASE.load(Relaxed) + hours * 3600;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds as u64))
    }
}

const NEVER: i64 = i64::MAX;
const LIFE: &str = "SEAWALL_CRASH_LIFE";
const MARK: &str = "@ ";

fn tell(tell: &Tell) {
    println!("{MARK}{}", serde_json::to_string(tell).unwrap());
}

/// Not a test: what a [`Process`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spool() {
    let Ok(life) = env::var(LIFE) else {
        return;
    };
    let life: Life = serde_json::from_str(&life).unwrap();
    BASE.store(life.base_s as i64, Relaxed);
    JUMP.store(life.jump, Relaxed);
    let spool: Spool<Record> = match Spool::open(options(&life)).await {
        Ok(spool) => spool,
        Err(error) => return tell(&Tell::Refused(error.to_string())),
    };
    tell(&Tell::Opened);
    let far_end = Arc::<FarAway>::default();
    let service = service_fn({
        let far_end = far_end.clone();
        move |batch| far_end.clone().send(batch)
    });
    let mut line = SpoolLayer::new(&spool).layer(service);
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(text)) = asked.next_line().await {
        let spool = spool.clone();
        match serde_json::from_str(&text).unwrap() {
            Ask::Answer(id, answer) => far_end.answer(id, answer),
            Ask::Append(records) => {
                // In this order, whatever becomes of each.
                let calls: Vec<_> = records
                    .into_iter()
                    .map(|record| (record.id, line.call(record)))
                    .collect();
                tokio::spawn(async move {
                    let mut outcomes = Vec::new();
                    for (id, call) in calls {
                        let outcome = match call.await {
                            Ok(_) => Outcome::Taken,
                            Err(error) => Outcome::Refused {
                                kind: format!("{:?}", error.kind()),
                                landed: error.may_have_landed(),
                            },
                        };
                        outcomes.push((id, outcome));
                    }
                    tell(&Tell::Appended(outcomes));
                });
            }
            Ask::Jump(hours) => JUMP.store(hours, Relaxed),
            Ask::Flush => drop(tokio::spawn(async move {
                spool.flush().await;
                tell(&Tell::Flushed);
            })),
            Ask::Stats => {
                let stats = spool.stats();
                tell(&Tell::Stats {
                    records: stats.records,
                    parked: stats.parked,
                });
            }
            Ask::Parked => drop(tokio::spawn(async move {
                let parked = spool.parked(usize::MAX).await.unwrap();
                let records = parked.iter().map(|parked| {
                    let queue = parked.queue().into();
                    let record = Record::decode(&queue, parked.record().clone()).unwrap();
                    assert_eq!(record.sound, Some(true));
                    record.id
                });
                tell(&Tell::Parked(records.collect()));
            })),
            Ask::Close => drop(tokio::spawn(async move {
                let left = spool.shutdown(Duration::ZERO).await.unwrap();
                tell(&Tell::Closed(left));
            })),
        }
    }
}

fn options(life: &Life) -> SpoolOptions {
    let millis = Duration::from_millis;
    let options = SpoolOptions::new(&life.dir)
        .with_generation_bytes(1 << 20)
        .with_spool_after(millis(5))
        .with_disk_timeout(PLENTY)
        .with_max_batch(life.max_batch, 1 << 20)
        .with_replay(Replay::unpaced().with_delays(millis(5), millis(20)));
    let options = match life.max_records {
        Some(records) => options
            .with_max_records(records)
            .with_overflow(Overflow::Reject),
        None => options,
    };
    let options = match life.fast {
        true => options.with_durability(Durability::ProcessCrash),
        false => options,
    };
    match life.spooled {
        true => options.with_ack(Ack::Spooled),
        false => options,
    }
}

/// Asks the other process what becomes of a batch.
#[derive(Default)]
struct FarAway(Mutex<(u64, HashMap<u64, oneshot::Sender<Answer>>)>);

impl FarAway {
    async fn send(self: Arc<Self>, batch: Batch<Record>) -> Result<Applied, Error> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut pending = self.0.lock();
            pending.0 += 1;
            let id = pending.0;
            pending.1.insert(id, answer);
            id
        };
        let records = batch.iter().map(|(number, record)| {
            let name = |record: &Record| (record.sound != Some(false)).then_some(record.id);
            (number, record.map(name))
        });
        tell(&Tell::Batch(Sent {
            id,
            queue: place_of(batch.queue()),
            lane: batch.lane().to_string(),
            after: batch.after(),
            ends: batch.ends_lane(),
            records: records.collect(),
        }));
        let away = |landed| Error::foreign(Verdict::new(Class::Outage, landed), "away");
        match answered.await.unwrap() {
            Answer::Out { landed: false } => Err(away(Landed::No)),
            Answer::Out { landed: true } => Err(away(Landed::Maybe)),
            Answer::All { duplicates } => Ok(Applied::all().with_duplicates(duplicates)),
            Answer::Stopped { through } => Ok(Applied::stopped(through, away(Landed::No))),
            Answer::Refused { through } => {
                let never = Verdict::new(Class::Permanent, Landed::No);
                Ok(Applied::refused(through, 1, Error::foreign(never, "never")))
            }
        }
    }

    fn answer(&self, id: u64, answer: Answer) {
        let pending = self.0.lock().1.remove(&id).unwrap();
        // The spool has given it up if nobody listens.
        let _ = pending.send(answer);
    }
}

/// The process, seen from outside.
struct Process {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(life: &Life) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "deque::the_spool", "--nocapture"])
            .env(LIFE, serde_json::to_string(life).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let from = child.stdout.take().unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(from).lines(),
            child,
        }
    }

    async fn ask(&mut self, ask: &Ask) {
        let line = serde_json::to_string(ask).unwrap() + "\n";
        // It may be dead; what it has said is still to be heard.
        let _ = self.to.write_all(line.as_bytes()).await;
    }

    async fn hear(&mut self) -> Option<Tell> {
        loop {
            let line = self.from.next_line().await.unwrap()?;
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(serde_json::from_str(said).unwrap());
            }
        }
    }
}

// ===== the model =====

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<(u8, u32, Option<i64>)>,
        /// How many records the far end takes meanwhile.
        taking: u64,
    },
    Deliver {
        most: u64,
        /// Every so manieth batch lands without a reply.
        lossy: Option<u64>,
    },
    Drain,
    Jump(i64),
    Close(Settings),
    Crash(Settings),
    /// While records are on their way, so many microseconds after they were handed in.
    CrashAppending {
        records: Vec<(u8, u32, Option<i64>)>,
        after_us: u64,
        settings: Settings,
    },
}

/// How it is opened the next time.
#[derive(Clone, Copy, Debug)]
struct Settings {
    spooled: bool,
    fast: bool,
    max_batch: usize,
}

/// Accepted, and neither delivered nor parked nor expired.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: u32,
    /// Its caller was told that it is safe.
    sure: bool,
    expires: Option<i64>,
    /// It has been expired, and it has not been: the batch it is in may be of either time.
    wavering: bool,
}

struct World {
    process: Process,
    life: Life,
    seed: u64,
    next_id: u32,
    queues: [VecDeque<Waiting>; 3],
    /// The last numbers of the lanes.
    last: HashMap<String, u64>,
    parked: BTreeSet<u32>,
    delivered: BTreeSet<u32>,
    queue_of: BTreeMap<u32, u8>,
    taking: u64,
    lossy: Option<u64>,
    batches: u64,
    /// After a kill it holds what was delivered and not yet noted, and what it had not answered.
    vague: bool,
    opened: bool,
    appended: Option<Vec<(u32, Outcome)>>,
    flushed: bool,
    stats: Option<(u64, u64)>,
    told_parked: Option<Vec<u32>>,
    closed: Option<u64>,
}

fn is_poison(id: u32) -> bool {
    id % 23 == 22
}

impl World {
    async fn new(seed: u64, dir: &Path, max_records: Option<u64>, settings: Settings) -> Self {
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

    async fn step(&mut self, step: &Step) {
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

    fn is_expired(&self, waiting: &Waiting) -> bool {
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
        self.check().await;
        self.process.ask(&Ask::Parked).await;
        self.until("the parked ones", |world| world.told_parked.is_some())
            .await;
        let mut parked = self.told_parked.take().unwrap();
        parked.sort_unstable();
        let expected: Vec<_> = self.parked.iter().copied().collect();
        assert_eq!(parked, expected, "seed {}: parked", self.seed);
    }

    /// Compares how much it says that it holds.
    async fn check(&mut self) {
        for _ in 0..2_000 {
            self.process.ask(&Ask::Stats).await;
            self.until("its counts", |world| world.stats.is_some())
                .await;
            let (records, parked) = self.stats.take().unwrap();
            if let Some(most) = self.life.max_records {
                assert!(records + parked <= most, "seed {}", self.seed);
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
            // What it is doing just now changes it.
            sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "seed {}: it does not hold {} and {}",
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

    // ===== the far end =====

    fn apply(&mut self, sent: Sent) -> Answer {
        if self.taking == 0 {
            return Answer::Out { landed: false };
        }
        if sent.ends {
            self.last.remove(&sent.lane);
            return Answer::All { duplicates: 0 };
        }
        let mut last = self.last.get(&sent.lane).copied().unwrap_or(0);
        assert!(last >= sent.after, "seed {}: a gap", self.seed);
        let mut duplicates = 0;
        let mut answer = None;
        for (number, record) in sent.records {
            if number <= last {
                duplicates += 1;
                continue;
            }
            match record {
                None => self.expire(sent.queue),
                Some(name) => {
                    let id = name.unwrap_or_else(|| panic!("seed {}: damaged", self.seed));
                    if is_poison(id) {
                        self.refuse(id);
                        answer = Some(Answer::Refused {
                            through: number - 1,
                        });
                        break;
                    }
                    if self.taking == 0 {
                        answer = Some(Answer::Stopped {
                            through: number - 1,
                        });
                        break;
                    }
                    self.take(id);
                }
            }
            last = number;
        }
        self.last.insert(sent.lane, last);
        self.batches += 1;
        if self
            .lossy
            .is_some_and(|every| self.batches.is_multiple_of(every))
        {
            return Answer::Out { landed: true };
        }
        answer.unwrap_or(Answer::All { duplicates })
    }

    fn take(&mut self, id: u32) {
        let seed = self.seed;
        assert!(self.delivered.insert(id), "seed {seed}: {id} comes twice");
        assert!(!self.parked.contains(&id), "seed {seed}: {id} is parked");
        let waiting = self.pop(id);
        let waiting = waiting.unwrap_or_else(|| panic!("seed {seed}: {id} comes out of turn"));
        let must_be_gone = self.is_expired(&waiting) && !waiting.wavering;
        assert!(!must_be_gone, "seed {seed}: {waiting:?} has expired");
        self.taking -= 1;
    }

    fn refuse(&mut self, id: u32) {
        // It comes again if it was not parked before the process died.
        if self.parked.insert(id) {
            let waiting = self.pop(id);
            assert!(waiting.is_some(), "seed {}: {id} out of turn", self.seed);
        }
    }

    /// Takes it from the front of its queue. Before it there is nothing but what may never have been there,
    /// and what has expired.
    fn pop(&mut self, id: u32) -> Option<Waiting> {
        let queue = &mut self.queues[usize::from(self.queue_of[&id])];
        while let Some(waiting) = queue.pop_front() {
            if waiting.id == id {
                return Some(waiting);
            }
            let may_be_gone = !waiting.sure || waiting.expires.is_some();
            assert!(may_be_gone, "seed {}: {waiting:?} is lost", self.seed);
        }
        None
    }

    /// One record has expired: the first that may have.
    fn expire(&mut self, queue: u8) {
        while let Some(waiting) = self.queues[usize::from(queue)].pop_front() {
            if self.is_expired(&waiting) || waiting.wavering {
                return;
            }
            assert!(!waiting.sure, "seed {}: {waiting:?} is lost", self.seed);
        }
    }
}

// ===== what happens =====

fn steps() -> impl Strategy<Value = (Option<u64>, Settings, Vec<Step>)> {
    let size = prop_oneof![
        6 => 0..300_u32,
        3 => 300..20_000_u32,
        1 => 20_000..200_000_u32,
    ];
    let expires =
        prop_oneof![8 => Just(None), 1 => Just(Some(-1)), 1 => Just(Some(1)), 1 => Just(Some(3))];
    let record = (
        prop_oneof![4 => Just(0_u8), 2 => Just(1_u8), 1 => Just(2_u8)],
        size,
        expires,
    );
    let records = prop::collection::vec(record, 1..50);
    let settings = (any::<bool>(), prop::bool::weighted(0.8), 1..100_usize).prop_map(
        |(spooled, fast, max_batch)| Settings {
            spooled,
            fast,
            max_batch,
        },
    );
    let step = prop_oneof![
        6 => (records.clone(), prop_oneof![3 => Just(0), 1 => 1..60_u64])
            .prop_map(|(records, taking)| Step::Append { records, taking }),
        4 => (1..60_u64, prop::option::of(1..4_u64))
            .prop_map(|(most, lossy)| Step::Deliver { most, lossy }),
        1 => Just(Step::Drain),
        1 => prop::sample::select(vec![-2, 0, 2, 4]).prop_map(Step::Jump),
        1 => settings.clone().prop_map(Step::Close),
        2 => settings.clone().prop_map(Step::Crash),
        1 => (records, 0..30_000_u64, settings.clone()).prop_map(|(records, after_us, settings)| {
            Step::CrashAppending { records, after_us, settings }
        }),
    ];
    let bound = prop::option::weighted(0.3, 10..100_u64);
    (bound, settings, prop::collection::vec(step, 1..20))
}

#[test]
fn whatever_is_done_to_the_spool_it_holds_what_a_deque_for_each_queue_would() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in seeds(5) {
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 30,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let run = |(bound, settings, steps): (_, _, Vec<Step>)| {
            let dir = tempfile::tempdir().unwrap();
            runtime.block_on(run(seed, dir.path(), bound, settings, &steps));
            Ok(())
        };
        if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&steps(), run) {
            panic!("seed {seed}: {failure}");
        }
    }
}

async fn run(seed: u64, dir: &Path, bound: Option<u64>, settings: Settings, steps: &[Step]) {
    let mut world = World::new(seed, dir, bound, settings).await;
    for step in steps {
        world.step(step).await;
    }
    // And all is as it was when it is opened once more.
    world.step(&Step::Close(settings)).await;
    world.step(&Step::Drain).await;
    world.step(&Step::Close(settings)).await;
}

//! The spool against a far end that is a model: it fails in every way there is, and remembers.
//!
//! No Redis and no process, so that many more runs fit into the time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng as _, rngs::SmallRng};
use seawall::{
    Error,
    chaos::Books,
    classify::{Class, Landed, Verdict},
    spool::{
        Ack, Applied, Batch, LaneId, OpenError, Overflow, Parked, ParkedFilter, Replay, Spool,
        SpoolLayer, SpoolOptions, Spoolable, Spooling, Undecodable,
    },
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{PLENTY, dice, seeds};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Note {
    producer: u32,
    number: u64,
}

impl Note {
    /// The far end takes it never.
    const fn is_poison(self) -> bool {
        self.number % 41 == 40
    }
}

impl Spoolable for Note {
    fn queue(&self) -> &str {
        "notes"
    }

    fn size(&self) -> usize {
        12
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.producer.to_le_bytes());
        into.extend(self.number.to_le_bytes());
    }

    fn decode(_: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let (producer, number) = bytes.split_at(4);
        Ok(Self {
            producer: u32::from_le_bytes(producer.try_into().unwrap()),
            number: u64::from_le_bytes(number.try_into().unwrap()),
        })
    }
}

/// What Redis and the script are to a lane.
#[derive(Default)]
struct FarEnd {
    last: HashMap<LaneId, u64>,
    log: Vec<Note>,
    /// Sent, given up by its sender, and not carried out yet.
    late: Vec<Batch<Note>>,
    healthy: bool,
    /// It takes what it never took before.
    cured: bool,
    /// Batches that began behind what the far end has, which has lost nothing.
    gaps: u32,
}

impl FarEnd {
    fn apply(&mut self, batch: &Batch<Note>) -> Applied {
        if batch.ends_lane() {
            self.last.remove(&batch.lane());
            return Applied::all();
        }
        let last = self.last.entry(batch.lane()).or_default();
        if *last < batch.after() {
            self.gaps += 1;
        }
        let mut duplicates = 0;
        for (number, note) in batch.iter() {
            if number <= *last {
                duplicates += 1;
                continue;
            }
            let note = *note.unwrap();
            if note.is_poison() && !self.cured {
                let wrong = failure(Class::Permanent, Landed::No);
                return Applied::refused(number - 1, 1, wrong).with_duplicates(duplicates);
            }
            self.log.push(note);
            *last = number;
        }
        Applied::all().with_duplicates(duplicates)
    }
}

fn failure(class: Class, landed: Landed) -> Error {
    Error::foreign(Verdict::new(class, landed), "as the dice would have it")
}

/// One try of a batch.
async fn attempt(
    far: Arc<Mutex<FarEnd>>,
    dice: Arc<Mutex<SmallRng>>,
    batch: Batch<Note>,
) -> Result<Applied, Error> {
    let (fate, before, after) = {
        let mut dice = dice.lock();
        (
            dice.random_range(0..10),
            dice.random_range(0..3),
            dice.random_range(0..3),
        )
    };
    if before > 0 {
        sleep(Duration::from_millis(before)).await;
    }
    let answer = {
        let mut far = far.lock();
        if !far.late.is_empty() && dice.lock().random_bool(0.3) {
            let late = far.late.remove(0);
            let _ = far.apply(&late);
        }
        match if far.healthy { 9 } else { fate } {
            0 | 1 => Err(failure(Class::Outage, Landed::No)),
            2 | 3 => {
                let _ = far.apply(&batch);
                Err(failure(Class::Transient, Landed::Maybe))
            }
            4 => {
                far.late.push(batch);
                Err(failure(Class::Transient, Landed::Maybe))
            }
            5 => Err(failure(Class::Transient, Landed::Maybe)),
            6 => panic!("the service panics"),
            _ => Ok(far.apply(&batch)),
        }
    };
    if after > 0 {
        sleep(Duration::from_millis(after)).await;
    }
    answer
}

/// What the producers were told.
#[derive(Default)]
struct Told {
    acknowledged: HashSet<Note>,
    /// Told that it is not there and will not be.
    refused: HashSet<Note>,
}

/// Each hands in its jobs, a few at a time, and writes down what it is told.
fn producers(
    spooling: &Spooling<Note>,
    told: &Arc<Mutex<Told>>,
    books: &Arc<Books>,
    first: u64,
    dice: &mut SmallRng,
) -> JoinSet<()> {
    let mut producers = JoinSet::new();
    for producer in 0..3 {
        let (spooling, told, books) = (spooling.clone(), told.clone(), books.clone());
        let (window, pause) = (dice.random_range(1..20), dice.random_range(0..3));
        producers.spawn(async move {
            let numbers: Vec<u64> = (first..first + JOBS).collect();
            for some in numbers.chunks(window) {
                let handed_in: Vec<_> = some
                    .iter()
                    .map(|number| {
                        let note = Note {
                            producer,
                            number: *number,
                        };
                        books.attempt((producer, *number));
                        (note, tower::Service::call(&mut spooling.clone(), note))
                    })
                    .collect();
                for (note, receipt) in handed_in {
                    let answer = receipt.await;
                    let mut told = told.lock();
                    match answer {
                        Ok(_) => drop(told.acknowledged.insert(note)),
                        Err(error) if error.may_have_landed() => {}
                        Err(_) => drop(told.refused.insert(note)),
                    }
                }
                sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    producers
}

const JOBS: u64 = 120;

fn options(dir: &TempDir, dice: &mut SmallRng) -> SpoolOptions {
    let millis = Duration::from_millis;
    let options = SpoolOptions::new(dir.path().join("spool"))
        .with_spool_after(millis(dice.random_range(1..6)))
        .with_max_batch(dice.random_range(1..30), 1 << 20)
        .with_replay(Replay::unpaced().with_delays(millis(1), millis(4)));
    match dice.random_range(0..4) {
        0 => options.with_ack(Ack::Spooled),
        1 => options.with_max_records(dice.random_range(1..60)),
        2 => {
            let timeout = millis(dice.random_range(1..20));
            let bounded = options.with_max_records(dice.random_range(1..60));
            bounded.with_overflow(Overflow::Block { timeout })
        }
        _ => options,
    }
}

/// Opens as soon as the one before has let go.
async fn open(options: SpoolOptions) -> Spool<Note> {
    loop {
        match Spool::open(options.clone()).await {
            Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_far_end_does_and_whenever_the_app_ends_each_record_is_there_once_in_order() {
    for seed in seeds(40) {
        timeout(PLENTY, run(seed))
            .await
            .unwrap_or_else(|_| panic!("seed {seed} hangs"));
    }
}

async fn run(seed: u64) {
    let mut dice = dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let far = Arc::new(Mutex::new(FarEnd::default()));
    let (told, books) = (Arc::default(), Arc::new(Books::new()));
    let layer = |spool: &Spool<Note>, dice: SmallRng| {
        let (far, dice) = (far.clone(), Arc::new(Mutex::new(dice)));
        let service = service_fn(move |batch| attempt(far.clone(), dice.clone(), batch));
        SpoolLayer::new(spool).layer(service)
    };
    let lives = dice.random_range(1..4);
    for life in 0..lives {
        let spool = open(options(&dir, &mut dice)).await;
        let spooling = layer(&spool, super::dice(dice.random()));
        let mut producers = producers(&spooling, &told, &books, life * JOBS, &mut dice);
        if life + 1 < lives {
            sleep(Duration::from_millis(dice.random_range(0..60))).await;
            producers.shutdown().await;
            if dice.random_bool(0.3) {
                let _ = spool.shutdown(Duration::from_millis(3)).await.unwrap();
            }
            continue;
        }
        while producers.join_next().await.is_some() {}
        far.lock().healthy = true;
        spool.flush().await;
        let parked = parked(&spool, seed).await;
        sent_again(&spool, &far, &parked, seed).await;
        assert_eq!(spool.shutdown(PLENTY).await.unwrap(), 0, "seed {seed}");
        let _ = spooling
            .oneshot(Note {
                producer: 0,
                number: 0,
            })
            .await
            .unwrap_err();
        judge(seed, &far.lock(), &told.lock(), &parked, &books);
    }
}

/// What is parked: once each, and as many as are counted.
async fn parked(spool: &Spool<Note>, seed: u64) -> HashSet<Note> {
    let parked = spool.parked(usize::MAX).await.unwrap();
    let note = |parked: &Parked| Note::decode(&"notes".into(), parked.record().clone()).unwrap();
    let notes: HashSet<_> = parked.iter().map(note).collect();
    assert_eq!(notes.len(), parked.len(), "seed {seed}");
    assert_eq!(spool.stats().parked, parked.len() as u64, "seed {seed}");
    assert!(notes.iter().all(|note| note.is_poison()), "seed {seed}");
    notes
}

/// First nothing has changed, then the far end takes them.
async fn sent_again(spool: &Spool<Note>, far: &Mutex<FarEnd>, notes: &HashSet<Note>, seed: u64) {
    for cured in [false, true] {
        far.lock().cured = cured;
        let sent = spool.unpark(ParkedFilter::all()).await.unwrap();
        assert_eq!(sent, notes.len() as u64, "seed {seed}");
        spool.flush().await;
        let left = parked(spool, seed).await;
        assert_eq!(left.is_empty(), cured || notes.is_empty(), "seed {seed}");
    }
    let stats = spool.stats();
    assert_eq!((stats.records, stats.bytes), (0, 0), "seed {seed}");
    let mut far = far.lock();
    let (poison, others): (Vec<_>, Vec<_>) = far.log.iter().partition(|note| note.is_poison());
    far.log = others;
    assert_eq!(poison.len(), notes.len(), "seed {seed}");
    assert_eq!(HashSet::from_iter(poison), *notes, "seed {seed}");
}

fn judge(seed: u64, far: &FarEnd, told: &Told, parked: &HashSet<Note>, books: &Books) {
    for note in &told.acknowledged {
        if !parked.contains(note) {
            books.acknowledge((note.producer, note.number));
        }
    }
    for note in &far.log {
        books.deliver((note.producer, note.number));
        assert!(
            !told.refused.contains(note),
            "seed {seed}: {note:?} was refused for good"
        );
    }
    assert_eq!(far.gaps, 0, "seed {seed}");
    let balance = books.balance();
    assert!(
        balance.is_clean(),
        "seed {seed}: {balance}, lost {:?}",
        books.lost(10)
    );
}

//! What becomes of records that replicas lack when the disk is full or hangs, or when Redis is replaced at
//! an awkward moment. The same with real servers is in `tests/failover`.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::*;
use crate::{
    replicas::{self, Teller},
    spool::{Overflow, Receipt, tail::TailOptions},
};

#[derive(Debug)]
struct Job {
    number: u64,
    size: usize,
}

impl Spoolable for Job {
    fn queue(&self) -> &str {
        "jobs"
    }

    fn size(&self) -> usize {
        self.size
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.number.to_le_bytes());
        into.resize(into.len() + self.size.saturating_sub(8), 0);
    }

    fn decode(_: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let number = bytes.first_chunk().ok_or(Undecodable("too short"))?;
        Ok(Self {
            number: u64::from_le_bytes(*number),
            size: bytes.len(),
        })
    }
}

/// Redis, as far as the script goes.
#[derive(Clone)]
struct Far(Arc<Mutex<Server>>);

struct Server {
    teller: Teller,
    generation: u64,
    lasts: HashMap<LaneId, u64>,
    list: Vec<u64>,
    out: bool,
    /// How many replicas are said to have everything.
    confirmed: u64,
    /// How often that was asked.
    confirms: usize,
    refused: HashSet<u64>,
    /// It is replaced as soon as it has refused one.
    dies_refusing: bool,
    /// Jobs whose first try fails.
    fails: HashSet<u64>,
    duplicates: u64,
}

impl Far {
    fn new() -> Self {
        let teller = replicas::channel().0;
        teller.begin_term(1, Some("1".into()), true);
        Self(Arc::new(Mutex::new(Server {
            teller,
            generation: 1,
            lasts: HashMap::new(),
            list: Vec::new(),
            out: false,
            confirmed: 0,
            confirms: 0,
            refused: HashSet::new(),
            dies_refusing: false,
            fails: HashSet::new(),
            duplicates: 0,
        })))
    }

    fn open(&self, store: &MemoryStore, options: SpoolOptions) -> Arc<Owner<Job>> {
        let far = self.clone();
        open_on(store, options, move |batch| {
            let answer = far.0.lock().answer(&batch);
            async move { answer }
        })
    }

    fn options(&self) -> SpoolOptions {
        SpoolOptions::new("no directory")
            .with_replicas(self.0.lock().teller.replicas())
            .with_spool_after(Duration::from_millis(20))
            .with_disk_timeout(Duration::from_millis(500))
    }

    async fn until(&self, reached: impl Fn(&Server) -> bool) {
        for _ in 0..2_000 {
            if reached(&self.0.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not reached: {} are there", self.0.lock().list.len());
    }
}

impl Server {
    /// Another one takes over, which has nothing of it.
    fn replace(&mut self) {
        self.generation += 1;
        self.lasts.clear();
        self.list.clear();
        let history = Some(self.generation.to_string().into());
        self.teller.begin_term(self.generation, history, true);
    }

    /// Replicas have all of it.
    fn catch_up(&self) {
        let reading = self.teller.begin_reading();
        self.teller.reached(reading, 1);
    }

    fn answer(&mut self, batch: &Batch<Job>) -> Result<Applied, Error> {
        let gone = batch
            .generation()
            .is_some_and(|only| only != self.generation);
        if self.out || gone {
            let verdict = Verdict::new(Class::Outage, Landed::No);
            return Err(Error::new(ErrorKind::Connect, verdict));
        }
        let first = batch.record(batch.first()).map(|job| job.number);
        if first.is_some_and(|first| self.fails.remove(&first)) {
            let verdict = Verdict::new(Class::Outage, Landed::No);
            return Err(Error::new(ErrorKind::Connect, verdict));
        }
        let last = self.lasts.get(&batch.lane()).copied().unwrap_or(0);
        match batch.asks() {
            Asks::Reached => return Ok(Applied::reached(last)),
            Asks::Confirm { .. } => {
                self.confirms += 1;
                return Ok(Applied::confirmed(last, self.confirmed));
            }
            Asks::End => return Ok(Applied::all()),
            Asks::Apply => {}
        }
        if last < batch.after() {
            return Ok(Applied::gap(last));
        }
        for (number, job) in batch.iter() {
            let Some(job) = job else { continue };
            if number <= last {
                self.duplicates += 1;
            } else if self.refused.contains(&job.number) {
                if std::mem::take(&mut self.dies_refusing) {
                    self.replace();
                }
                let error = Error::refused("WRONGTYPE");
                return Ok(Applied::refused(number - 1, 1, error));
            } else {
                self.list.push(job.number);
                self.lasts.insert(batch.lane(), number);
            }
        }
        Ok(Applied::all())
    }
}

/// Nobody waits for longer than this.
const LONG: Duration = Duration::from_secs(30);

async fn put(owner: &Arc<Owner<Job>>, number: u64, size: usize) -> Result<Receipt, Error> {
    let answer = Spooling::new(owner.clone()).call(Job { number, size });
    let answer = tokio::time::timeout(LONG, answer).await;
    answer.expect("its caller waits for ever")
}

fn replicated(timeout: u64) -> Ack {
    let timeout = Duration::from_millis(timeout);
    Ack::Replicated {
        replicas: 1,
        timeout,
    }
}

/// What waits for room is woken whenever some is given back, be it none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_beside_a_full_tail_does_not_spin() {
    let far = Far::new();
    let tail = TailOptions::new().with_max_memory(0);
    let options = far.options().with_max_records(3).with_tail(tail);
    let timeout = Duration::from_millis(200);
    let options = options.with_overflow(Overflow::Block { timeout });
    let owner = far.open(&MemoryStore::default(), options);
    for number in 0..40 {
        assert!(put(&owner, number, 2_000).await.unwrap().is_delivered());
    }
    far.0.lock().out = true;
    let mut freed = owner.shared.usage.freed();
    let answer = {
        let owner = owner.clone();
        tokio::spawn(async move { put(&owner, 40, 2_000).await })
    };
    let mut times = 0;
    while !answer.is_finished() {
        let tick = tokio::time::sleep(Duration::from_millis(5));
        tokio::select! {
            changed = freed.changed() => times += usize::from(changed.is_ok()),
            () = tick => {}
        }
    }
    let error = answer.await.unwrap().expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::SpoolFull);
    assert!(times < 50, "woken {times} times");
}

#[tokio::test]
async fn who_waits_for_replicas_hears_of_a_disk_that_hangs() {
    let far = Far::new();
    let store = MemoryStore::default();
    store.set_fault((Call::Apply, Fault::Stall));
    let owner = far.open(&store, far.options().with_ack(replicated(20)));
    let error = put(&owner, 0, 100)
        .await
        .expect_err("it is nowhere but in Redis");
    assert_eq!(error.kind(), ErrorKind::Spool);
    assert!(error.may_have_landed());
    store.set_fault(None);
}

/// Replay makes room only by going on.
#[tokio::test]
async fn a_full_spool_drains_also_while_replicas_do_not_confirm() {
    let far = Far::new();
    far.0.lock().out = true;
    let options = far.options().with_ack(replicated(20)).with_max_records(5);
    let owner = far.open(&MemoryStore::default(), options.with_max_batch(1, 1 << 20));
    for number in 0..5 {
        assert!(put(&owner, number, 100).await.unwrap().is_spooled());
    }
    far.0.lock().out = false;
    far.until(|server| server.list == [0, 1, 2, 3, 4]).await;
    owner.shared.flush().await;
}

/// Only one batch from disk is on its way, be it to the replicas.
#[tokio::test]
async fn a_change_of_server_while_replicas_are_waited_for_mixes_nothing_up() {
    let far = Far::new();
    far.0.lock().out = true;
    let options = far.options().with_ack(replicated(400));
    let owner = far.open(&MemoryStore::default(), options.with_max_batch(1, 1 << 20));
    for number in 0..4 {
        assert!(put(&owner, number, 100).await.unwrap().is_spooled());
    }
    far.0.lock().out = false;
    far.0.lock().fails.extend([1, 2, 3]);
    for length in 1..=4 {
        far.until(|server| server.list.len() == length).await;
        far.0.lock().replace();
        far.until(|server| server.list.len() >= length).await;
    }
    far.0.lock().confirmed = 1;
    owner.shared.flush().await;
    assert_eq!(far.0.lock().list, [0, 1, 2, 3]);
    assert_eq!(far.0.lock().duplicates, 0);
    far.0.lock().catch_up();
    far.until(|_| owner.shared.usage.waiting() == 0).await;
    assert_eq!(owner.shared.usage.bytes(), 0);
}

#[tokio::test]
async fn what_is_behind_a_refused_job_passes_nothing_that_a_new_server_lacks() {
    let far = Far::new();
    far.0.lock().refused.insert(1);
    far.0.lock().dies_refusing = true;
    let owner = far.open(&MemoryStore::default(), far.options());
    let mut line = Spooling::new(owner.clone());
    let job = |number| Job { number, size: 100 };
    let answers = join_all((0..4).map(|number| line.call(job(number)))).await;
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok());
    owner.shared.flush().await;
    far.until(|server| server.list.len() == 3).await;
    assert_eq!(far.0.lock().list, [0, 2, 3]);
}

#[tokio::test]
async fn that_the_disk_was_full_once_is_not_held_against_it() {
    let far = Far::new();
    let options = far.options().with_ack(replicated(20)).with_max_records(1);
    let owner = far.open(&MemoryStore::default(), options);
    assert!(put(&owner, 0, 100).await.unwrap().is_spooled());
    assert!(put(&owner, 1, 100).await.is_err());
    // There is room again.
    far.0.lock().catch_up();
    far.until(|_| owner.shared.usage.waiting() == 0).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(put(&owner, 2, 100).await.unwrap().is_spooled());
}

#[tokio::test]
async fn what_is_on_disk_for_want_of_replicas_is_given_back_also_without_a_tail() {
    let far = Far::new();
    let options = far.options().with_ack(replicated(20)).with_tail(None);
    let owner = far.open(&MemoryStore::default(), options);
    assert!(put(&owner, 0, 100).await.unwrap().is_spooled());
    far.0.lock().replace();
    assert!(put(&owner, 1, 100).await.unwrap().is_spooled());
    far.until(|server| server.list == [0, 1]).await;
}

#[tokio::test]
async fn what_an_earlier_run_has_left_is_given_back_also_without_a_tail() {
    let far = Far::new();
    let store = MemoryStore::default();
    let owner = far.open(&store, far.options().with_ack(replicated(20)));
    for number in 0..3 {
        assert!(put(&owner, number, 100).await.unwrap().is_spooled());
    }
    owner.shared.end_queues(Instant::now()).await;
    assert_eq!(owner.shared.close_disk(Instant::now()).await.unwrap(), 3);
    far.0.lock().replace();
    let owner = far.open(&store, far.options().with_tail(None));
    far.until(|server| server.list == [0, 1, 2]).await;
    owner.shared.flush().await;
    assert!(put(&owner, 3, 100).await.unwrap().is_delivered());
    far.until(|_| owner.shared.usage.waiting() == 0).await;
}

/// Somebody has deleted the lane's key, say.
#[tokio::test]
async fn a_server_that_does_not_know_the_lane_is_not_asked_without_a_pause() {
    let far = Far::new();
    far.0.lock().confirmed = 1;
    let owner = far.open(
        &MemoryStore::default(),
        far.options().with_ack(replicated(300)),
    );
    let lane = put(&owner, 0, 100).await.unwrap().lane();
    let stop = CancellationToken::new();
    let forgetful = {
        let (far, stop) = (far.clone(), stop.clone());
        async move {
            far.until(|server| server.list.len() == 2).await;
            let before = far.0.lock().confirms;
            far.0.lock().lasts.remove(&lane);
            stop.cancelled().await;
            far.0.lock().confirms - before
        }
    };
    far.0.lock().confirmed = 0;
    let (put, asked) = tokio::join!(
        async {
            let put = put(&owner, 1, 100).await;
            stop.cancel();
            put
        },
        async {
            let asked = tokio::spawn(forgetful);
            far.until(|server| server.lasts.is_empty()).await;
            far.0.lock().confirmed = 1;
            asked.await.unwrap()
        }
    );
    assert!(put.unwrap().is_spooled());
    assert!(asked <= 20, "{asked}");
}

/// An entry may begin in one chunk and end in the next one.
#[tokio::test]
async fn what_is_on_disk_is_read_back_wherever_its_chunks_end() {
    let far = Far::new();
    let tail = TailOptions::new().with_max_memory(0);
    let owner = far.open(&MemoryStore::default(), far.options().with_tail(tail));
    let mut line = Spooling::new(owner.clone());
    let job = |number| Job {
        number,
        size: 1_000,
    };
    for first in (0..2_400).step_by(12) {
        let answers = join_all((first..first + 12).map(|number| line.call(job(number)))).await;
        assert!(answers.iter().all(Result::is_ok));
        // Nothing is given up.
        let all = &owner.shared.tail_bytes;
        far.until(|_| all.load(std::sync::atomic::Ordering::Relaxed) < 100_000)
            .await;
    }
    far.0.lock().replace();
    far.until(|server| server.list.len() == 2_400).await;
    assert!(far.0.lock().list.is_sorted());
}

/// What is being written keeps its numbers until it is.
#[tokio::test]
async fn what_is_sent_again_while_it_is_written_can_be_read_back() {
    let far = Far::new();
    let store = MemoryStore::default();
    let tail = TailOptions::new().with_max_memory(0);
    let options = far.options().with_tail(tail).with_max_batch(4, 1 << 20);
    let owner = far.open(&store, options);
    store.set_fault((Call::Apply, Fault::Stall));
    for number in 0..70 {
        assert!(put(&owner, number, 1_000).await.unwrap().is_delivered());
    }
    store.await_stall();
    far.0.lock().replace();
    far.until(|server| server.list.len() == 70).await;
    store.set_fault(None);
    let all = &owner.shared.tail_bytes;
    far.until(|_| all.load(std::sync::atomic::Ordering::Relaxed) < 40_000)
        .await;
    far.0.lock().replace();
    far.until(|server| server.list.len() == 70).await;
    assert!(far.0.lock().list.is_sorted());
}

//! A spool in a process of its own, which asks for what is to become of its batches.

use std::{
    collections::HashMap,
    env,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
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
};
use tower::{Layer as _, Service as _, service_fn};

use crate::PLENTY;

/// The process, seen from outside.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) to: ChildStdin,
    pub(super) from: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn start(life: &Life) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "deque::process::the_spool", "--nocapture"])
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

    pub(super) async fn ask(&mut self, ask: &Ask) {
        let line = serde_json::to_string(ask).unwrap() + "\n";
        // It may be dead; what it has said is still to be heard.
        let _ = self.to.write_all(line.as_bytes()).await;
    }

    pub(super) async fn hear(&mut self) -> Option<Tell> {
        loop {
            let line = self.from.next_line().await.unwrap()?;
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(serde_json::from_str(said).unwrap());
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
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
pub(super) enum Tell {
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
pub(super) enum Outcome {
    Taken,
    Refused { kind: String, landed: bool },
}

/// A batch, as the far end sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) queue: u8,
    pub(super) lane: String,
    pub(super) after: u64,
    pub(super) ends: bool,
    /// Numbers with their records; none of one that has expired, and no name of one that is damaged.
    pub(super) records: Vec<(u64, Option<Option<u32>>)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Out { landed: bool },
    All { duplicates: u64 },
    Stopped { through: u64 },
    Refused { through: u64 },
}

/// How it is opened the next time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) spooled: bool,
    pub(super) fast: bool,
    pub(super) max_batch: usize,
}

/// How the spool is opened in one life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) dir: PathBuf,
    pub(super) spooled: bool,
    pub(super) fast: bool,
    pub(super) max_records: Option<u64>,
    pub(super) max_batch: usize,
    /// Since 1970; hours count from here.
    pub(super) base_s: u64,
    pub(super) jump: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) queue: u8,
    pub(super) id: u32,
    pub(super) size: u32,
    pub(super) expires: Option<i64>,
    #[serde(default)]
    pub(super) sound: Option<bool>,
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

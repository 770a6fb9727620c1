//! Many records through a small window: what the spool keeps on disk, in memory and in files while far
//! more than it holds has gone through it; and how many bytes the store writes for each byte of chunks.
//!
//! A bound that is passed is a failure, not a row. Linux only.
//! `SEAWALL_CHURN=10000000 cargo bench --features chaos --bench churn`

mod report;

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use seawall::{
    Error,
    spool::{
        Ack, Applied, Batch, Durability, Overflow, Replay, Spool, SpoolLayer, SpoolOptions,
        SpoolStats, Spoolable, Undecodable,
    },
};
use tokio::{runtime, task::JoinSet, time::Instant};
use tower::{Layer as _, Service as _, service_fn};

use report::{Goal, Report, Row, Unit};

fn main() {
    let mut report = Report::new("churn");
    let named = env::var("SEAWALL_CHURN").ok();
    let records = named.map_or_else(
        || report.sized(200_000, 3_000),
        |text| text.parse().expect("SEAWALL_CHURN is a number"),
    );
    report.condition("records", &records);
    report.condition("sizes", &"200 B to 64 KiB, log-uniform");
    report.condition("waiting", &format!("{WINDOW} records, {WINDOW_BYTES} B"));
    churn(&mut report, records);
    amplification(&mut report);
    report.finish();
}

const WINDOW: u64 = 1_000;
const WINDOW_BYTES: u64 = 20 << 20;
const GENERATION: u64 = 64 << 20;

// ===== churn =====

fn churn(report: &mut Report, records: u64) {
    let scratch = report::scratch();
    let path = scratch.path().join("spool");
    let runtime = runtime::Runtime::new().expect("a runtime");
    let began = Instant::now();
    let (far_end, most) = runtime.block_on(async {
        let options = SpoolOptions::new(&path)
            .with_ack(Ack::Spooled)
            .with_generation_bytes(GENERATION)
            .with_max_records(WINDOW)
            .with_max_bytes(WINDOW_BYTES)
            .with_disk_timeout(PATIENCE)
            .with_overflow(Overflow::Block { timeout: PATIENCE })
            .with_replay(Replay::unpaced());
        let spool: Spool<Record> = Spool::open(options).await.expect("it opens");
        let far_end = Arc::new(FarEnd::default());
        let watch = Watch::start(&path, &spool);
        produce(&spool, &far_end, records).await;
        spool.flush().await;
        let most = watch.end();
        assert_eq!(spool.shutdown(PATIENCE).await.expect("it closes"), 0);
        (far_end, most)
    });
    let seconds = began.elapsed().as_secs_f64();
    drop(runtime);

    assert_eq!(far_end.records.load(Relaxed), records, "each came once");
    assert_eq!(far_end.strayed.load(Relaxed), 0, "each in its place");
    // A generation is full with the write that fills it.
    let bound = 3 * most.live + most.generation.max(GENERATION);
    assert!(most.disk <= bound, "{most:?}: more on disk than {bound}");
    assert_eq!(most.blobs, 0, "{most:?}");
    assert!(most.files <= 100, "{most:?}");
    assert!(most.memory <= 400 << 20, "{most:?}");

    let mut row = |what: &str, unit, value: u64| {
        report.row(Row::new(what, unit, value as f64));
    };
    row(
        "payload that went through",
        Unit::Bytes,
        far_end.bytes.load(Relaxed),
    );
    row("peak live", Unit::Bytes, most.live);
    row("peak files", Unit::Count, most.files);
    row("peak generations", Unit::Count, most.generations);
    row("largest generation", Unit::Bytes, most.generation);
    row("blobs", Unit::Count, most.blobs);
    row("peak memory", Unit::Bytes, most.memory);
    report
        .row(Row::new("peak disk", Unit::Bytes, most.disk as f64).goal(Goal::AtMost(bound as f64)));
    report.row(Row::new(
        "records",
        Unit::PerSecond,
        records as f64 / seconds,
    ));
}

const PATIENCE: Duration = Duration::from_secs(600);

/// Each producer has a queue of its own, so that it is known what comes next in it.
async fn produce(spool: &Spool<Record>, far_end: &Arc<FarEnd>, records: u64) {
    let service = service_fn({
        let far_end = far_end.clone();
        move |batch| std::future::ready(far_end.take(&batch))
    });
    let line = SpoolLayer::new(spool).layer(service);
    let mut producers = JoinSet::new();
    for (producer, queue) in QUEUES.into_iter().enumerate() {
        let mut line = line.clone();
        let share = records / QUEUES.len() as u64;
        let share = if producer == 0 {
            records - share * (QUEUES.len() as u64 - 1)
        } else {
            share
        };
        producers.spawn(async move {
            let mut dice = SmallRng::seed_from_u64(producer as u64);
            let mut waiting = FuturesUnordered::new();
            for number in 0..share {
                // All of them are more than the window holds.
                if waiting.len() >= 512 {
                    let receipt: Option<Result<_, Error>> = waiting.next().await;
                    let _ = receipt.expect("it is not empty").expect("it is taken");
                }
                let size = 200.0 * (65_536.0_f64 / 200.0).powf(dice.random::<f64>());
                waiting.push(line.call(Record::new(queue, number, size as usize)));
            }
            while let Some(receipt) = waiting.next().await {
                let _ = receipt.expect("it is taken");
            }
        });
    }
    producers.join_all().await;
}

const QUEUES: [&str; 4] = ["east", "west", "north", "south"];

/// Takes all, and notices what comes out of turn or is not what was sent.
#[derive(Default)]
struct FarEnd {
    records: AtomicU64,
    bytes: AtomicU64,
    strayed: AtomicU64,
    next: parking_lot::Mutex<BTreeMap<String, u64>>,
}

impl FarEnd {
    fn take(&self, batch: &Batch<Record>) -> Result<Applied, Error> {
        let mut next = self.next.lock();
        let next = next.entry(batch.queue().to_owned()).or_default();
        for (_, record) in batch.iter() {
            let number = record.and_then(Record::number);
            self.strayed
                .fetch_add(u64::from(number != Some(*next)), Relaxed);
            *next += 1;
            self.records.fetch_add(1, Relaxed);
            let size = record.map_or(0, Spoolable::size);
            self.bytes.fetch_add(size as u64, Relaxed);
        }
        Ok(Applied::all())
    }
}

/// Its number, again and again.
struct Record {
    queue: &'static str,
    bytes: Bytes,
}

impl Record {
    fn new(queue: &'static str, number: u64, size: usize) -> Self {
        let mut bytes = number.to_le_bytes().repeat(size.div_ceil(8).max(1));
        bytes.truncate(size.max(8));
        Self {
            queue,
            bytes: bytes.into(),
        }
    }

    /// `None` if it is damaged.
    fn number(&self) -> Option<u64> {
        let first = self.bytes.first_chunk::<8>()?;
        let same = self
            .bytes
            .chunks(8)
            .all(|part| part == &first[..part.len()]);
        same.then(|| u64::from_le_bytes(*first))
    }
}

impl Spoolable for Record {
    fn queue(&self) -> &str {
        self.queue
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.bytes);
    }

    fn decode(_: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        Ok(Self { queue: "", bytes })
    }
}

// ===== what is watched =====

/// The most there ever was.
#[derive(Clone, Debug, Default)]
struct Most {
    /// Records that wait, as they are on disk.
    live: u64,
    disk: u64,
    files: u64,
    generations: u64,
    /// The largest.
    generation: u64,
    blobs: u64,
    /// Of this process, producers and far end included.
    memory: u64,
}

struct Watch {
    done: mpsc::Sender<()>,
    thread: thread::JoinHandle<Most>,
}

impl Watch {
    fn start(path: &Path, spool: &Spool<Record>) -> Self {
        let (done, ended) = mpsc::channel();
        let (path, spool) = (path.to_owned(), spool.clone());
        let thread = thread::spawn(move || {
            let mut most = Most::default();
            while ended.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                most = most.with(&look(&path, &spool.stats()));
            }
            most
        });
        Self { done, thread }
    }

    fn end(self) -> Most {
        drop(self.done);
        self.thread.join().expect("it does not panic")
    }
}

impl Most {
    fn with(&self, other: &Self) -> Self {
        Self {
            live: self.live.max(other.live),
            disk: self.disk.max(other.disk),
            files: self.files.max(other.files),
            generations: self.generations.max(other.generations),
            generation: self.generation.max(other.generation),
            blobs: self.blobs.max(other.blobs),
            memory: self.memory.max(other.memory),
        }
    }
}

fn look(path: &Path, stats: &SpoolStats) -> Most {
    let mut now = Most {
        live: stats.bytes,
        memory: status("VmRSS:"),
        ..Most::default()
    };
    for (path, blocks) in files(path) {
        // Set aside for a full disk, and not for records.
        if path.file_name().is_some_and(|name| name == "BALLAST") {
            continue;
        }
        now.files += 1;
        now.disk += blocks;
        let within = |name| path.parent().is_some_and(|parent| parent.ends_with(name));
        now.blobs += u64::from(within("blobs"));
        if path.ends_with("db") {
            now.generations += 1;
            now.generation = now.generation.max(blocks);
        }
    }
    now
}

/// All files below, and what they take up. One may go while this looks.
fn files(path: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.blocks() * 512)),
            Err(_) => {}
        }
    }
    found
}

/// A line of the process's status, in bytes.
fn status(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let value = status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .expect("the line is there");
    let kilobytes: u64 = value
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes * 1024
}

// ===== write amplification =====

/// Bytes of a generation's file, and bytes handed to the operating system, per byte of chunks; the far
/// end is away.
fn amplification(report: &mut Report) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (size, batch) in [
        (256, 1),
        (256, 64),
        (256, 1024),
        (32 << 10, 1),
        (32 << 10, 32),
    ] {
        let bytes = report.sized(48 << 20, 1 << 20);
        // A commit of one record takes a while, and shows as much sooner.
        let bytes = if batch == 1 && size < 1024 {
            bytes / 4
        } else {
            bytes
        };
        let [chunks, file, written] = runtime.block_on(written(size, batch, bytes));
        let what = format!("{size} B, {batch} a batch");
        report.row(Row::new(format!("{what}: file"), Unit::Bytes, file).against("chunks", chunks));
        report.row(
            Row::new(format!("{what}: written"), Unit::Bytes, written).against("chunks", chunks),
        );
    }
}

async fn written(size: usize, batch: usize, bytes: usize) -> [f64; 3] {
    let scratch = report::scratch();
    let path = scratch.path().join("spool");
    let options = SpoolOptions::new(&path)
        .with_ack(Ack::Spooled)
        .with_durability(Durability::ProcessCrash)
        .with_generation_bytes(1 << 30)
        .with_max_batch(1 << 16, 256 << 20)
        .with_max_records(u64::MAX);
    let spool: Spool<Record> = Spool::open(options).await.expect("it opens");
    let away = service_fn(|_: Batch<Record>| std::future::pending::<Result<Applied, Error>>());
    let mut line = SpoolLayer::new(&spool).layer(away);
    let before = handed_over();
    for first in (0..bytes / size).step_by(batch) {
        let calls = (first..first + batch).map(|number| {
            let record = Record::new("east", number as u64, size);
            line.call(record)
        });
        let receipts = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
        assert!(receipts.into_iter().all(|receipt| receipt.is_ok()));
    }
    let handed_over = handed_over() - before;
    let chunks = spool.stats().bytes;
    let file = fs::metadata(path.join("gen-1/db"))
        .expect("there is one generation")
        .len();
    [chunks as f64, file as f64, handed_over as f64]
}

/// What the process has written to files, in bytes, by its own count.
fn handed_over() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").expect("this is Linux");
    counts
        .lines()
        .find_map(|line| line.strip_prefix("wchar: "))
        .and_then(|text| text.parse().ok())
        .expect("the line is there")
}

//! What it costs to be durable: jobs a second to disk while Redis is away, beside appending the same
//! bytes to a plain file with an fdatasync for each batch; and how long one job then takes.
//!
//! `cargo bench --features chaos --bench spool`

mod report;

use std::{fs::File, io::Write as _, time::Duration};

use prometheus::Registry;
use seawall::{
    Job, Seawall,
    spool::{Ack, Overflow, SpoolOptions},
};
use tempfile::TempDir;
use tokio::{runtime, task::JoinSet, time::Instant};

use report::{Goal, Report, Rounds, Row, Unit};

fn main() {
    let mut report = Report::new("spool");
    let rounds = report.sized(9, 1);
    report.condition("Redis", &"away");
    report.condition("rounds", &rounds);
    report.condition("payload", &format!("{PAYLOAD} B"));
    report.condition("durability", &"fdatasync before each receipt");

    batches(&mut report, rounds);
    tasks(&mut report, rounds);
    one_job(&mut report);
    #[cfg(feature = "encrypt")]
    encrypted(&mut report, rounds);
    report.finish();
}

const PAYLOAD: usize = 256;

/// The same batches, through seawall and to a plain file. On one thread nothing is taken before the
/// whole batch is in, so that each is one write.
fn batches(report: &mut Report, rounds: u32) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (batch, goal) in [
        (1, None),
        (16, None),
        (64, Some(0.6)),
        (256, None),
        (1024, Some(0.35)),
    ] {
        let round = report.sized(Duration::from_millis(400), Duration::from_millis(20));
        let mut spool = runtime.block_on(Spool::open());
        let mut plain = Plain::create(batch, runtime.block_on(spool.bytes_of(batch)));
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        let opening = spool.commits();
        for _ in 0..rounds {
            ours.push(runtime.block_on(spool.batches_for(batch, round)));
            theirs.push(plain.batches_for(round));
        }
        let row = Row::new(
            format!(
                "{batch} a batch (mean of commits: {:.0})",
                opening.mean_until(&spool.commits())
            ),
            Unit::PerSecond,
            ours.median(),
        )
        .against("append + fdatasync", theirs.median());
        report.row(match goal {
            Some(goal) => row.goal(Goal::RatioAtLeast(goal)),
            None => row,
        });
        runtime.block_on(spool.close());
    }
}

/// As an application does it: each task waits for its own job.
fn tasks(report: &mut Report, rounds: u32) {
    let runtime = runtime::Runtime::new().expect("a runtime");
    let round = report.sized(Duration::from_millis(400), Duration::from_millis(50));
    let mut rates = Rounds::default();
    let spool = runtime.block_on(Spool::open());
    let opening = spool.commits();
    for _ in 0..rounds {
        rates.push(runtime.block_on(spool.tasks_for(TASKS, round)));
    }
    report.row(
        Row::new(
            format!(
                "{TASKS} tasks (mean of commits: {:.0})",
                opening.mean_until(&spool.commits())
            ),
            Unit::PerSecond,
            rates.median(),
        )
        .goal(Goal::AtLeast(1e6)),
    );
    runtime.block_on(spool.close());
}

const TASKS: usize = 1024;

/// One job at a time, in turns with one append and fdatasync of as many bytes.
fn one_job(report: &mut Report) {
    let runtime = runtime::Runtime::new().expect("a runtime");
    let times = report.sized(4_000, 100);
    runtime.block_on(async {
        let spool = Spool::open().await;
        let mut plain = Plain::create(1, spool.bytes_of(1).await);
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..times {
            let began = Instant::now();
            spool.one().await;
            ours.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            plain.append();
            theirs.push(began.elapsed().as_secs_f64());
        }
        report.row(
            Row::new(
                "one enqueue in an outage, p50",
                Unit::Seconds,
                ours.median(),
            )
            .against("append + fdatasync", theirs.median()),
        );
        report.row(
            Row::new(
                "one enqueue in an outage, p99",
                Unit::Seconds,
                ours.quantile(0.99),
            )
            .against("append + fdatasync", theirs.quantile(0.99))
            .goal(Goal::RatioBelow(5.0)),
        );
        spool.close().await;
    });
}

/// What encryption costs, round by round beside the same without.
#[cfg(feature = "encrypt")]
fn encrypted(report: &mut Report, rounds: u32) {
    use seawall::spool::{Key, Keys};

    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let keys = Keys::single(1, Key::from_bytes([7; Key::LEN]));
    for batch in [1, 64, 1024] {
        let round = report.sized(Duration::from_millis(400), Duration::from_millis(20));
        let mut clear = runtime.block_on(Spool::open());
        let mut sealed = runtime.block_on(Spool::open_with(|o| o.with_keys(keys.clone())));
        let (mut with, mut without) = (Rounds::default(), Rounds::default());
        for _ in 0..rounds {
            with.push(runtime.block_on(sealed.batches_for(batch, round)));
            without.push(runtime.block_on(clear.batches_for(batch, round)));
        }
        report.row(
            Row::new(
                format!("encrypted, {batch} a batch"),
                Unit::PerSecond,
                with.median(),
            )
            .against("in clear", without.median()),
        );
        runtime.block_on(sealed.close());
        runtime.block_on(clear.close());
    }
}

/// A seawall whose Redis is away, in a directory of its own.
struct Spool {
    seawall: Seawall,
    registry: Registry,
    _dir: TempDir,
}

impl Spool {
    async fn open() -> Self {
        Self::open_with(|options| options).await
    }

    async fn open_with(more: impl FnOnce(SpoolOptions) -> SpoolOptions) -> Self {
        let (dir, registry) = (report::scratch(), Registry::new());
        let seawall = Seawall::builder(NOBODY, &dir)
            .expect("the settings are right")
            .spool(|options| {
                let options = options
                    .with_ack(Ack::Spooled)
                    .with_max_records(u64::MAX)
                    .with_max_bytes(u64::MAX)
                    .with_overflow(Overflow::Reject);
                more(options)
            })
            .metrics(&registry)
            .connect()
            .await
            .expect("the spool opens");
        Self {
            seawall,
            registry,
            _dir: dir,
        }
    }

    async fn one(&self) {
        let receipt = self.seawall.enqueue(job()).await;
        assert!(receipt.expect("it is taken").is_spooled());
    }

    async fn batch(&self, batch: usize) {
        let receipts = self.seawall.enqueue_all((0..batch).map(|_| job())).await;
        assert!(
            receipts
                .into_iter()
                .all(|receipt| receipt.expect("it is taken").is_spooled())
        );
    }

    /// How many bytes a batch takes on disk, as seawall itself counts them.
    async fn bytes_of(&self, batch: usize) -> u64 {
        let before = self.seawall.spool().stats().bytes;
        self.batch(batch).await;
        self.seawall.spool().stats().bytes - before
    }

    async fn batches_for(&mut self, batch: usize, round: Duration) -> f64 {
        let (began, mut jobs) = (Instant::now(), 0);
        while began.elapsed() < round {
            self.batch(batch).await;
            jobs += batch;
        }
        jobs as f64 / began.elapsed().as_secs_f64()
    }

    async fn tasks_for(&self, tasks: usize, round: Duration) -> f64 {
        let began = Instant::now();
        let mut pushing = JoinSet::new();
        for _ in 0..tasks {
            let seawall = self.seawall.clone();
            pushing.spawn(async move {
                let mut jobs = 0_u64;
                while began.elapsed() < round {
                    let receipt = seawall.enqueue(job()).await;
                    assert!(receipt.expect("it is taken").is_spooled());
                    jobs += 1;
                }
                jobs
            });
        }
        let jobs: u64 = pushing.join_all().await.into_iter().sum();
        jobs as f64 / began.elapsed().as_secs_f64()
    }

    fn commits(&self) -> Commits {
        let families = self.registry.gather();
        let commits = families
            .iter()
            .find(|family| family.name() == "seawall_spool_commit_records")
            .expect("the metric is there");
        let histogram = commits.get_metric()[0].get_histogram();
        Commits {
            count: histogram.get_sample_count(),
            records: histogram.get_sample_sum(),
        }
    }

    async fn close(self) {
        self.seawall
            .shutdown(Duration::ZERO)
            .await
            .expect("the disk answers");
    }
}

/// A port at which nobody listens.
const NOBODY: &str = "redis://127.0.0.1:1";

fn job() -> Job {
    Job::new("emails", vec![b'x'; PAYLOAD])
}

struct Commits {
    count: u64,
    records: f64,
}

impl Commits {
    fn mean_until(&self, later: &Self) -> f64 {
        (later.records - self.records) / (later.count - self.count) as f64
    }
}

/// A file that is appended to, and nothing else.
struct Plain {
    file: File,
    batch: usize,
    bytes: Vec<u8>,
    _dir: TempDir,
}

impl Plain {
    fn create(batch: usize, bytes: u64) -> Self {
        let dir = report::scratch();
        let file = File::create(dir.path().join("plain")).expect("target/ can be written");
        Self {
            file,
            batch,
            bytes: vec![b'x'; bytes as usize],
            _dir: dir,
        }
    }

    fn append(&mut self) {
        self.file.write_all(&self.bytes).expect("the disk takes it");
        self.file.sync_data().expect("the disk takes it");
    }

    fn batches_for(&mut self, round: Duration) -> f64 {
        let (began, mut jobs) = (Instant::now(), 0);
        while began.elapsed() < round {
            self.append();
            jobs += self.batch;
        }
        jobs as f64 / began.elapsed().as_secs_f64()
    }
}

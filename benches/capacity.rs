//! What many waiting jobs cost: memory while they come, wait and go, and the time to open a spool that
//! holds them, after an orderly end and after none.
//!
//! Each part is a process of its own, so that the memory it measures is its own. Linux only.
//! `SEAWALL_CAPACITY=10000000 cargo bench --features chaos --bench capacity`

mod report;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use seawall::{
    Error, Job, Seawall,
    sequence::Write,
    spool::{Applied, Batch, Replay, Spool, SpoolLayer, SpoolOptions},
};
use tokio::time::Instant;
use tower::{Layer as _, service_fn};

use report::{Goal, Report, Row, Unit};

#[tokio::main]
async fn main() {
    if let Ok(part) = env::var(PART) {
        let spool = env::var(SPOOL).expect("it comes with the part");
        let jobs = env::var(JOBS).ok().and_then(|jobs| jobs.parse().ok());
        let jobs = jobs.expect("they come with the part");
        return carry_out(&part, Path::new(&spool), jobs).await;
    }
    let mut report = Report::new("capacity");
    let named = env::var(JOBS).ok();
    let jobs = named.map_or_else(
        || report.sized(1_000_000, 10_000),
        |text| text.parse().expect("a number of jobs"),
    );
    report.condition("Redis", &"away");
    report.condition("jobs", &jobs);
    report.condition("payload", &format!("{PAYLOAD} B"));

    let scratch = report::scratch();
    let run = |part| Part::run(part, &scratch.path().join("spool"), jobs);
    let filled = run("fill");
    report.row(Row::new(
        format!("memory, {} jobs on disk", jobs / 10),
        Unit::Bytes,
        filled.figures[0],
    ));
    report.row(
        Row::new(
            format!("memory, {jobs} jobs on disk"),
            Unit::Bytes,
            filled.figures[1],
        )
        .against("a tenth of them", filled.figures[0]),
    );
    report.row(
        Row::new(
            "peak memory while they come",
            Unit::Bytes,
            filled.figures[2],
        )
        .goal(Goal::Below(150e6)),
    );
    report.row(Row::new("disk", Unit::Bytes, filled.figures[3]));
    filled.kill();
    // The first time nobody has closed it, the second time somebody has.
    for (part, how) in [("open", "killed"), ("open", "closed")] {
        let opened = run(part);
        let open = Row::new(
            format!("open with {jobs} jobs waiting, {how}"),
            Unit::Seconds,
            opened.figures[0],
        );
        report.row(open.goal(Goal::Below(2.0)));
        report.row(
            Row::new(
                format!("peak memory of opening, {how}"),
                Unit::Bytes,
                opened.figures[1],
            )
            .goal(Goal::Below(150e6)),
        );
        opened.ends();
    }
    let drained = run("drain");
    report.row(Row::new(
        "replay to a far end that takes all at once",
        Unit::PerSecond,
        jobs as f64 / drained.figures[0],
    ));
    report.row(
        Row::new("peak memory while they go", Unit::Bytes, drained.figures[1])
            .goal(Goal::Below(150e6)),
    );
    report.row(Row::new("disk afterwards", Unit::Bytes, drained.figures[2]));
    drained.ends();
    report.finish();
}

const PAYLOAD: usize = 256;

// ===== the parts =====

const PART: &str = "SEAWALL_CAPACITY_PART";
const SPOOL: &str = "SEAWALL_CAPACITY_SPOOL";
const JOBS: &str = "SEAWALL_CAPACITY";

/// Says its figures in one line, and ends when it is asked to, by the end of its input.
async fn carry_out(part: &str, spool: &Path, jobs: usize) {
    match part {
        "fill" => {
            let seawall = open(spool).await;
            fill(&seawall, jobs / 10).await;
            let early = memory("VmRSS:");
            fill(&seawall, jobs - jobs / 10).await;
            say(&[early, memory("VmRSS:"), memory("VmHWM:"), size(spool)]);
        }
        "open" => {
            let began = Instant::now();
            let seawall = open(spool).await;
            let opening = began.elapsed().as_secs_f64();
            let found = seawall.spool().stats().records;
            assert_eq!(found, jobs as u64, "jobs found on disk");
            say(&[opening, memory("VmHWM:")]);
            let left = seawall.shutdown(Duration::ZERO).await;
            assert_eq!(left.expect("the disk answers"), jobs as u64);
        }
        "drain" => {
            let options = SpoolOptions::new(spool)
                .with_max_records(u64::MAX)
                .with_max_bytes(u64::MAX)
                .with_replay(Replay::unpaced());
            let spooled: Spool<Write> = Spool::open(options).await.expect("it opens");
            let began = Instant::now();
            let take = |_: Batch<Write>| std::future::ready(Ok::<_, Error>(Applied::all()));
            let _line = SpoolLayer::new(&spooled).layer(service_fn(take));
            spooled.flush().await;
            let seconds = began.elapsed().as_secs_f64();
            assert_eq!(spooled.stats().records, 0);
            let left = spooled.shutdown(Duration::from_secs(60)).await;
            assert_eq!(left.expect("the disk answers"), 0);
            say(&[seconds, memory("VmHWM:"), size(spool)]);
        }
        other => panic!("no such part: {other}"),
    }
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[allow(clippy::print_stdout, reason = "a bench speaks on the screen")]
fn say(figures: &[f64]) {
    println!("{}", serde_json::json!(figures));
}

/// A process that does one part.
struct Part {
    process: Child,
    figures: Vec<f64>,
}

impl Part {
    /// Comes back when it has said its figures.
    fn run(part: &str, spool: &Path, jobs: usize) -> Self {
        let mut process = Command::new(env::current_exe().expect("it runs"))
            .env(PART, part)
            .env(SPOOL, spool)
            .env(JOBS, jobs.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run again");
        let said = process.stdout.take().expect("it is piped");
        let line = BufReader::new(said).lines().next();
        let line = line.expect("it says its figures").expect("in UTF-8");
        Self {
            process,
            figures: serde_json::from_str(&line).expect("they are numbers"),
        }
    }

    fn kill(mut self) {
        self.process.kill().expect("it is ours");
        let _ = self.process.wait();
    }

    fn ends(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("it is ours");
        assert!(status.success());
    }
}

async fn open(spool: &Path) -> Seawall {
    Seawall::builder("redis://127.0.0.1:1", spool)
        .expect("the settings are right")
        .spool(|options| options.with_max_records(u64::MAX).with_max_bytes(u64::MAX))
        .connect()
        .await
        .expect("the spool opens")
}

async fn fill(seawall: &Seawall, jobs: usize) {
    for _ in 0..jobs / 1_000 {
        let receipts = seawall
            .enqueue_all((0..1_000).map(|_| Job::new("emails", vec![b'x'; PAYLOAD])))
            .await;
        assert!(
            receipts
                .into_iter()
                .all(|receipt| receipt.expect("it is taken").is_spooled())
        );
    }
}

/// A line of the process's status, in bytes.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let value = status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .expect("the line is there");
    let kilobytes: f64 = value
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes * 1024.0
}

/// All files below, in bytes.
fn size(path: &Path) -> f64 {
    let mut sum = 0.0;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += size(&entry.path()),
            Ok(metadata) => sum += metadata.len() as f64,
            Err(_) => {}
        }
    }
    sum
}

//! What many waiting jobs cost: memory while they wait, and the time to open a spool that holds them.
//!
//! A program of its own, so that the memory it measures is its own. Linux only.
//! `cargo bench --features chaos --bench capacity`

mod report;

use std::{fs, path::Path, time::Duration};

use seawall::{Job, Seawall};
use tokio::time::Instant;

use report::{Goal, Report, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("capacity");
    let jobs = report.sized(1_000_000, 10_000);
    report.condition("Redis", &"away");
    report.condition("jobs", &jobs);
    report.condition("payload", &format!("{PAYLOAD} B"));

    let spool = report::scratch();
    let seawall = open(spool.path()).await;
    fill(&seawall, jobs / 10).await;
    let early = memory("VmRSS:");
    fill(&seawall, jobs - jobs / 10).await;
    let (late, peak) = (memory("VmRSS:"), memory("VmHWM:"));
    let left = seawall
        .shutdown(Duration::ZERO)
        .await
        .expect("the disk answers");
    assert_eq!(left, jobs as u64, "jobs on disk");
    drop(seawall);

    let began = Instant::now();
    let seawall = open(spool.path()).await;
    let opening = began.elapsed().as_secs_f64();
    assert_eq!(
        seawall.spool().stats().records,
        jobs as u64,
        "jobs found on disk"
    );
    let opened = memory("VmHWM:");

    report.row(Row::new(
        format!("memory, {} jobs on disk", jobs / 10),
        Unit::Bytes,
        early,
    ));
    report.row(
        Row::new(format!("memory, {jobs} jobs on disk"), Unit::Bytes, late)
            .against("a tenth of them", early),
    );
    report.row(Row::new("peak memory while they come", Unit::Bytes, peak).goal(Goal::Below(150e6)));
    report.row(
        Row::new(
            format!("open with {jobs} jobs waiting"),
            Unit::Seconds,
            opening,
        )
        .goal(Goal::Below(2.0)),
    );
    report.row(Row::new(
        "peak memory, opening included",
        Unit::Bytes,
        opened,
    ));
    seawall
        .shutdown(Duration::ZERO)
        .await
        .expect("the disk answers");
    report.finish();
}

const PAYLOAD: usize = 256;

async fn open(spool: &Path) -> Seawall {
    Seawall::builder("redis://127.0.0.1:1", spool)
        .expect("the settings are right")
        .spool(|options| options.with_max_records(u64::MAX))
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

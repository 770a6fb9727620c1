//! A process that appends, removes and is killed: whatever it had acknowledged is there afterwards.
//!
//! The victim is this very test program, run again with [`VICTIM`] set.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command as Process, Stdio},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

/// What the victim says, a line each, after the fact.
const ACKED: &str = "acked ";
const REMOVING: &str = "removing ";
const VICTIM: &str = "SEAWALL_TEST_VICTIM";

/// How many chunks the victim leaves waiting.
const DEPTH: u64 = 20;

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let mut seeds = SmallRng::seed_from_u64(SEED);
    for spool in 0..SPOOLS {
        let scratch = Scratch::new();
        let lane = LaneId::fresh();
        let mut books = Books::default();
        for kill in 0..KILLS {
            // Every other one hits while the spool is being opened.
            let kill = if kill % 2 == 0 {
                Kill {
                    lines: 0,
                    delay: Duration::from_micros(seeds.random_range(0..40_000)),
                }
            } else {
                Kill {
                    lines: seeds.random_range(1..40),
                    delay: Duration::from_micros(seeds.random_range(0..5_000)),
                }
            };
            books.add(&killed(kill, scratch.path(), lane));
            books.check(scratch.path(), lane, &format!("spool {spool}, {kill:?}"));
        }
        assert!(books.acked > 0);
    }
}

/// When it comes: so long after so many lines of the victim.
#[derive(Clone, Copy, Debug)]
struct Kill {
    lines: usize,
    delay: Duration,
}

const SEED: u64 = 0x5ea_4a11;
const SPOOLS: usize = 5;
const KILLS: usize = 4;

#[derive(Debug, Default)]
struct Books {
    /// The last number that the disk has acknowledged.
    acked: u64,
    /// The last number that may have been removed.
    removed: u64,
}

impl Books {
    fn add(&mut self, said: &[String]) {
        for line in said {
            let number = |prefix| line.strip_prefix(prefix)?.parse::<u64>().ok();
            self.acked = self.acked.max(number(ACKED).unwrap_or(0));
            self.removed = self.removed.max(number(REMOVING).unwrap_or(0));
        }
    }

    fn check(&self, path: &Path, lane: LaneId, what: &str) {
        let (disk, left) = Disk::open(&options(path)).unwrap();
        let front = left.lanes.first().map_or(0, |lane| lane.first);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let held = disk
                .read(lane, front, usize::MAX, usize::MAX)
                .await
                .unwrap();
            let mut next = held.first().map_or(self.acked + 1, |held| held.first);
            assert!(
                next <= self.removed + 1,
                "{what}: {self:?}, but the first is {next}"
            );
            for held in held {
                assert_eq!(held.first, next, "{what}: a gap");
                for (number, found) in (held.first..).zip(&held.records) {
                    assert_eq!(found, &record(number), "{what}");
                }
                next = held.end();
            }
            assert!(
                next > self.acked,
                "{what}: {self:?}, but the last is {}",
                next - 1
            );
            disk.close().await.unwrap();
        });
    }
}

fn record(number: u64) -> Vec<u8> {
    vec![number as u8; 50 + (number % 300) as usize]
}

/// Runs the victim, kills it, and returns what it has said.
#[allow(
    clippy::disallowed_methods,
    reason = "the moment of the kill is what is varied; nothing is waited for"
)]
fn killed(kill: Kill, path: &Path, lane: LaneId) -> Vec<String> {
    let mut victim = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "spool::commit::tests::crash::victim",
            "--nocapture",
        ])
        .env(VICTIM, path)
        .env("SEAWALL_TEST_LANE", hex_of(lane))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    // The clock starts when the victim is about to open, so that the early kills hit the open.
    let started = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.ends_with("opening"));
    assert!(started, "the victim ended by itself");
    let mut lines = lines.map_while(Result::ok);
    let mut said = Vec::new();
    for _ in 0..kill.lines {
        said.extend(lines.next());
    }
    std::thread::sleep(kill.delay);
    victim.kill().unwrap();
    victim.wait().unwrap();
    said.extend(lines);
    said
}

fn hex_of(lane: LaneId) -> String {
    format!("{:032x}", u128::from_be_bytes(lane.to_bytes()))
}

/// Not a promise: what the test above runs, and kills.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else {
        return;
    };
    let lane = std::env::var("SEAWALL_TEST_LANE").unwrap();
    let lane = LaneId::from_bytes(u128::from_str_radix(&lane, 16).unwrap().to_be_bytes());
    say("opening");
    let (disk, left) = Disk::open(&options(path)).unwrap();
    let (mut front, mut next) = left
        .lanes
        .first()
        .map_or((1, 1), |lane| (lane.first, lane.last + 1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        loop {
            let records: Vec<Vec<u8>> = (next..next + 1 + next % 40).map(record).collect();
            let slices: Vec<&[u8]> = records.iter().map(|record| &**record).collect();
            disk.append(chunks(lane, next, &slices)).await.unwrap();
            next += records.len() as u64;
            say(&format!("{ACKED}{}", next - 1));
            let oldest = disk.read(lane, front, 1, 1).await.unwrap();
            if oldest[0].first + DEPTH * 20 < next {
                let removing = oldest[0].end() - 1;
                say(&format!("{REMOVING}{removing}"));
                front = removing + 1;
                disk.done(done(lane, removing, oldest[0].records.len() as u64));
            }
        }
    });
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").unwrap();
}

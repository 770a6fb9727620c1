//! An application in a process of its own, whose system calls fail.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use seawall::{
    Error,
    chaos::wait_until,
    spool::{LaneId, SpoolOptions},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::Service as _;

use crate::{PLENTY, dice, far::Far, record::Record, template};

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) dir: PathBuf,
    /// How often it hands in ten records.
    pub(crate) rounds: u64,
    pub(crate) disk_timeout_ms: u64,
    pub(crate) stalled_after_ms: u64,
}

impl Orders {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            rounds: 4,
            disk_timeout_ms: 3000,
            stalled_after_ms: 5000,
        }
    }

    fn options(&self) -> SpoolOptions {
        template::options(&self.dir)
            .with_disk_timeout(Duration::from_millis(self.disk_timeout_ms))
            .with_stalled_after(Duration::from_millis(self.stalled_after_ms))
    }

    async fn carry_out(&self) {
        let far = Far::out();
        far.tell();
        let (spool, mut line) = loop {
            match template::open(self.options(), &far).await {
                Ok(opened) => break opened,
                Err(error) => {
                    say(&format!("closed to us: {error}"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        say("open");
        let gap = watch_runtime();
        let mut dice = dice(1);
        let mut id = 0;
        let mut slowest = Duration::ZERO;
        for round in 0..self.rounds {
            let mut handed_in = Vec::new();
            let since = Instant::now();
            for _ in 0..10 {
                id += 1;
                let padding = if dice.random_bool(0.05) {
                    60_000
                } else {
                    dice.random_range(0..3000)
                };
                let queue = format!("queue-{}", id % 2);
                let record = Record::new(&queue, id, true, padding);
                handed_in.push((id, queue, line.call(record)));
            }
            for (id, queue, receipt) in handed_in {
                tell(id, &queue, tokio::time::timeout(PLENTY, receipt).await.ok());
            }
            slowest = slowest.max(since.elapsed());
            // So that there is something to note, and something to give back.
            far.take(if round == self.rounds / 2 { 15 } else { 3 });
            tokio::time::sleep(Duration::from_millis(20)).await;
            far.take(0);
        }
        say("loaded");
        say(&format!("slowest {}", slowest.as_millis()));
        say(&format!("ready {:?}", spool.readiness()));
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .unwrap()
            .unwrap();
        loop {
            id += 1;
            let receipt = line.call(Record::new("queue-0", id, true, 100));
            let receipt = tokio::time::timeout(PLENTY, receipt).await.ok();
            let works = matches!(receipt, Some(Ok(_)));
            tell(id, "queue-0", receipt);
            if works {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        say("works");
        say(&format!("gap {}", gap.load(Relaxed)));
        say(&format!("ready {:?}", spool.readiness()));
        far.take(u64::MAX);
        let drained = wait_until("an empty spool", PLENTY, || async {
            spool.stats().records == 0
        });
        if drained.await.is_err() {
            return say(&format!("stuck {:?} {:?}", spool.stats(), spool.recovery()));
        }
        say(&format!("drained {}", spool.stats().lost));
        match spool.shutdown(Duration::from_secs(5)).await {
            Ok(left) => say(&format!("left {left}")),
            Err(error) => say(&format!("broken {error}")),
        }
    }
}

/// The longest time in milliseconds for which the runtime did nothing.
fn watch_runtime() -> Arc<AtomicU64> {
    let longest = Arc::new(AtomicU64::new(0));
    let watched = longest.clone();
    tokio::spawn(async move {
        loop {
            let since = Instant::now();
            tokio::time::sleep(Duration::from_millis(10)).await;
            watched.fetch_max(since.elapsed().as_millis() as u64, Relaxed);
        }
    });
    longest
}

fn tell(id: u64, queue: &str, answer: Option<Result<seawall::spool::Receipt, Error>>) {
    match answer {
        Some(Ok(receipt)) => say(&format!(
            "ack {queue} {} {} {id}",
            receipt.lane(),
            receipt.number()
        )),
        Some(Err(error)) => {
            say(&format!(
                "no {id} {} {:?} {}",
                error.may_have_landed(),
                error.kind(),
                chain(&error)
            ));
        }
        None => say(&format!("hangs {id}")),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace('\n', " ")
}

fn say(line: &str) {
    println!("{MARK}{line}");
}

const MARK: &str = "@ ";
const ORDERS: &str = "SEAWALL_FAULTS_ORDERS";

/// Not a test: what a [`Worker`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker() {
    let Ok(orders) = env::var(ORDERS) else {
        return;
    };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    orders.carry_out().await;
}

/// A process that carries out [`Orders`], and what it has said.
pub(crate) struct Worker {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    pub(crate) said: Said,
}

/// What a worker was promised, and what its far end was given.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) acknowledged: BTreeSet<u64>,
    /// With the word that they are not on disk.
    pub(crate) refused: BTreeSet<u64>,
    /// With the word that they may be.
    pub(crate) uncertain: BTreeSet<u64>,
    pub(crate) delivered: Vec<(String, LaneId, u64, u64)>,
    pub(crate) hangs: Vec<u64>,
    /// Why it could not be opened, and what was refused.
    pub(crate) words: BTreeSet<String>,
}

impl Worker {
    /// Starts one whose system calls strace meddles with, as told by `strace`.
    pub(crate) fn start(orders: &Orders, strace: &[String]) -> Self {
        let program = env::current_exe().unwrap();
        let log = orders.dir.with_extension("log");
        let mut command = if strace.is_empty() {
            Command::new(&program)
        } else {
            let mut command = Command::new("strace");
            command
                .args(["-D", "-I2", "-f", "-qq"])
                .args(strace)
                .arg("--")
                .arg(&program);
            command
        };
        let child = command
            .args([
                "--exact",
                "worker::the_worker",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!("strace cannot be run ({error}); it injects the faults: apt-get install strace")
        });
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(MARK) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Self {
            child,
            lines,
            log,
            said: Said::default(),
        }
    }

    /// Reads on to the line that begins with `wanted`, and gives the rest of it.
    pub(crate) fn until(&mut self, wanted: &str) -> Result<String, String> {
        self.until_any(&[wanted]).map(|(_, rest)| rest)
    }

    /// The same for one of several, and says which.
    pub(crate) fn until_any(&mut self, wanted: &[&str]) -> Result<(usize, String), String> {
        let end = Instant::now() + PLENTY * 2;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.note(&line);
                    for (at, wanted) in wanted.iter().enumerate() {
                        if let Some(rest) = line.strip_prefix(wanted) {
                            return Ok((at, rest.trim().to_owned()));
                        }
                    }
                }
                Err(error) => {
                    let words = &self.said.words;
                    return Err(format!(
                        "no {wanted:?} ({error}): {words:?} {}",
                        self.stderr()
                    ));
                }
            }
        }
    }

    /// Nothing meddles with it any more.
    pub(crate) fn heal(&self) {
        if let Some(tracer) = self.tracer() {
            let _ = kill_process(tracer, Signal::TERM);
            while self.tracer() == Some(tracer) {
                thread::yield_now();
            }
        }
    }

    fn tracer(&self) -> Option<Pid> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"))?;
        Pid::from_raw(line.trim().parse().ok()?)
    }

    /// It may go on.
    pub(crate) fn go(&mut self) {
        let _ = writeln!(self.child.stdin.as_mut().unwrap());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        while let Ok(line) = self.lines.recv_timeout(PLENTY) {
            self.said.note(&line);
        }
        let status = self.child.wait().unwrap();
        if status.success() {
            Ok(())
        } else {
            Err(format!("{status}: {}", self.stderr()))
        }
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.heal();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        match words.next().unwrap() {
            "ack" => {
                self.acknowledged
                    .insert(words.nth(3).unwrap().parse().unwrap());
            }
            "no" => {
                let id = words.next().unwrap().parse().unwrap();
                let uncertain = words.next().unwrap() == "true";
                if uncertain {
                    &mut self.uncertain
                } else {
                    &mut self.refused
                }
                .insert(id);
                self.words.insert(words.collect::<Vec<_>>().join(" "));
            }
            "closed" | "stuck" => {
                self.words.insert(line.to_owned());
            }
            "hangs" => self.hangs.push(words.next().unwrap().parse().unwrap()),
            "delivered" => {
                let queue = words.next().unwrap().to_owned();
                let lane = words.next().unwrap().parse().unwrap();
                let number = words.next().unwrap().parse().unwrap();
                self.delivered
                    .push((queue, lane, number, words.next().unwrap().parse().unwrap()));
            }
            _ => {}
        }
    }

    /// A far end that has had what this one's has had.
    pub(crate) fn far(&self) -> Far {
        let far = Far::out();
        for (queue, lane, number, id) in &self.delivered {
            far.had(queue, *lane, *number, *id);
        }
        far
    }

    /// Opens what the worker has left, lets all of it out, and holds it against what was promised.
    pub(crate) async fn settle(&self, dir: &Path) -> Result<(), String> {
        let far = self.far();
        let (spool, line) = template::open(template::options(dir).with_strict(true), &far)
            .await
            .map_err(|error| chain(&error))?;
        far.take(u64::MAX);
        wait_until("an empty spool", PLENTY, || async {
            spool.stats().records == 0
        })
        .await
        .map_err(|error| chain(&error))?;
        let _ = spool
            .shutdown(Duration::ZERO)
            .await
            .map_err(|error| chain(&error))?;
        drop(line);
        let mut all = BTreeSet::new();
        for (queue, ids) in far.delivered() {
            if !ids.is_sorted_by(|a, b| a < b) {
                return Err(format!("{queue}: out of order or twice: {ids:?}"));
            }
            all.extend(ids);
        }
        let lost: Vec<_> = self.acknowledged.difference(&all).collect();
        let refused: Vec<_> = self.refused.intersection(&all).collect();
        if !lost.is_empty() || !refused.is_empty() || far.damaged() > 0 || !self.hangs.is_empty() {
            return Err(format!(
                "acknowledged and lost {lost:?}, refused and delivered {refused:?}, hanging {:?}, {} damaged",
                self.hangs,
                far.damaged()
            ));
        }
        Ok(())
    }
}

/// What strace shows of a process: waits for it to have written it all.
pub(crate) fn read_trace(path: &Path) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}

//! An application in a process of its own, to be killed.

use std::{
    env,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use seawall::{
    Error, Job, Seawall,
    breaker::BreakerOptions,
    chaos::Books,
    spool::{ParkedFilter, Receipt, Replay, SpoolDir},
    stack::Builder,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::PLENTY;

/// What an application is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) url: String,
    pub(crate) dir: PathBuf,
    /// Whether many processes share the directory.
    pub(crate) shared: bool,
    pub(crate) queue: String,
    /// The lane of the books.
    pub(crate) name: String,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// How many jobs may be without an answer at a time.
    pub(crate) window: usize,
    pub(crate) spool_after_ms: u64,
    pub(crate) response_timeout_ms: u64,
    pub(crate) max_batch: usize,
    pub(crate) replay_rate: Option<u32>,
    /// Bytes added to each job.
    pub(crate) padding: usize,
    pub(crate) generation_bytes: u64,
    pub(crate) end: End,
}

/// What it does when all jobs have their answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum End {
    /// Goes on running.
    Stay,
    /// Waits until nothing is left, says so, and goes on running.
    Flush,
    /// Sends parked jobs again until there are none and nothing else is left, says so, and goes on running.
    Unpark,
    /// Shuts down within so many milliseconds, says what is left, and ends.
    Shutdown(u64),
}

impl Orders {
    pub(crate) fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }

    pub(crate) fn builder(&self) -> Builder {
        let millis = Duration::from_millis;
        let replay = Replay::unpaced().with_delays(millis(5), millis(50));
        let replay = match self.replay_rate {
            Some(rate) => replay.with_rate(rate),
            None => replay,
        };
        let dir = if self.shared {
            SpoolDir::shared(&self.dir).with_adoption_interval(millis(20))
        } else {
            SpoolDir::alone(&self.dir)
        };
        Seawall::builder(&self.url, dir)
            .unwrap()
            .connection(|options| {
                options
                    .with_response_timeout(millis(self.response_timeout_ms))
                    .with_reconnect_delay(millis(5), millis(50))
            })
            .breaker(BreakerOptions::default().with_open_time(millis(50)))
            .spool(|options| {
                options
                    .with_generation_bytes(self.generation_bytes)
                    .with_spool_after(millis(self.spool_after_ms))
                    .with_max_batch(self.max_batch, 1 << 20)
                    .with_replay(replay)
            })
    }

    pub(crate) fn job(&self, number: u64) -> Job {
        self.padded(number, self.padding)
    }

    /// A job with so many bytes behind its number.
    pub(crate) fn padded(&self, number: u64, bytes: usize) -> Job {
        let payload = format!("{} {number} {}", self.name, "-".repeat(bytes));
        Job::new(&*self.queue, payload)
    }

    async fn carry_out(&self) {
        say("opening");
        let seawall = match self.builder().connect().await {
            Ok(seawall) => seawall,
            Err(error) => return say(&format!("refused {}", chain(&error))),
        };
        say("open");
        let mut waiting = FuturesOrdered::new();
        for number in self.numbers() {
            if waiting.len() >= self.window {
                tell(waiting.next().await);
            }
            let receipt = seawall.enqueue(self.job(number));
            waiting.push_back(async move { (number, receipt.await) });
        }
        while !waiting.is_empty() {
            tell(waiting.next().await);
        }
        match self.end {
            End::Stay => say("done"),
            End::Flush => {
                seawall.flush().await;
                say("flushed");
            }
            End::Unpark => {
                let left = || seawall.health().spool;
                seawall.flush().await;
                while left().records + left().parked > 0 {
                    let count = seawall.spool().unpark(ParkedFilter::all()).await.unwrap();
                    say(&format!("unparked {count}"));
                    tokio::task::yield_now().await;
                }
                say("flushed");
            }
            End::Shutdown(millis) => {
                let left = seawall.shutdown(Duration::from_millis(millis)).await;
                match left {
                    Ok(left) => say(&format!("left {left}")),
                    Err(error) => say(&format!("broken {}", chain(&error))),
                }
                return;
            }
        }
        std::future::pending().await
    }
}

fn tell(answer: Option<(u64, Result<Receipt, Error>)>) {
    match answer {
        Some((number, Ok(receipt))) => say(&format!("{:?} {number}", receipt.place())),
        Some((number, Err(error))) => {
            let landed = error.may_have_landed();
            say(&format!("error {number} {:?} {landed}", error.kind()));
        }
        None => {}
    }
}

fn say(line: &str) {
    println!("{MARK}{line}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The harness writes to standard output too, and not always whole lines.
const MARK: &str = "@ ";
const ORDERS: &str = "SEAWALL_CRASH_ORDERS";

/// Not a test: what an [`App`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app() {
    let Ok(orders) = env::var(ORDERS) else {
        return;
    };
    // Nothing is left running when the test ends, in whatever way.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::abort();
    });
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    orders.carry_out().await;
}

/// A process that carries out [`Orders`]. What it says is written into the books as it is read.
pub(crate) struct App {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    books: Arc<Books>,
    name: String,
    log: PathBuf,
    /// When it has begun to open its spool, and when that was open.
    pub(crate) opening: Option<Instant>,
    pub(crate) open: Option<Instant>,
    /// How many records its shutdown has left.
    pub(crate) left: Option<u64>,
    /// The first thing that it could not do.
    pub(crate) complaint: Option<String>,
}

/// What an application says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Opening,
    Open,
    Refused(String),
    Delivered(u64),
    Spooled(u64),
    Failed {
        number: u64,
        kind: String,
        may_have_landed: bool,
    },
    Done,
    Flushed,
    Unparked(u64),
    Left(u64),
    Broken(String),
}

impl App {
    pub(crate) fn start(orders: &Orders, books: &Arc<Books>) -> Self {
        Self::start_with(&env::current_exe().unwrap(), &[], orders, books)
    }

    /// Starts `program`, which runs the test binary when it is given `arguments` and the rest.
    pub(crate) fn start_with(
        program: &Path,
        arguments: &[&str],
        orders: &Orders,
        books: &Arc<Books>,
    ) -> Self {
        for number in orders.numbers() {
            books.attempt((&orders.name, number));
        }
        let log = orders.dir.with_extension("log");
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--exact", "app::the_app", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap(),
            )
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        Self {
            child,
            lines: BufReader::new(output).lines(),
            books: books.clone(),
            name: orders.name.clone(),
            log,
            opening: None,
            open: None,
            left: None,
            complaint: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Reads on until it has said `count` receipts more.
    pub(crate) async fn receipts(&mut self, count: u64) {
        let mut seen = 0;
        self.until("receipts", |line| {
            seen += u64::from(matches!(line, Line::Delivered(_) | Line::Spooled(_)));
            seen >= count
        })
        .await;
    }

    pub(crate) async fn says(&mut self, wanted: Line) {
        self.until("its word", |line| *line == wanted).await;
    }

    /// Reads on to the first line that is `wanted`.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Line) -> bool,
    ) -> Line {
        let reading = async {
            while let Some(line) = self.next().await {
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        };
        match timeout(PLENTY, reading).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the app ended before {what}: {}", self.stderr()),
            Err(_) => panic!("the app hangs before {what}: {}", self.stderr()),
        }
    }

    /// Reads on for so long.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let reading = async { while self.next().await.is_some() {} };
        let _ = timeout(time, reading).await;
    }

    /// Kills it with SIGKILL, and hears what it said before.
    pub(crate) async fn kill(mut self) {
        self.kill_now().await;
    }

    /// The same, and what it was is still there to be asked.
    pub(crate) async fn kill_now(&mut self) {
        self.child.start_kill().unwrap();
        self.end().await;
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ends(mut self) {
        self.end().await;
    }

    /// Hears all it has to say, and waits until it has ended.
    pub(crate) async fn end(&mut self) {
        let ending = async {
            while self.next().await.is_some() {}
            self.child.wait().await.unwrap();
        };
        if timeout(PLENTY, ending).await.is_err() {
            panic!("the app does not end: {}", self.stderr());
        }
    }

    async fn next(&mut self) -> Option<Line> {
        loop {
            let line = self.lines.next_line().await.unwrap()?;
            let Some((_, said)) = line.split_once(MARK) else {
                continue;
            };
            let line = parse(said);
            match line {
                Line::Opening => self.opening = Some(Instant::now()),
                Line::Open => self.open = Some(Instant::now()),
                Line::Delivered(number) | Line::Spooled(number) => {
                    self.books.acknowledge((&self.name, number));
                }
                Line::Left(left) => self.left = Some(left),
                Line::Refused(_) | Line::Broken(_) | Line::Failed { .. } => {
                    self.complaint.get_or_insert_with(|| said.to_owned());
                }
                Line::Done | Line::Flushed | Line::Unparked(_) => {}
            }
            return Some(line);
        }
    }

    /// What it, and those before it in the same place, wrote there.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A line that a kill has cut short does not come to be read: it has no end.
fn parse(said: &str) -> Line {
    let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
    match word {
        "opening" => Line::Opening,
        "open" => Line::Open,
        "refused" => Line::Refused(rest.to_owned()),
        "Delivered" => Line::Delivered(rest.parse().unwrap()),
        "Spooled" => Line::Spooled(rest.parse().unwrap()),
        "error" => {
            let mut parts = rest.split(' ');
            Line::Failed {
                number: parts.next().unwrap().parse().unwrap(),
                kind: parts.next().unwrap().to_owned(),
                may_have_landed: parts.next().unwrap().parse().unwrap(),
            }
        }
        "done" => Line::Done,
        "flushed" => Line::Flushed,
        "unparked" => Line::Unparked(rest.parse().unwrap()),
        "left" => Line::Left(rest.parse().unwrap()),
        "broken" => Line::Broken(rest.to_owned()),
        _ => panic!("not a word of an app: {said}"),
    }
}

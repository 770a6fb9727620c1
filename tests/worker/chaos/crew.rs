//! A worker in a process of its own, to be hurt: [`Worker`], and what it runs.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::Registry;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use seawall::{
    Job, Seawall,
    breaker::BreakerOptions,
    chaos::wait_until,
    job::Retries,
    spool::{Replay, SpoolDir},
    worker::{Delivery, Failure},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    PLENTY,
    diary::{Diary, Ended, now},
    judge::{Cause, Deed},
};

/// What a job asks of whoever executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) plan: Plan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Plan {
    /// Takes so many milliseconds.
    Takes(u64),
    /// Takes until the worker is told to go on.
    Held,
    /// Fails in its first executions, so many times.
    Fails(u32),
    /// Fails for good.
    Hopeless,
    /// Ends its process.
    Deadly,
}

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) spool: PathBuf,
    pub(super) diary: PathBuf,
    pub(super) queue: String,
    pub(super) concurrency: usize,
    pub(super) lease_ms: u64,
    pub(super) poison_after: u32,
    /// Whether jobs that are held go on at once.
    pub(super) goes: bool,
}

/// Settings that make an outage short work, for a producer as for a worker.
pub(super) async fn connect(url: &str, spool: &Path, registry: &Registry) -> Seawall {
    let millis = Duration::from_millis;
    let builder = Seawall::builder(url, SpoolDir::alone(spool)).unwrap();
    let builder = builder
        .connection(|options| {
            options
                .with_response_timeout(millis(500))
                // What was frozen is found awake long before a lease is over.
                .with_probe(millis(100), millis(500))
                .with_reconnect_delay(millis(5), millis(50))
        })
        .breaker(
            // No longer, since the leases are short.
            BreakerOptions::default()
                .with_open_time(millis(50))
                .with_open_time_cap(millis(50)),
        )
        .spool(|options| {
            let replay = Replay::unpaced().with_delays(millis(5), millis(50));
            options.with_spool_after(millis(50)).with_replay(replay)
        });
    builder.metrics(registry).connect().await.unwrap()
}

pub(super) fn job(queue: &str, task: &Task) -> Job {
    Job::json(queue, task).unwrap().for_worker()
}

impl Orders {
    async fn carry_out(self) {
        let (go, goes) = watch::channel(self.goes);
        let (stop, stopped) = watch::channel(false);
        thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                match &*line {
                    "go" => go.send_replace(true),
                    "stop" => stop.send_replace(true),
                    _ => panic!("not a word for a worker: {line}"),
                };
            }
            // Nothing is left running when the test ends, in whatever way.
            std::process::abort();
        });
        let diary = Diary::open(&self.diary);
        let registry = Registry::new();
        let seawall = connect(&self.url, &self.spool, &registry).await;
        let watching = tokio::spawn(watch_over(registry, diary.clone(), self.lease_ms));
        say("ready");
        let handler = move |task: Task, delivery: Delivery| {
            execute(task, delivery, diary.clone(), goes.clone())
        };
        let mut stopped = stopped;
        let report = seawall
            .worker(self.queue)
            .concurrency(self.concurrency)
            .lease(Duration::from_millis(self.lease_ms))
            .poison_after(self.poison_after)
            .retries(Retries::fixed(Duration::from_millis(20)).with_max(RETRIES))
            .result_ttl(Duration::from_secs(3600))
            .shutdown_on(async move { stopped.wait_for(|stop| *stop).await.map(drop) })
            .run(handler)
            .await
            .unwrap();
        watching.abort();
        let left = seawall.shutdown(Duration::from_secs(10)).await.unwrap();
        say(&format!("stopped {} {left}", report.completions_lost));
    }
}

/// More than any job of a test has deaths and planned failures.
const RETRIES: u32 = 60;

async fn execute(
    task: Task,
    delivery: Delivery,
    diary: Diary,
    mut goes: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let attempt = delivery.attempt();
    let note = diary.begin(task.number, attempt);
    say(&format!("begun {} {attempt}", task.number));
    let failure = match task.plan {
        Plan::Takes(millis) => {
            sleep(Duration::from_millis(millis)).await;
            None
        }
        Plan::Held => {
            goes.wait_for(|go| *go).await.unwrap();
            None
        }
        Plan::Fails(times) => {
            // Deaths count as attempts too, so this looks at failures only.
            let failed = delivery.error().map_or(0, |error| {
                let failures = error.history().iter();
                failures.filter(|one| one.error_type() == PLANNED).count()
            });
            (failed < times as usize).then(|| Failure::new(PLANNED, "it is planned"))
        }
        Plan::Hopeless => Some(Failure::new(PLANNED, "it is planned").permanently()),
        Plan::Deadly => std::process::abort(),
    };
    match failure {
        None => {
            note.end(Ended::Succeeded);
            say(&format!("succeeded {} {attempt}", task.number));
            Ok(())
        }
        Some(failure) => {
            note.end(Ended::Failed);
            Err(failure)
        }
    }
}

const PLANNED: &str = "planned";

/// Says how many ends of executions the disk has got, whenever that changes, and notes when the process was not
/// given the processor for so long that its lease may have run out.
async fn watch_over(registry: Registry, diary: Diary, lease_ms: u64) {
    let (mut said, mut last) = (0.0, now());
    loop {
        sleep(Duration::from_millis(5)).await;
        let at = now();
        if at - last > lease_ms * 1000 / 3 {
            diary.stalled(last, at);
        }
        last = at;
        let kept = kept(&registry);
        if kept > said {
            said = kept;
            say(&format!("kept {said}"));
        }
    }
}

fn kept(registry: &Registry) -> f64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "seawall_worker_completions_kept_total");
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    metrics
        .iter()
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

fn say(line: &str) {
    println!("{MARK}{line}");
}

/// The harness writes to standard output too, and not always whole lines.
const MARK: &str = "@ ";
const ORDERS: &str = "SEAWALL_WORKER_ORDERS";

/// Not a test: what a [`Worker`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker() {
    let Ok(orders) = env::var(ORDERS) else {
        return;
    };
    // One that is stopped reads nothing, and is to end with the test as well.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    // What is shown of one that does not do as it is told.
    tracing_subscriber::fmt()
        .with_env_filter("seawall=debug")
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    orders.carry_out().await;
}

/// A process that carries out [`Orders`].
pub(super) struct Worker {
    pub(super) name: String,
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
    hearing: tokio::task::JoinHandle<()>,
    deeds: Deeds,
    log: PathBuf,
}

/// All that was done to workers and to Redis.
pub(super) type Deeds = Arc<Mutex<Vec<Deed>>>;

impl Worker {
    pub(super) fn start(orders: &Orders, deeds: &Deeds) -> Self {
        let log = orders.diary.with_extension("log");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "chaos::crew::the_worker", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let output = child.stdout.take().unwrap();
        Self {
            name: orders.name.clone(),
            stdin: child.stdin.take().unwrap(),
            hearing: tokio::spawn(hear(output, said.clone())),
            child,
            said,
            deeds: deeds.clone(),
            log,
        }
    }

    /// Waits until it has said so.
    pub(super) async fn says(&self, wanted: &str) {
        self.until(wanted, |said| said.iter().any(|line| line == wanted))
            .await;
    }

    /// Waits until it has said this word of `count` different jobs.
    pub(super) async fn says_of(&self, word: &str, count: usize) {
        self.until(word, |said| {
            let of = said
                .iter()
                .filter_map(|line| line.strip_prefix(word)?.split(' ').nth(1));
            of.collect::<std::collections::BTreeSet<_>>().len() >= count
        })
        .await;
    }

    /// How often it has said this word by now.
    pub(super) fn count(&self, word: &str) -> usize {
        let said = self.said.lock();
        said.iter().filter(|line| line.starts_with(word)).count()
    }

    async fn until(&self, what: &str, met: impl Fn(&[String]) -> bool) {
        let waiting = wait_until(what, PLENTY, || async { met(&self.said.lock()) });
        if waiting.await.is_err() {
            let said = self.said.lock().join("\n");
            panic!(
                "{} has not said: {what}\n{said}\n{}",
                self.name,
                self.stderr()
            );
        }
    }

    /// Lets the jobs go on that are held.
    pub(super) async fn go(&mut self) {
        self.stdin.write_all(b"go\n").await.unwrap();
    }

    /// With SIGKILL.
    pub(super) async fn kill(&mut self) {
        let from = now();
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
        self.did(Cause::Killed, from, now());
    }

    /// Whether it has died by now.
    pub(super) fn has_died(&mut self) -> bool {
        let died = self.child.try_wait().unwrap().is_some();
        if died {
            self.did(Cause::Killed, now(), now());
        }
        died
    }

    /// With SIGSTOP. Returns since when.
    pub(super) fn freeze(&self) -> u64 {
        let from = now();
        kill_process(self.pid(), Signal::STOP).unwrap();
        from
    }

    pub(super) fn thaw(&self, since: u64) {
        kill_process(self.pid(), Signal::CONT).unwrap();
        self.did(Cause::LeaseTaken, since, now());
    }

    /// Notes what was done to it.
    pub(super) fn did(&self, cause: Cause, from: u64, to: u64) {
        let worker = Some(self.name.clone());
        self.deeds.lock().push(Deed {
            cause,
            worker,
            from,
            to,
        });
    }

    /// Shuts it down, and sees it leave nothing behind.
    pub(super) async fn stop(mut self) {
        self.stdin.write_all(b"stop\n").await.unwrap();
        self.says("stopped 0 0").await;
        let ended = timeout(PLENTY, self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{}", self.stderr());
    }

    pub(super) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        let pid = self.child.id().unwrap();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

async fn hear(output: ChildStdout, said: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, line)) = line.split_once(MARK) {
            said.lock().push(line.to_owned());
        }
    }
}

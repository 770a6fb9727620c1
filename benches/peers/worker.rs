//! Jobs a second from enqueue to acknowledged: the worker beside apalis-redis, with handlers that only count.
//!
//! All in one run against one server, in turns, so that what else the machine does meets both. A job is a text of
//! 256 bytes in JSON, which both decode for the handler, and both hand in 100 jobs a call. Both are given at most
//! [`WAITING`] jobs ahead of the worker: apalis-redis 1.0.0 fails for good when a fetch finds some 8,000 jobs
//! that it has not seen (its script: "too many results to unpack"). How it is set up: `apalis.rs`.
//!
//! The processor time of Redis and of the program, in cores, says what the limit is. `make bench`, or `cargo
//! bench` in this directory.

#[path = "../report/mod.rs"]
mod report;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use seawall::chaos::RedisServer;
use seawall_peers::Queue;
use tokio::{
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("worker");
    let rounds = report.sized(5, 1);
    let jobs = report.sized(200_000, 10_000);
    let redis = RedisServer::start().await.expect("redis-server starts");
    report.condition("redis", &report::redis_version(&redis).await);
    report.condition("persistence", &"none");
    report.condition("rounds", &format!("{rounds} x {jobs} jobs"));
    report.condition("payload", &format!("{PAYLOAD} B"));
    report.condition(
        "producers",
        &format!("{PRODUCERS}, {AT_A_TIME} jobs a call"),
    );
    report.condition("runtime", &"multi-threaded, a worker a core");

    let apalis = Contender::Apalis(redis.url());
    for concurrency in [1, 16, 256] {
        let mut measured: [Measured; 1] = Default::default();
        for round in 0..rounds {
            for (contender, measured) in [&apalis].into_iter().zip(&mut measured) {
                let run = Run::new(&redis, round, concurrency, jobs);
                run.enqueue_and_work(contender, WAITING, measured).await;
            }
        }
        show(&mut report, concurrency, &mut measured);
    }
    report.finish();
}

const PAYLOAD: usize = 256;
/// How many tasks hand in jobs, and how many jobs at a time.
const PRODUCERS: u64 = 16;
const AT_A_TIME: u64 = 100;
/// How many jobs may wait at a time.
const WAITING: u64 = 4_000;
/// Only ends a run that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

enum Contender {
    Apalis(String),
}

/// Of one contender, a value a round.
#[derive(Default)]
struct Measured {
    done: Rounds,
    redis_cores: Rounds,
    own_cores: Rounds,
}

/// One queue of one contender's, and its jobs.
struct Run<'a> {
    redis: &'a RedisServer,
    queue: String,
    concurrency: usize,
    jobs: u64,
    handled: Arc<AtomicU64>,
    room: Arc<Semaphore>,
}

impl<'a> Run<'a> {
    fn new(redis: &'a RedisServer, round: usize, concurrency: usize, jobs: u64) -> Self {
        Self {
            redis,
            queue: format!("queue-{round}"),
            concurrency,
            jobs,
            handled: Arc::default(),
            room: Arc::new(Semaphore::new(0)),
        }
    }

    /// The worker is there before the first job.
    async fn enqueue_and_work(&self, contender: &Contender, room: u64, measured: &mut Measured) {
        self.room.add_permits(room as usize);
        let cores = Cores::now(self.redis).await;
        let began = Instant::now();
        let (stop, worker) = self.start_worker(contender).await;
        self.enqueue(contender).await;
        self.all_acknowledged(contender).await;
        measured.push(self.jobs, began, cores, Cores::now(self.redis).await);

        drop(stop);
        worker.await.expect("the worker ends");
        let flush = redis::cmd("FLUSHALL").arg("SYNC").to_owned();
        let _: () = self.redis.command(&flush).await.expect("Redis answers");
    }

    async fn enqueue(&self, contender: &Contender) {
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            let share = self.jobs / PRODUCERS + u64::from(producer < self.jobs % PRODUCERS);
            let batches = batches(share);
            let room = Arc::clone(&self.room);
            match contender {
                Contender::Apalis(url) => {
                    let mut queue = Queue::connect(url, &self.queue).await;
                    producers.spawn(async move {
                        for count in batches {
                            take(&room, count).await;
                            queue.push((0..count).map(|_| payload()).collect()).await;
                        }
                    });
                }
            }
        }
        producers.join_all().await;
    }

    /// Starts the worker, which goes on until it is stopped.
    async fn start_worker(&self, contender: &Contender) -> (oneshot::Sender<()>, JoinHandle<()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let concurrency = self.concurrency;
        let (counter, room) = (Arc::clone(&self.handled), Arc::clone(&self.room));
        let handled = move || {
            if (counter.fetch_add(1, Relaxed) + 1) % AT_A_TIME == 0 {
                room.add_permits(AT_A_TIME as usize);
            }
        };
        let worker = match contender {
            Contender::Apalis(url) => {
                let queue = Queue::connect(url, &self.queue).await;
                tokio::spawn(
                    async move { queue.work("worker", concurrency, handled, stopped).await },
                )
            }
        };
        (stop, worker)
    }

    /// Waits until Redis knows that all jobs are done.
    async fn all_acknowledged(&self, contender: &Contender) {
        let all = async {
            while self.acknowledged(contender).await < self.jobs {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("the worker goes on");
    }

    async fn acknowledged(&self, contender: &Contender) -> u64 {
        match contender {
            Contender::Apalis(_) => {
                let done = format!("{}:done", self.queue);
                let done = redis::cmd("SCARD").arg(done).to_owned();
                self.redis.command(&done).await.expect("Redis answers")
            }
        }
    }
}

impl Measured {
    fn push(&mut self, jobs: u64, began: Instant, before: Cores, after: Cores) {
        let seconds = began.elapsed().as_secs_f64();
        self.done.push(jobs as f64 / seconds);
        self.redis_cores.push((after.redis - before.redis) / seconds);
        self.own_cores.push((after.own - before.own) / seconds);
    }
}

fn batches(mut left: u64) -> impl Iterator<Item = u64> + Send {
    std::iter::from_fn(move || {
        let count = left.min(AT_A_TIME);
        left -= count;
        (count > 0).then_some(count)
    })
}

async fn take(room: &Semaphore, count: u64) {
    let room = room.acquire_many(count as u32).await;
    room.expect("it is never closed").forget();
}

/// 256 bytes in JSON.
fn payload() -> String {
    "x".repeat(PAYLOAD - 2)
}

/// Seconds of processor time so far, of Redis and of this program.
struct Cores {
    redis: f64,
    own: f64,
}

impl Cores {
    async fn now(redis: &RedisServer) -> Self {
        let info: String = redis
            .command(redis::cmd("INFO").arg("cpu"))
            .await
            .expect("Redis answers");
        let of = |name: &str| -> f64 {
            let value = info.lines().find_map(|line| line.strip_prefix(name));
            value
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(0.0)
        };
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        let own = tasks.filter_map(|task| {
            let line = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse::<f64>().ok()
        });
        Self {
            redis: of("used_cpu_user:") + of("used_cpu_sys:"),
            own: own.sum::<f64>() / 1e9,
        }
    }
}

fn show(report: &mut Report, concurrency: usize, measured: &mut [Measured; 1]) {
    let [apalis] = measured;
    let what = format!("enqueue and work, concurrency {concurrency}");
    report.row(Row::new(what, Unit::PerSecond, apalis.done.median()));
    report.row(Row::new(
        "  cores of Redis",
        Unit::Count,
        apalis.redis_cores.median(),
    ));
    report.row(Row::new(
        "  cores of the program",
        Unit::Count,
        apalis.own_cores.median(),
    ));
}

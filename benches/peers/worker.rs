//! Jobs a second from enqueue to acknowledged: the worker beside apalis-redis, with handlers that only count.
//!
//! All in one run against one server, in turns, so that what else the machine does meets both. A job is a text of
//! 256 bytes in JSON, which both decode for the handler, and both hand in 100 jobs a call and fetch up to
//! [`BATCH`] at a time. Both are given at most
//! [`WAITING`] jobs ahead of the worker: apalis-redis 1.0.0 fails for good when a fetch finds some 8,000 jobs
//! that it has not seen (its script: "too many results to unpack"). How it is set up: `apalis.rs`.
//!
//! The processor time of Redis and of the program, in cores, says what the limit is. `make bench` runs it
//! last.

#[path = "../report/mod.rs"]
mod report;

use std::{
    fs,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use seawall::{
    Job, Seawall,
    chaos::RedisServer,
    worker::{Delivery, Failure},
};
use seawall_peers::{BATCH, Queue};
use tokio::{
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("worker");
    let rounds = report.sized(3, 1);
    let jobs = report.sized(100_000, 10_000);
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

    let spool = report::scratch();
    let seawall = Contender::Seawall(seawall(&redis, &spool).await);
    let apalis = Contender::Apalis(redis.url());
    for concurrency in [1, 16, 256] {
        let mut measured: [Measured; 2] = Default::default();
        for _ in 0..rounds {
            for (contender, measured) in [&seawall, &apalis].into_iter().zip(&mut measured) {
                let run = Run::new(&redis, concurrency, jobs);
                run.enqueue_and_work(contender, measured).await;
            }
        }
        show_both(&mut report, concurrency, measured);
    }
    for concurrency in [1, 16, 256] {
        let mut measured = Measured::default();
        for _ in 0..rounds {
            let run = Run::new(&redis, concurrency, jobs);
            run.enqueue_then_work(&seawall, &mut measured).await;
        }
        show_ours(&mut report, concurrency, measured);
    }
    report.finish();
}

const PAYLOAD: usize = 256;
/// How many tasks hand in jobs, and how many jobs at a time.
const PRODUCERS: u64 = 16;
const AT_A_TIME: u64 = 100;
/// How many jobs may wait at a time.
const WAITING: usize = 4_000;
/// How many there have been.
static QUEUES: AtomicU64 = AtomicU64::new(0);
/// Only ends a run that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

enum Contender {
    Seawall(Seawall),
    Apalis(String),
}

/// Of one contender, a value a round.
#[derive(Default)]
struct Measured {
    rate: Rounds,
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
    fn new(redis: &'a RedisServer, concurrency: usize, jobs: u64) -> Self {
        Self {
            redis,
            // A new one each time: what the last run has left is flushed, and a lane of its producers would repair that.
            queue: format!("queue-{}", QUEUES.fetch_add(1, Relaxed)),
            concurrency,
            jobs,
            handled: Arc::default(),
            room: Arc::new(Semaphore::new(0)),
        }
    }

    /// The worker is there before the first job, and never has more than [`WAITING`] before it.
    async fn enqueue_and_work(&self, contender: &Contender, measured: &mut Measured) {
        self.room.add_permits(WAITING);
        let meter = Meter::start(self.redis).await;
        let worker = self.start_worker(contender).await;
        self.enqueue(contender).await;
        self.all_acknowledged(contender).await;
        measured.push(self.jobs, meter.stop(self.redis).await);
        self.clear(worker).await;
    }

    /// The worker comes when all jobs are in the queue.
    async fn enqueue_then_work(&self, contender: &Contender, measured: &mut Measured) {
        self.room.add_permits(self.jobs as usize);
        self.enqueue(contender).await;
        let meter = Meter::start(self.redis).await;
        let worker = self.start_worker(contender).await;
        self.all_acknowledged(contender).await;
        measured.push(self.jobs, meter.stop(self.redis).await);
        self.clear(worker).await;
    }

    async fn clear(&self, (stop, worker): (oneshot::Sender<()>, JoinHandle<()>)) {
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
                Contender::Seawall(seawall) => {
                    let (seawall, queue) = (seawall.clone(), self.queue.clone());
                    producers.spawn(async move {
                        for count in batches {
                            take(&room, count).await;
                            let jobs = (0..count).map(|_| job(&queue));
                            let receipts = seawall.enqueue_all(jobs).await;
                            assert!(receipts.iter().all(Result::is_ok), "all are taken");
                        }
                    });
                }
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
            Contender::Seawall(seawall) => {
                let worker = seawall.worker(&*self.queue).concurrency(concurrency);
                let worker = worker.prefetch(BATCH).shutdown_on(stopped);
                tokio::spawn(async move {
                    let handler = move |_: String, _: Delivery| {
                        handled();
                        ready(Ok::<_, Failure>(()))
                    };
                    worker.run(handler).await.expect("the settings are right");
                })
            }
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
        let ask = match contender {
            Contender::Seawall(_) => {
                let counters = format!("seawall:{{{}}}:counters", self.queue);
                redis::cmd("HGET").arg(counters).arg("succeeded").to_owned()
            }
            Contender::Apalis(_) => {
                let done = format!("{}:done", self.queue);
                redis::cmd("SCARD").arg(done).to_owned()
            }
        };
        let done: Option<u64> = self.redis.command(&ask).await.expect("Redis answers");
        done.unwrap_or(0)
    }
}

impl Measured {
    fn push(&mut self, jobs: u64, took: Took) {
        self.rate.push(jobs as f64 / took.seconds);
        self.redis_cores.push(took.redis_cores);
        self.own_cores.push(took.own_cores);
    }
}

async fn seawall(redis: &RedisServer, spool: &tempfile::TempDir) -> Seawall {
    let seawall = Seawall::builder(&redis.url(), spool)
        .expect("the settings are right")
        .connect()
        .await
        .expect("the spool opens");
    let connected = seawall.connection().wait_ready(PATIENCE).await;
    connected.expect("Redis answers");
    seawall
}

fn job(queue: &str) -> Job {
    let job = Job::json(queue, &payload()).expect("a text can be written as JSON");
    job.for_worker()
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

/// The clock on the wall, and those of the processors.
struct Meter {
    began: Instant,
    redis: f64,
    own: f64,
}

/// How long something has taken, and how many cores it has kept busy meanwhile.
struct Took {
    seconds: f64,
    redis_cores: f64,
    own_cores: f64,
}

impl Meter {
    async fn start(redis: &RedisServer) -> Self {
        let (of_redis, own) = (seconds_of_redis(redis).await, own_seconds());
        Self {
            began: Instant::now(),
            redis: of_redis,
            own,
        }
    }

    async fn stop(self, redis: &RedisServer) -> Took {
        let seconds = self.began.elapsed().as_secs_f64();
        Took {
            seconds,
            redis_cores: (seconds_of_redis(redis).await - self.redis) / seconds,
            own_cores: (own_seconds() - self.own) / seconds,
        }
    }
}

/// Of processor time, since it has been there.
async fn seconds_of_redis(redis: &RedisServer) -> f64 {
    let info = redis::cmd("INFO").arg("cpu").to_owned();
    let info: String = redis.command(&info).await.expect("Redis answers");
    let seconds = ["used_cpu_user:", "used_cpu_sys:"].map(|name| -> f64 {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    });
    seconds.iter().sum()
}

/// Of this process's threads that there are now.
fn own_seconds() -> f64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let line = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn show_both(report: &mut Report, concurrency: usize, measured: [Measured; 2]) {
    let [mut ours, mut theirs] = measured;
    let what = format!("enqueue and work, concurrency {concurrency}");
    let row = Row::new(what, Unit::PerSecond, ours.rate.median())
        .against(APALIS, theirs.rate.median())
        .goal(Goal::RatioAtLeast(5.0));
    report.row(row);
    for (whose, ours, theirs) in [
        ("  busy cores, Redis", ours.redis_cores, theirs.redis_cores),
        ("  busy cores, program", ours.own_cores, theirs.own_cores),
    ] {
        let row = Row::new(whose, Unit::Count, share(ours)).against(APALIS, share(theirs));
        report.row(row);
    }
}

fn show_ours(report: &mut Report, concurrency: usize, mut measured: Measured) {
    let what = format!("work off a full queue, concurrency {concurrency}");
    let row = Row::new(what, Unit::PerSecond, measured.rate.median());
    report.row(row.goal(Goal::AtLeast(100_000.0)));
    for (whose, cores) in [
        ("  busy cores, Redis", measured.redis_cores),
        ("  busy cores, program", measured.own_cores),
    ] {
        report.row(Row::new(whose, Unit::Count, share(cores)));
    }
}

const APALIS: &str = "apalis-redis";

/// To two digits.
fn share(mut cores: Rounds) -> f64 {
    (cores.median() * 100.0).round() / 100.0
}

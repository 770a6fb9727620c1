//! Jobs a second into one list: `Seawall::enqueue`, exactly-once included, beside the redis crate's
//! shared multiplexed connection and a deadpool-redis pool with one checkout a call.
//!
//! All three in one run against one server, in turns, so that what else the machine does meets all of
//! them. `cargo bench --features chaos --bench enqueue`

mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use seawall::{Job, Seawall, chaos::RedisServer};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("enqueue");
    let rounds = report.sized(9, 1);
    let round = report.sized(Duration::from_millis(500), Duration::from_millis(50));
    let redis = RedisServer::start().await.expect("redis-server starts");
    report.condition("redis", &report::redis_version(&redis).await);
    report.condition("persistence", &"none");
    report.condition("rounds", &format!("{rounds} x {round:?}"));
    report.condition("payload", &format!("{PAYLOAD} B"));
    report.condition("runtime", &"multi-threaded, a worker a core");

    let spool = report::scratch();
    let contenders = [
        Contender::Seawall(seawall(&redis, &spool).await),
        Contender::Multiplexed(redis.connection().await.expect("Redis answers")),
        Contender::Deadpool(pool(&redis)),
    ];
    for (tasks, goal) in [(1, 0.8), (16, 1.0), (64, 1.2), (512, 3.0)] {
        let mut rates: [Rounds; 3] = Default::default();
        for _ in 0..rounds {
            for (contender, rates) in contenders.iter().zip(&mut rates) {
                rates.push(jobs_a_second(contender, &redis, tasks, round).await);
            }
        }
        let [ours, multiplexed, deadpool] = rates.each_mut().map(Rounds::median);
        let what = format!("{tasks} task{}", if tasks == 1 { "" } else { "s" });
        report.row(
            Row::new(&what, Unit::PerSecond, ours)
                .against("redis, multiplexed", multiplexed)
                .goal(Goal::RatioAtLeast(goal)),
        );
        report.row(Row::new(what, Unit::PerSecond, ours).against("deadpool-redis", deadpool));
    }
    report.finish();
}

const PAYLOAD: usize = 256;

#[derive(Clone)]
enum Contender {
    Seawall(Seawall),
    Multiplexed(MultiplexedConnection),
    Deadpool(deadpool_redis::Pool),
}

impl Contender {
    /// The list of its own that it pushes to.
    const fn list(&self) -> &'static str {
        match self {
            Self::Seawall(_) => "seawall",
            Self::Multiplexed(_) => "multiplexed",
            Self::Deadpool(_) => "deadpool",
        }
    }

    /// One task's jobs until told to stop: made in the loop, as a user would. Says how many.
    async fn push_until(self, stop: Arc<AtomicBool>) -> u64 {
        let list = self.list();
        let payload = || vec![b'x'; PAYLOAD];
        let mut jobs = 0;
        match self {
            Self::Seawall(seawall) => {
                while !stop.load(Relaxed) {
                    let receipt = seawall.enqueue(Job::new(list, payload())).await;
                    assert!(receipt.expect("it is taken").is_delivered());
                    jobs += 1;
                }
            }
            Self::Multiplexed(mut connection) => {
                while !stop.load(Relaxed) {
                    let _: u64 = connection
                        .lpush(list, payload())
                        .await
                        .expect("it is taken");
                    jobs += 1;
                }
            }
            Self::Deadpool(pool) => {
                while !stop.load(Relaxed) {
                    let mut connection = pool.get().await.expect("Redis answers");
                    let _: u64 = connection
                        .lpush(list, payload())
                        .await
                        .expect("it is taken");
                    jobs += 1;
                }
            }
        }
        jobs
    }
}

async fn jobs_a_second(
    contender: &Contender,
    redis: &RedisServer,
    tasks: usize,
    round: Duration,
) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut pushing = JoinSet::new();
    for _ in 0..tasks {
        pushing.spawn(contender.clone().push_until(Arc::clone(&stop)));
    }
    sleep(round).await;
    stop.store(true, Relaxed);
    let jobs: u64 = pushing.join_all().await.into_iter().sum();
    let seconds = began.elapsed().as_secs_f64();

    let list = contender.list();
    let arrived: u64 = redis
        .command(redis::cmd("LLEN").arg(list))
        .await
        .expect("Redis answers");
    assert_eq!(arrived, jobs, "jobs in the list {list}");
    let _: u64 = redis
        .command(redis::cmd("DEL").arg(list))
        .await
        .expect("Redis answers");
    jobs as f64 / seconds
}

async fn seawall(redis: &RedisServer, spool: &tempfile::TempDir) -> Seawall {
    let seawall = Seawall::builder(&redis.url(), spool)
        .expect("the settings are right")
        .connect()
        .await
        .expect("the spool opens");
    let connected = seawall
        .connection()
        .wait_ready(Duration::from_secs(10))
        .await;
    connected.expect("Redis answers");
    seawall
}

fn pool(redis: &RedisServer) -> deadpool_redis::Pool {
    deadpool_redis::Config::from_url(redis.url())
        .create_pool(Some(deadpool_redis::Runtime::Tokio1))
        .expect("the settings are right")
}

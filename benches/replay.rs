//! How fast what waits on disk gets into Redis, beside `redis-cli --pipe` of the same pushes into the
//! same server: the fastest loader there is, which numbers, checks and removes nothing.
//!
//! `cargo bench --features chaos --bench replay`

mod report;

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use seawall::{Job, Seawall, chaos::RedisServer, spool::Replay};
use tokio::{process::Command, time::Instant};

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("replay");
    let rounds = report.sized(7, 1);
    let jobs = report.sized(200_000, 5_000);
    let redis = RedisServer::start().await.expect("redis-server starts");
    report.condition("redis", &report::redis_version(&redis).await);
    report.condition("persistence", &"none");
    report.condition("rounds", &rounds);
    report.condition("jobs", &jobs);
    report.condition("payload", &format!("{PAYLOAD} B"));

    let scratch = report::scratch();
    let commands = write_commands(scratch.path(), jobs);
    let (mut unpaced, mut paced, mut pipe) = <(Rounds, Rounds, Rounds)>::default();
    for _ in 0..rounds {
        unpaced.push(replay(&redis, Replay::unpaced(), jobs).await);
        pipe.push(redis_cli_pipe(&redis, &commands, jobs).await);
    }
    for _ in 0..report.sized(3, 1) {
        paced.push(replay(&redis, Replay::default(), jobs).await);
    }
    let pipe = pipe.median();
    report.row(
        Row::new("replay, unpaced", Unit::PerSecond, unpaced.median())
            .against("redis-cli --pipe", pipe)
            .goal(Goal::RatioAtLeast(0.8)),
    );
    report.row(
        Row::new(
            "replay, default slow start",
            Unit::PerSecond,
            paced.median(),
        )
        .against("redis-cli --pipe", pipe),
    );
    report.finish();
}

const PAYLOAD: usize = 256;
const LIST: &str = "emails";

/// Jobs a second from the moment the spool is open, connecting included, until the last one is in
/// Redis and off the disk.
async fn replay(redis: &RedisServer, replay: Replay, jobs: usize) -> f64 {
    let spool = report::scratch();
    let away = open("redis://127.0.0.1:1", spool.path(), replay).await;
    for _ in 0..jobs / 1_000 {
        let receipts = away
            .enqueue_all((0..1_000).map(|_| Job::new(LIST, vec![b'x'; PAYLOAD])))
            .await;
        assert!(
            receipts
                .into_iter()
                .all(|receipt| receipt.expect("it is taken").is_spooled())
        );
    }
    let left = away
        .shutdown(Duration::ZERO)
        .await
        .expect("the disk answers");
    assert_eq!(left, jobs as u64, "jobs on disk");
    drop(away);

    let seawall = open(&redis.url(), spool.path(), replay).await;
    let began = Instant::now();
    seawall.flush().await;
    let seconds = began.elapsed().as_secs_f64();
    arrived(redis, jobs).await;
    seawall
        .shutdown(Duration::from_secs(1))
        .await
        .expect("the disk answers");
    jobs as f64 / seconds
}

async fn open(url: &str, spool: &Path, replay: Replay) -> Seawall {
    Seawall::builder(url, spool)
        .expect("the settings are right")
        .spool(|options| options.with_replay(replay))
        .connect()
        .await
        .expect("the spool opens")
}

async fn redis_cli_pipe(redis: &RedisServer, commands: &Path, jobs: usize) -> f64 {
    let began = Instant::now();
    let status = Command::new("redis-cli")
        .args(["-p", &redis.port().to_string(), "--pipe"])
        .stdin(File::open(commands).expect("it has been written"))
        .stdout(Stdio::null())
        .status()
        .await
        .expect("redis-cli comes with redis-server");
    let seconds = began.elapsed().as_secs_f64();
    assert!(status.success());
    arrived(redis, jobs).await;
    jobs as f64 / seconds
}

/// The pushes as they go over the wire.
fn write_commands(dir: &Path, jobs: usize) -> PathBuf {
    let path = dir.join("commands");
    let mut file = BufWriter::new(File::create(&path).expect("target/ can be written"));
    let payload = vec![b'x'; PAYLOAD];
    for _ in 0..jobs {
        let push = redis::cmd("RPUSH")
            .arg(LIST)
            .arg(&payload)
            .get_packed_command();
        file.write_all(&push).expect("target/ can be written");
    }
    file.flush().expect("target/ can be written");
    path
}

async fn arrived(redis: &RedisServer, jobs: usize) {
    let length: usize = redis
        .command(redis::cmd("LLEN").arg(LIST))
        .await
        .expect("Redis answers");
    assert_eq!(length, jobs, "jobs in the list");
    let _: u64 = redis
        .command(redis::cmd("DEL").arg(LIST))
        .await
        .expect("Redis answers");
}

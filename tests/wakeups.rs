//! No record sits in a queue with nobody woken: tiny bursts and pauses from many tasks and from threads
//! outside of any runtime, and each has its receipt. Then all is in Redis, once, and the counters are at 0.
//!
//! `STORM=1000` for a longer storm: so many rounds for each who brings records.
#![cfg(feature = "chaos")]

use std::time::Duration;

use rand::Rng;
use seawall::{
    Job, Seawall,
    chaos::{Fault, FaultProxy, RedisServer},
    spool::{Ack, Durability},
};
use tokio::time::Instant;

fn rounds() -> u64 {
    let rounds = std::env::var("STORM").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

async fn storm(ack: Ack, fault: Option<Fault>, spool_after: Duration, name: &str) {
    let redis = RedisServer::builder()
        .durable()
        .start()
        .await
        .expect("it works");
    let proxy = FaultProxy::start(redis.addr()).await.expect("it works");
    let dir = tempfile::tempdir().expect("it works");
    let seawall = Seawall::builder(&proxy.url(), dir.path())
        .expect("it works")
        .spool(|s| {
            s.with_ack(ack)
                .with_durability(Durability::ProcessCrash)
                .with_spool_after(spool_after)
                .with_disk_timeout(Duration::from_secs(25))
        })
        .connect()
        .await
        .expect("it works");
    let connected = seawall.connection().wait_ready(Duration::from_secs(20));
    connected.await.expect("it works");
    if let Some(fault) = fault {
        proxy.set(fault);
    }
    let mut tasks = Vec::new();
    for worker in 0..24_u64 {
        let seawall = seawall.clone();
        tasks.push(tokio::spawn(async move {
            let (mut done, mut worst) = (0u64, Duration::ZERO);
            for _ in 0..rounds() {
                let burst = rand::rng().random_range(1..=3u64);
                let queue = format!("q{}", (worker + done) % 8);
                let jobs: Vec<_> = (0..burst)
                    .map(|_| {
                        let begin = Instant::now();
                        (begin, seawall.enqueue(Job::new(&*queue, "x")))
                    })
                    .collect();
                for (begin, job) in jobs {
                    let receipt = tokio::time::timeout(Duration::from_secs(15), job).await;
                    let _ = receipt.expect("a lost wake-up").expect("taken");
                    worst = worst.max(begin.elapsed());
                    done += 1;
                }
                let (dice, micros) = (
                    rand::rng().random_range(0..4),
                    rand::rng().random_range(0..1500),
                );
                match dice {
                    0 => tokio::task::yield_now().await,
                    1 => tokio::time::sleep(Duration::from_micros(micros)).await,
                    _ => {}
                }
            }
            (done, worst)
        }));
    }
    // Outside of any runtime.
    for worker in 0..3_u64 {
        let seawall = seawall.clone();
        tasks.push(tokio::task::spawn_blocking(move || {
            let (mut done, mut worst) = (0u64, Duration::ZERO);
            for _ in 0..rounds() {
                let begin = Instant::now();
                let job = seawall.enqueue(Job::new(format!("q{}", (worker + done) % 9), "x"));
                let receipt = wait_outside(job);
                let _ = receipt.expect("taken");
                worst = worst.max(begin.elapsed());
                done += 1;
            }
            (done, worst)
        }));
    }
    let (mut sum, mut worst) = (0, Duration::ZERO);
    for task in tasks {
        let (done, w) = task.await.expect("it works");
        sum += done;
        worst = worst.max(w);
    }
    proxy.set(Fault::None);
    if tokio::time::timeout(Duration::from_secs(60), seawall.flush())
        .await
        .is_err()
    {
        panic!("{name}: not drained {:?}", seawall.health());
    }
    let stats = seawall.health().spool;
    let mut in_redis = 0u64;
    for q in 0..9 {
        in_redis += redis
            .command::<u64>(redis::cmd("LLEN").arg(format!("q{q}")))
            .await
            .expect("it works");
    }
    assert_eq!((stats.records, stats.bytes, stats.parked), (0, 0, 0));
    assert_eq!(in_redis, sum, "{name}: the slowest in {worst:?}");
}

fn wait_outside<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let begin = Instant::now();
    loop {
        if let std::task::Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return out;
        }
        std::thread::park_timeout(Duration::from_secs(15));
        assert!(begin.elapsed() < Duration::from_secs(14), "a lost wake-up");
    }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_record_has_its_receipt_with_a_fast_redis() {
    storm(Ack::Primary, None, LONG, "direct fast").await;
}
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_record_has_its_receipt_with_a_slow_redis() {
    let slow = Fault::Latency(Duration::from_millis(8));
    storm(Ack::Primary, Some(slow), LONG, "direct slow").await;
}
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_record_has_its_receipt_with_no_redis() {
    storm(Ack::Primary, Some(Fault::Reset), SHORT, "away").await;
}
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_record_has_its_receipt_with_the_disk_first() {
    storm(Ack::Spooled, None, LONG, "spooled fast").await;
}
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_record_has_its_receipt_with_no_redis_and_the_disk_first() {
    storm(Ack::Spooled, Some(Fault::Reset), SHORT, "spooled away").await;
}

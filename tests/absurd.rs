//! No setting is so absurd that anything panics.
#![cfg(feature = "chaos")]

use std::time::{Duration, SystemTime};

use seawall::{
    Job, RedisCall, Seawall,
    chaos::RedisServer,
    error::ErrorKind,
    sequence::Write,
    spool::{Overflow, QueueLimits, Replay, SpoolOptions, WhenOld},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Delivers, spools and replays with these options.
async fn works(change: impl FnOnce(SpoolOptions) -> SpoolOptions) {
    let mut redis = RedisServer::builder()
        .durable()
        .start()
        .await
        .expect("it starts");
    let dir = tempfile::tempdir().expect("a directory");
    let seawall = Seawall::builder(&redis.url(), dir.path())
        .expect("a URL")
        .spool(change)
        .connect()
        .await
        .expect("it opens");
    seawall
        .connection()
        .wait_ready(PATIENCE)
        .await
        .expect("it connects");
    let enqueue = async |value: &'static str| {
        let receipt = tokio::time::timeout(PATIENCE, seawall.enqueue(Job::new("q", value)));
        receipt.await.expect("in time").expect("taken")
    };
    let _ = enqueue("1").await;
    redis.kill().await.expect("it is killed");
    let waits = seawall.enqueue(Job::new("q", "2"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    redis.restart().await.expect("it starts again");
    let _ = tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("in time")
        .expect("taken");
    let _ = enqueue("3").await;
    tokio::time::timeout(PATIENCE, seawall.flush())
        .await
        .expect("it drains");
    let list: Vec<String> = redis
        .command(redis::cmd("LRANGE").arg("q").arg(0).arg(-1))
        .await
        .expect("Redis answers");
    assert_eq!(list, ["1", "2", "3"]);
    assert_eq!(seawall.shutdown(Duration::MAX).await.expect("it closes"), 0);
}

/// By its name on disk it would be taken for one in the next run.
#[tokio::test]
async fn no_queue_can_pass_for_the_tail_of_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let seawall = Seawall::builder("redis://127.0.0.1:1", dir.path());
    let seawall = seawall.expect("a URL").connect().await.expect("it opens");
    let refused = seawall.enqueue(Job::new("\0tail of q", "1")).await;
    let refused = refused.expect_err("it is no name for a queue");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(!refused.to_string().contains('\0'), "{refused}");
}

#[tokio::test]
async fn the_longest_times_are_no_reason_to_panic() {
    works(|options| {
        options
            .with_spool_after(Duration::MAX)
            .with_disk_timeout(Duration::MAX)
            .with_lane_lifetime(Duration::MAX)
            .with_max_age(Duration::MAX, WhenOld::Expire)
            .with_overflow(Overflow::Block {
                timeout: Duration::MAX,
            })
    })
    .await;
}

#[tokio::test]
async fn the_shortest_times_are_no_reason_to_panic() {
    works(|options| {
        options
            .with_spool_after(Duration::ZERO)
            .with_lane_lifetime(Duration::ZERO)
    })
    .await;
}

#[tokio::test]
async fn the_largest_sizes_are_no_reason_to_panic() {
    works(|options| {
        options
            .with_max_batch(usize::MAX, usize::MAX)
            .with_max_memory(usize::MAX)
            .with_max_record_bytes(usize::MAX)
            .with_max_queues(usize::MAX)
            .with_max_records(u64::MAX)
            .with_max_bytes(u64::MAX)
            .with_max_disk_bytes(u64::MAX)
            .with_watermark(f64::INFINITY)
            .with_default_queue_limits(
                QueueLimits::new()
                    .with_max_records(u64::MAX)
                    .with_max_bytes(u64::MAX)
                    .with_max_record_bytes(usize::MAX),
            )
    })
    .await;
}

#[tokio::test]
async fn the_smallest_sizes_are_no_reason_to_panic() {
    works(|options| {
        options
            .with_max_records(0)
            .with_max_bytes(0)
            .with_max_disk_bytes(0)
            .with_max_age(Duration::ZERO, WhenOld::Keep)
            .with_watermark(f64::NAN)
            .with_default_queue_limits(QueueLimits::new().with_max_records(0).with_max_bytes(0))
            .with_overflow(Overflow::Block { timeout: PATIENCE })
    })
    .await;
}

#[tokio::test]
async fn the_slowest_and_the_fastest_replay_are_no_reason_to_panic() {
    let jitter = Replay::new()
        .with_jitter(Duration::MAX)
        .with_slow_start(u32::MAX, Duration::MAX);
    // Not seen to its end: it may well wait that long.
    let redis = RedisServer::builder()
        .durable()
        .start()
        .await
        .expect("it starts");
    for replay in [
        jitter,
        Replay::new().with_delays(Duration::MAX, Duration::MAX),
        Replay::new()
            .with_rate(0)
            .with_slow_start(0, Duration::ZERO),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let seawall = Seawall::builder("redis://127.0.0.1:1", dir.path())
            .expect("a URL")
            .spool(|options| options.with_replay(replay))
            .connect()
            .await
            .expect("it opens");
        for _ in 0..2 {
            let receipt = tokio::time::timeout(PATIENCE, seawall.enqueue(Job::new("q", "x")));
            assert!(receipt.await.expect("in time").expect("taken").is_spooled());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    drop(redis);
}

#[tokio::test]
async fn a_job_or_a_call_may_wait_for_ever() {
    let _ = Job::new("q", "x").delayed(Duration::MAX);
    let _ = Job::new("q", "x").expires_in(Duration::MAX);
    let _ = RedisCall::new("ping", redis::cmd("PING")).with_timeout(Duration::MAX);
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64);
    let write = Write::push_back("q", "x").with_expiry(far);
    let at = seawall::spool::Spoolable::expires_at(&write).expect("it expires");
    assert!(at > SystemTime::now());
}

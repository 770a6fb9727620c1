//! What comes from odd places: another runtime, a panic, a command too long, a lane's key that is gone.
#![cfg(feature = "chaos")]
#![allow(
    clippy::async_yields_async,
    reason = "a receipt may be awaited in another place than it is asked for"
)]

use bytes::Bytes;
use seawall::{
    Error, Job, Seawall,
    chaos::RedisServer,
    sequence::{Command, Write},
    spool::{Applied, Batch, Spool, SpoolLayer, SpoolOptions, Spoolable, Undecodable},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tower::{Layer, Service, service_fn};

#[derive(Clone, Debug)]
struct Touchy {
    queue: &'static str,
    size: usize,
    panics: bool,
}
impl Spoolable for Touchy {
    fn queue(&self) -> &str {
        self.queue
    }
    fn size(&self) -> usize {
        self.size
    }
    fn encode(&self, _: &mut Vec<u8>) {
        assert!(!self.panics, "on purpose");
    }
    fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
        Err(Undecodable::new("never"))
    }
    fn expires_at(&self) -> Option<std::time::SystemTime> {
        assert!(!self.panics, "on purpose");
        None
    }
}

#[tokio::test]
async fn a_queue_that_ends_in_a_panic_gives_its_memory_back() {
    let dir = tempfile::tempdir().expect("it works");
    let spool = Spool::<Touchy>::open(
        SpoolOptions::new(dir.path())
            .with_max_memory(64 << 10)
            .with_disk_timeout(Duration::from_secs(2)),
    )
    .await
    .expect("it works");
    let mut line = SpoolLayer::new(&spool).layer(service_fn(|_: Batch<Touchy>| async {
        Ok::<_, Error>(Applied::all())
    }));
    let record = |queue, panics| Touchy {
        queue,
        size: 40 << 10,
        panics,
    };
    assert!(line.call(record("bad", true)).await.is_err());
    let receipt = line.call(record("good", false)).await;
    assert!(receipt.is_ok(), "{receipt:?}");
}

/// A service that needs a timer of the runtime.
#[test]
fn a_record_may_come_from_another_runtime_even_one_that_has_no_timers() {
    let home = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("it works");
    let dir = tempfile::tempdir().expect("it works");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls;
    let spool = home
        .block_on(Spool::<Touchy>::open(
            SpoolOptions::new(dir.path()).with_spool_after(Duration::from_secs(10)),
        ))
        .expect("it works");
    let mut line = SpoolLayer::new(&spool).layer(service_fn(move |_: Batch<Touchy>| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Error>(Applied::all())
        }
    }));
    let record = || Touchy {
        queue: "q",
        size: 1,
        panics: false,
    };
    // Its task is there.
    assert!(
        home.block_on(line.call(record()))
            .expect("it works")
            .is_delivered()
    );
    let settle = || {
        home.block_on(async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(2)).await
            }
        })
    };
    for _ in 0..10 {
        settle();
        let bare = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("it works");
        let receipt = bare.block_on(line.call(record())).expect("it works");
        assert!(receipt.is_delivered(), "no timers: {receipt:?}");
        settle();
        // One that is not driven any more.
        let still = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("it works");
        let pending = still.block_on(async { line.call(record()) });
        let receipt = home.block_on(pending).expect("it works");
        assert!(receipt.is_delivered(), "not driven: {receipt:?}");
        settle();
        let pending = still.block_on(async { line.call(record()) });
        drop(still);
        let receipt = home.block_on(pending).expect("it works");
        assert!(receipt.is_delivered(), "gone: {receipt:?}");
    }
}

#[tokio::test]
async fn a_command_of_too_many_arguments_is_refused_and_nothing_is_done_twice() {
    let (redis, _dir, seawall) = connected().await;
    let mut long = Command::new("RPUSH").arg("long");
    for _ in 0..9000 {
        long = long.arg("x");
    }
    let small = |n: u64| Write::group("q", vec![Command::new("RPUSH").arg("q").arg(n.to_string())]);
    // Together in a batch: the first opens the way, the others gather.
    let all = [
        small(0),
        small(1),
        small(2),
        Write::group("q", vec![long]),
        small(3),
    ];
    let answers = tokio::time::timeout(
        Duration::from_secs(3),
        seawall.enqueue_all(all.map(Ok::<Write, Error>).map(Fine)),
    )
    .await;
    assert_eq!(
        answers
            .expect("in time")
            .iter()
            .filter(|answer| answer.is_err())
            .count(),
        1
    );
    let _ = tokio::time::timeout(Duration::from_secs(3), seawall.flush()).await;
    let list: Vec<String> = redis
        .command(redis::cmd("LRANGE").arg("q").arg(0).arg(-1))
        .await
        .expect("it works");
    assert_eq!(list, ["0", "1", "2", "3"]);
}
struct Fine(Result<Write, Error>);
impl TryFrom<Fine> for Write {
    type Error = Error;
    fn try_from(f: Fine) -> Result<Self, Error> {
        f.0
    }
}

#[tokio::test]
async fn lanes_survive_a_key_that_is_deleted_or_of_another_type() {
    let (redis, _dir, seawall) = connected().await;
    let go = async |n: u32| {
        let _ = seawall
            .enqueue(Job::new("q", n.to_string()))
            .await
            .expect("it works");
    };
    go(0).await;
    let keys: Vec<String> = redis
        .command(redis::cmd("KEYS").arg("seawall:*"))
        .await
        .expect("it works");
    let ttl: i64 = redis
        .command(redis::cmd("TTL").arg(&keys[0]))
        .await
        .expect("it works");
    assert!(ttl > 600_000, "{ttl}");
    redis
        .command::<()>(redis::cmd("DEL").arg(&keys))
        .await
        .expect("it works");
    go(1).await;
    // It went to the disk: what comes from there makes the key anew.
    tokio::time::timeout(Duration::from_secs(20), seawall.flush())
        .await
        .expect("drained");
    redis
        .command::<()>(redis::cmd("DEL").arg(&keys))
        .await
        .expect("it works");
    redis
        .command::<()>(redis::cmd("RPUSH").arg(&keys).arg(1))
        .await
        .expect("it works");
    go(2).await;
    go(3).await;
    redis
        .command::<()>(redis::cmd("DEL").arg(&keys))
        .await
        .expect("it works");
    tokio::time::timeout(Duration::from_secs(20), seawall.flush())
        .await
        .expect("drained");
    go(4).await;
    // 9,000 in one go, and huge ones.
    let many = (5..9005).map(|n: u32| Job::new("q", n.to_string()));
    assert!(seawall.enqueue_all(many).await.iter().all(Result::is_ok));
    let huge = vec![b'x'; 7 << 20];
    for _ in 0..2 {
        let _ = seawall
            .enqueue(Job::new("huge", huge.clone()))
            .await
            .expect("it works");
    }
    tokio::time::timeout(Duration::from_secs(20), seawall.flush())
        .await
        .expect("drained");
    let list: Vec<String> = redis
        .command(redis::cmd("LRANGE").arg("q").arg(0).arg(-1))
        .await
        .expect("it works");
    assert_eq!(list, (0..9005).map(|n| n.to_string()).collect::<Vec<_>>());
    let stats = seawall.health().spool;
    assert_eq!((stats.records, stats.bytes, stats.parked), (0, 0, 0));
    assert_eq!(
        redis
            .command::<u64>(redis::cmd("LLEN").arg("huge"))
            .await
            .expect("it works"),
        2
    );
}

#[test]
fn a_turn_without_budget_is_not_lost_with_the_end_of_block_on() {
    let home = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("it works");
    let dir = tempfile::tempdir().expect("it works");
    let spool = home
        .block_on(Spool::<Touchy>::open(
            SpoolOptions::new(dir.path()).with_spool_after(Duration::from_secs(10)),
        ))
        .expect("it works");
    let mut line = SpoolLayer::new(&spool).layer(service_fn(move |_: Batch<Touchy>| async move {
        let (tx, rx) = tokio::sync::oneshot::channel();
        tx.send(()).expect("it works");
        rx.await.expect("it works");
        Ok::<_, Error>(Applied::all())
    }));
    let record = || Touchy {
        queue: "q",
        size: 1,
        panics: false,
    };
    assert!(
        home.block_on(line.call(record()))
            .expect("it works")
            .is_delivered()
    );
    home.block_on(async {
        for _ in 0..5 {
            tokio::task::yield_now().await
        }
    });
    let pending = home.block_on(async {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..300 {
            tx.send(n).expect("it works");
        }
        std::future::poll_fn(|cx| {
            for _ in 0..300 {
                let _ = rx.poll_recv(cx);
            }
            std::task::Poll::Ready(())
        })
        .await;
        line.call(record())
    });
    let receipt =
        home.block_on(async { tokio::time::timeout(Duration::from_secs(5), pending).await });
    assert!(receipt.expect("in time").expect("it works").is_delivered());
}

#[tokio::test]
async fn who_asks_for_the_end_again_does_not_cut_the_first_one_short() {
    let dir = tempfile::tempdir().expect("it works");
    let options = SpoolOptions::new(dir.path()).with_spool_after(Duration::from_secs(10));
    let spool = Spool::<Touchy>::open(options).await.expect("it works");
    let answer = Arc::new(tokio::sync::Notify::new());
    let (waits, asked) = (answer.clone(), Arc::new(tokio::sync::Notify::new()));
    let asks = asked.clone();
    let mut line = SpoolLayer::new(&spool).layer(service_fn(move |batch: Batch<Touchy>| {
        let (waits, asks) = (waits.clone(), asks.clone());
        async move {
            if !batch.ends_lane() {
                asks.notify_one();
                waits.notified().await;
            }
            Ok::<_, Error>(Applied::all())
        }
    }));
    let record = tokio::spawn(line.call(Touchy {
        queue: "q",
        size: 1,
        panics: false,
    }));
    asked.notified().await;
    let end = || {
        let spool = spool.clone();
        tokio::spawn(async move { spool.shutdown(Duration::from_secs(20)).await })
    };
    let (first, second) = (end(), end());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished());
    answer.notify_one();
    let receipt = tokio::time::timeout(Duration::from_secs(10), record).await;
    assert!(
        receipt
            .expect("in time")
            .expect("it works")
            .expect("it works")
            .is_delivered()
    );
    assert_eq!(first.await.expect("it works").ok(), Some(0));
    let _ = second.await;
}

/// A Redis, a spool directory, and a seawall that has found its way to it.
async fn connected() -> (RedisServer, tempfile::TempDir, Seawall) {
    let redis = RedisServer::builder()
        .durable()
        .start()
        .await
        .expect("it works");
    let dir = tempfile::tempdir().expect("it works");
    let seawall = Seawall::builder(&redis.url(), dir.path())
        .expect("it works")
        .connect()
        .await
        .expect("it works");
    seawall
        .connection()
        .wait_ready(Duration::from_secs(20))
        .await
        .expect("it works");
    (redis, dir, seawall)
}

//! Redis killed before, during and after batches, by seeds.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use seawall::{
    Job, Seawall,
    chaos::{Books, RedisServer, wait_until},
    spool::Replay,
};

use crate::support::{connected, drained};

/// 200, or what `SEAWALL_SEEDS` says.
fn seeds() -> u64 {
    std::env::var("SEAWALL_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(200)
}

/// One Redis serves many seeds, each with a spool and queues of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_during_and_after_a_batch() {
    let mut redis = RedisServer::builder()
        .durable()
        .start()
        .await
        .expect("redis-server starts");
    for seed in 0..seeds() {
        one(&mut redis, seed).await;
    }
}

async fn one(redis: &mut RedisServer, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a temp directory");
    let seawall = Seawall::builder(&redis.url(), dir.path())
        .expect("the settings are right")
        .spool(|spool| {
            spool
                .with_spool_after(Duration::from_millis(100))
                .with_replay(
                    Replay::unpaced()
                        .with_delays(Duration::from_millis(2), Duration::from_millis(20)),
                )
        })
        .connection(|connection| {
            connection.with_reconnect_delay(Duration::from_millis(2), Duration::from_millis(20))
        })
        .connect()
        .await
        .expect("it opens");
    connected(&seawall).await;

    let books = Books::new();
    let queues = [format!("s{seed}:a"), format!("s{seed}:b")];
    let accepted = AtomicU64::new(0);
    let most = random.random_range(50..400);
    let kill_at = random.random_range(0..most);
    let burst = random.random_range(1..40);
    let producers = queues.iter().map(|queue| {
        let (seawall, books, accepted) = (&seawall, &books, &accepted);
        async move {
            let mut number = 0;
            while number < most {
                let until = (number + burst).min(most);
                let jobs = (number..until).map(|number| {
                    books.attempt((queue, number));
                    Job::new(queue.as_str(), number.to_string())
                });
                let receipts = seawall.enqueue_all(jobs).await;
                for (number, receipt) in (number..).zip(receipts) {
                    if receipt.is_ok() {
                        books.acknowledge((queue, number));
                    }
                    accepted.fetch_add(1, Relaxed);
                }
                number = until;
            }
        }
    });
    let nemesis = async {
        let at = 2 * kill_at;
        let _ = wait_until("the moment to kill", Duration::from_secs(30), || async {
            accepted.load(Relaxed) >= at
        })
        .await;
        redis.kill().await.expect("it is killed");
        redis.restart().await.expect("it starts again");
    };
    futures_util::join!(futures_util::future::join_all(producers), nemesis);
    drained(&seawall).await;

    for queue in &queues {
        let list: Vec<u64> = redis
            .command(redis::cmd("LRANGE").arg(queue).arg(0).arg(-1))
            .await
            .expect("Redis answers");
        for number in list {
            books.deliver((queue, number));
        }
    }
    let balance = books.balance();
    assert!(
        balance.is_clean() && balance.acknowledged == 2 * most,
        "seed {seed}: {balance}"
    );
    seawall
        .shutdown(Duration::from_secs(5))
        .await
        .expect("it ends");
    let _: () = redis
        .command(&redis::cmd("FLUSHALL"))
        .await
        .expect("Redis answers");
}

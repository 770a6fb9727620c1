//! Redis away, frozen, emptied, or only pretending.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    Job, RedisCall, Seawall,
    breaker::{BreakerOptions, State},
    chaos::{Fault, FaultProxy, wait_until},
    job::Destination,
    sequence::Command,
    spool::SpoolOptions,
};

use crate::support::{Bench, connected, counter, drained, numbers};

const PATIENCE: Duration = Duration::from_secs(30);

/// A seawall whose Redis is behind a proxy that can lie.
async fn behind_a_proxy(bench: &Bench) -> (FaultProxy, Seawall, Registry) {
    let proxy = FaultProxy::start(bench.redis.addr())
        .await
        .expect("the proxy starts");
    let registry = Registry::new();
    let seawall = Seawall::builder(&proxy.url(), bench.spool_dir())
        .expect("the settings are right")
        .metrics(&registry)
        .connect()
        .await
        .expect("it opens");
    connected(&seawall).await;
    (proxy, seawall, registry)
}

/// The same jobs, once through the script for pushes and once through the one for groups.
fn job(queue: &'static str, number: u64, group: bool) -> Job {
    let payload = number.to_string();
    if group {
        let push = Command::new("RPUSH").arg(queue).arg(payload.clone());
        let count = Command::new("INCR").arg(format!("{queue}:count"));
        Job::new(queue, payload).with_destination(Destination::commands(vec![push, count]))
    } else {
        Job::new(queue, payload)
    }
}

async fn a_lost_reply(group: bool) {
    let bench = Bench::new().await;
    let (proxy, seawall, registry) = behind_a_proxy(&bench).await;
    let suppressed = || counter(&registry, "seawall_duplicates_suppressed_total", "q");
    let mut next = 0;
    // The reply that is lost may be that of a probe, or of a script that was not loaded yet, so: until
    // it has been that of a batch several times.
    while suppressed() < 5.0 && next < 200 {
        drained(&seawall).await;
        connected(&seawall).await;
        // Carried out, and the connection is gone before the answer is.
        proxy.set(Fault::DropNextReply);
        let jobs = (next..next + 3).map(|number| job("q", number, group));
        for receipt in seawall.enqueue_all(jobs).await {
            let _ = receipt.expect("accepted");
        }
        next += 3;
    }
    proxy.heal();
    drained(&seawall).await;
    assert!(
        suppressed() >= 5.0,
        "hardly a batch lost its reply: the test shows nothing"
    );
    assert_eq!(bench.list("q").await, numbers(0..next));
    if group {
        let count: u64 = bench
            .redis
            .command(redis::cmd("GET").arg("q:count"))
            .await
            .expect("Redis answers");
        assert_eq!(count, next);
    }
}

#[tokio::test]
async fn a_lost_reply_is_not_delivered_twice() {
    a_lost_reply(false).await;
}

#[tokio::test]
async fn a_lost_reply_does_not_run_a_group_twice() {
    a_lost_reply(true).await;
}

#[tokio::test]
async fn a_batch_cut_in_the_middle_is_neither_lost_nor_doubled() {
    let bench = Bench::new().await;
    let (proxy, seawall, _) = behind_a_proxy(&bench).await;
    let mut next = 0;
    for cut in [1u64, 50, 200, 1_000, 3_000] {
        proxy.set(Fault::CutRequestAfter(cut));
        let jobs = (next..next + 100).map(|number| job("q", number, number % 2 == 0));
        for receipt in seawall.enqueue_all(jobs).await {
            let _ = receipt.expect("accepted");
        }
        next += 100;
    }
    proxy.heal();
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..next));
}

#[tokio::test]
async fn a_frozen_redis_holds_no_caller_and_loses_nothing() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    connected(&seawall).await;
    let _ = seawall.enqueue(job("q", 0, false)).await.expect("accepted");
    bench.redis.freeze().await.unwrap();
    for number in 1..50 {
        let receipt = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
        assert!(receipt.is_spooled());
    }
    assert!(seawall.health().spool.records > 0);
    bench.redis.thaw().unwrap();
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..50));
}

#[tokio::test]
async fn a_redis_that_answers_again_is_used_at_once_however_long_the_breaker_meant_to_stay_open() {
    let bench = Bench::new().await;
    let millis = Duration::from_millis;
    let hour = Duration::from_secs(3600);
    let builder = bench.builder().connection(|options| {
        // It outlasts the freeze, so that nothing else tells that Redis is back.
        let options = options.with_probe(millis(50), Duration::from_secs(60));
        options
            .with_response_timeout(millis(50))
            .with_suspect_after(u32::MAX)
    });
    let breaker = BreakerOptions::default();
    let builder = builder.breaker(breaker.with_open_time(hour).with_open_time_cap(hour));
    let seawall = builder.connect().await.expect("it opens");
    connected(&seawall).await;
    let generation = seawall.connection().status().borrow().generation;
    bench.redis.freeze().await.unwrap();
    let opened = || async {
        let call = RedisCall::new("ping", redis::cmd("PING"));
        seawall.call(call).await.is_err() && seawall.breaker().state() == State::Open
    };
    wait_until("an open breaker", PATIENCE, opened)
        .await
        .unwrap();
    let _ = seawall.enqueue(job("q", 0, false)).await.expect("accepted");
    bench.redis.thaw().unwrap();
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..1));
    assert_eq!(
        seawall.connection().status().borrow().generation,
        generation
    );
}

#[tokio::test]
async fn a_black_holed_socket_is_replaced_while_redis_is_fine() {
    let bench = Bench::new().await;
    let (proxy, seawall, _) = behind_a_proxy(&bench).await;
    proxy.set(Fault::SilenceOld);
    for number in 0..20 {
        let _ = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
    }
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..20));
}

#[tokio::test]
async fn jobs_wait_for_a_password_to_be_put_right() {
    let bench = Bench::new().await;
    let set = |password: &'static str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("requirepass").arg(password);
        set
    };
    // A connection that is logged in already stays so.
    let mut operator = bench.redis.connection().await.unwrap();
    let _: () = set("right").query_async(&mut operator).await.unwrap();
    let seawall = Seawall::builder(
        &format!("redis://:wrong@{}", bench.redis.addr()),
        bench.spool_dir(),
    )
    .unwrap()
    .connect()
    .await
    .unwrap();
    for number in 0..10 {
        let receipt = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
        assert!(receipt.is_spooled());
    }
    let _: () = set("wrong").query_async(&mut operator).await.unwrap();
    drained(&seawall).await;
    let list: Vec<String> = redis::cmd("LRANGE")
        .arg("q")
        .arg(0)
        .arg(-1)
        .query_async(&mut operator)
        .await
        .unwrap();
    assert_eq!(list, numbers(0..10));
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_given_what_it_had_acknowledged_a_moment_ago() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    connected(&seawall).await;
    for number in 0..10 {
        let _ = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
    }
    bench.redis.kill().await.unwrap();
    for number in 10..20 {
        let _ = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
    }
    bench.redis.restart_empty().await.unwrap();
    drained(&seawall).await;
    for number in 20..30 {
        let _ = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
    }
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..30));
}

#[tokio::test]
async fn an_idle_app_that_starts_during_the_outage_delivers_what_the_last_run_left() {
    let mut bench = Bench::new().await;
    bench.redis.kill().await.unwrap();
    {
        let seawall = bench.seawall().await;
        for number in 0..30 {
            let _ = seawall
                .enqueue(job("q", number, false))
                .await
                .expect("accepted");
        }
        assert_eq!(
            seawall.shutdown(Duration::from_millis(50)).await.unwrap(),
            30
        );
    }
    let seawall = bench.seawall().await;
    bench.redis.restart().await.unwrap();
    // Nobody enqueues anything.
    wait_until("the earlier run's jobs", PATIENCE, || async {
        bench.list("q").await.len() == 30
    })
    .await
    .unwrap();
    drained(&seawall).await;
    for number in 30..40 {
        let _ = seawall
            .enqueue(job("q", number, false))
            .await
            .expect("accepted");
    }
    assert_eq!(bench.list("q").await, numbers(0..40));
}

#[tokio::test]
async fn write_ahead_receipts_come_from_disk_and_delivery_follows() {
    let bench = Bench::new().await;
    let seawall = bench
        .builder()
        .spool(|spool: SpoolOptions| spool.with_ack(seawall::spool::Ack::Spooled))
        .connect()
        .await
        .unwrap();
    for number in 0..200 {
        let receipt = seawall
            .enqueue(job("q", number, number % 2 == 0))
            .await
            .expect("accepted");
        assert!(receipt.is_spooled());
    }
    drained(&seawall).await;
    assert_eq!(bench.list("q").await, numbers(0..200));
}

#[tokio::test]
async fn a_call_is_refused_at_once_while_redis_is_away() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    connected(&seawall).await;
    bench.redis.kill().await.unwrap();
    wait_until("the breaker to open", PATIENCE, || async {
        let ping = RedisCall::new("ping", redis::cmd("SET").arg("k").arg("v"));
        seawall
            .call(ping)
            .await
            .is_err_and(|error| error.is_breaker_open())
    })
    .await
    .unwrap();
    bench.redis.restart().await.unwrap();
    // Nobody calls: the background probe finds out, and the next call passes.
    wait_until("a call to pass", PATIENCE, || async {
        let ping = RedisCall::new("ping", redis::cmd("PING"));
        seawall.call(ping).await.is_ok()
    })
    .await
    .unwrap();
}

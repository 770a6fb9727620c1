//! A Redis that is there and refuses: full, not allowed to write, or asked for what it is not allowed to do.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    Seawall,
    chaos::wait_until,
    job::Retries,
    worker::{Builder, Delivery, Failure},
};

use crate::support::{
    Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue, gated_attempts, gauge,
};

const LEASE: Duration = Duration::from_secs(1);

fn worker(seawall: &Seawall) -> Builder {
    let retries = Retries::fixed(Duration::ZERO).with_jitter(0.0);
    let worker = seawall.worker("q").concurrency(1);
    worker.lease(LEASE).retries(retries)
}

#[tokio::test]
async fn a_redis_that_refuses_writes_for_longer_than_a_lease_makes_nobody_dead() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..3 {
        enqueue(&seawall, number).await;
    }
    let handler = || gated_attempts(&executed, &gate);
    // Longer than a worker may wait before it asks again.
    let worker = || worker(&seawall).lease(3 * LEASE);
    let runs = [(); 3].map(|()| Run::start(worker(), handler()));
    executed.reach(3).await;
    let renewals = || counter(&registry, "seawall_worker_renewals_total", &["q"]);
    // All may look for dead ones.
    let before = renewals();
    wait_until("leases to pass", PATIENCE, || async {
        renewals() > before + 15.0
    })
    .await
    .unwrap();
    let _: String = bench.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    wait_until("all leases to end", PATIENCE, || async {
        bench.alive().await == 0
    })
    .await
    .unwrap();
    let _: String = bench.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let before = renewals();
    wait_until("leases to pass", PATIENCE, || async {
        renewals() > before + 20.0
    })
    .await
    .unwrap();
    assert_eq!(bench.alive().await, 3);
    gate.open();
    bench.emptied().await;
    for run in runs {
        let report = run.stop().await;
        assert_eq!((report.claimed, report.lost, report.started), (0, 0, 1));
    }
    assert_eq!(executed.all(), ["1", "1", "1"]);
}

/// How a job ended was thrown away, say, after it had been kept: Redis takes it for running, and nobody runs it.
#[tokio::test]
async fn a_job_that_runs_under_a_living_workers_name_only_is_found_and_executed() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(worker(&seawall), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(job.attempt());
            Ok::<_, Failure>(())
        }
    });
    enqueue(&seawall, "first").await;
    executed.reach(1).await;
    bench.emptied().await;
    let tokens: Vec<String> = bench
        .ask(&["ZRANGE", "seawall:{q}:workers", "0", "-1"])
        .await;
    let job = seawall::Job::new("q", "stray").for_worker();
    let job = job.delayed(Duration::from_secs(3600));
    let id = job.id();
    let _ = seawall.enqueue(job).await.unwrap();
    let mut start = redis::pipe();
    start.zrem("seawall:{q}:later", &id.as_bytes()[..]).hset(
        "seawall:{q}:running",
        &id.as_bytes()[..],
        format!("1 {}", tokens[0]),
    );
    let mut connection = bench.redis.connection().await.unwrap();
    let _: (u64, u64) = start.query_async(&mut connection).await.unwrap();
    executed.reach(2).await;
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!((report.started, report.released, report.claimed), (2, 1, 0));
    assert_eq!(executed.all(), ["1", "1"]);
}

#[tokio::test]
async fn a_worker_that_may_not_do_a_part_of_its_work_asks_less_and_less() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(worker(&seawall), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(job.attempt());
            Ok::<_, Failure>(())
        }
    });
    enqueue(&seawall, "before").await;
    executed.reach(1).await;
    let asked = async || -> f64 {
        let info: String = bench.ask(&["INFO", "commandstats"]).await;
        let count = |command: &str, what: &str| -> f64 {
            let line = info.lines().find(|line| line.contains(command));
            let parts = line.unwrap_or_default().split([':', ',']);
            let count = parts.filter_map(|part| part.strip_prefix(what)).next();
            count.map_or(0.0, |count| count.parse().unwrap())
        };
        count("cmdstat_evalsha:", "calls=") + count("cmdstat_blpop:", "rejected_calls=")
    };
    let now = async || -> f64 {
        let time: (f64, f64) = bench.ask(&["TIME"]).await;
        time.0 + time.1 / 1e6
    };
    for forbidden in ["-lpop", "-hscan", "-blpop"] {
        let _: String = bench.ask(&["ACL", "SETUSER", "default", forbidden]).await;
        enqueue(&seawall, forbidden).await;
        let (since, before) = (now().await, asked().await);
        wait_until("some seconds to pass", PATIENCE, || async {
            now().await - since > 4.0
        })
        .await
        .unwrap();
        let each_second = (asked().await - before) / (now().await - since);
        assert!(each_second < 15.0, "{forbidden}: {each_second}");
        let allowed = forbidden.replace('-', "+");
        let _: String = bench.ask(&["ACL", "SETUSER", "default", &allowed]).await;
        bench.emptied().await;
    }
    run.stop().await;
    assert_eq!(executed.len(), 4);
}

#[tokio::test]
async fn a_worker_that_may_not_look_for_dead_ones_goes_on_with_its_own_work() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let _: String = bench.ask(&["ACL", "SETUSER", "default", "-hscan"]).await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(worker(&seawall).lease(3 * LEASE), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(job.attempt());
            Ok::<_, Failure>(())
        }
    });
    let renewed = async || -> f64 {
        let lease: Vec<(String, f64)> = bench
            .ask(&["ZRANGE", "seawall:{q}:workers", "0", "-1", "WITHSCORES"])
            .await;
        lease.first().map_or(0.0, |(_, until)| *until)
    };
    let begun = async || renewed().await > 0.0;
    wait_until("the worker to begin", PATIENCE, begun)
        .await
        .unwrap();
    let first = renewed().await;
    wait_until("some looks to be due", PATIENCE, || async {
        renewed().await - first > 4_000.0
    })
    .await
    .unwrap();
    for number in 0..20 {
        enqueue(&seawall, number).await;
        executed.reach(number + 1).await;
    }
    bench.emptied().await;
    run.stop().await;
}

#[tokio::test]
async fn a_worker_whose_completions_are_refused_takes_nothing_over() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let dir = tempfile::tempdir().unwrap();
    let other = connected(Seawall::builder(&bench.redis.url(), dir.path()).unwrap()).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let handler = || gated_attempts(&executed, &gate);
    enqueue(&other, "refused").await;
    let run = Run::start(worker(&seawall), handler());
    executed.reach(1).await;
    // Nobody takes what it finishes.
    let _ = seawall.shutdown(Duration::ZERO).await;
    gate.open();
    let unsettled = || gauge(&registry, "seawall_worker_completions_unsettled");
    wait_until("its end to be refused", PATIENCE, || async {
        unsettled() == 1.0
    })
    .await
    .unwrap();
    let job = seawall::Job::new("q", "left behind").for_worker();
    let job = job.delayed(Duration::from_secs(3600));
    let id = job.id();
    let _ = other.enqueue(job).await.unwrap();
    let mut left = redis::cmd("HSET");
    left.arg("seawall:{q}:running").arg(&id.as_bytes()[..]);
    let _: u64 = bench.redis.command(left.arg("1 nobody")).await.unwrap();
    let renewals = || counter(&registry, "seawall_worker_renewals_total", &["q"]);
    let before = renewals();
    wait_until("looks to be due", PATIENCE, || async {
        renewals() > before + 9.0
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.claimed, report.completions_lost), (0, 1));
}

/// As docs/operations.md lists them.
#[tokio::test]
async fn the_commands_that_are_documented_are_enough() {
    let bench = Bench::new().await;
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, listed) = manual
        .split_once("The ACL user of an app that enqueues for workers")
        .unwrap();
    let (listed, _) = listed.split_once("all on").unwrap();
    let (_, enqueues) = manual.split_once("give the ACL user `").unwrap();
    let (enqueues, _) = enqueues.split_once('`').unwrap();
    let listed = [enqueues, listed].join(" ");
    let words = listed.split(|c: char| !c.is_alphanumeric() && !"+|".contains(c));
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER")
        .arg("worker")
        .arg("on")
        .arg(">secret")
        .arg("~seawall:*");
    for word in words.filter(|word| word.starts_with('+')) {
        user.arg(word);
    }
    let _: String = bench.redis.command(&user).await.unwrap();
    let url = format!("redis://worker:secret@{}", bench.redis.addr());
    let seawall = connected(Seawall::builder(&url, bench.dir.path()).unwrap()).await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(job.attempt());
            match (&job.payload()[..], job.attempt()) {
                (b"again", 1) => Err(Failure::new("flaky", "again")),
                (b"dies", 1) => std::future::pending().await,
                (b"dead", _) => Err(Failure::new("wrong", "for good").permanently()),
                _ => Ok(()),
            }
        }
    };
    for payload in ["fine", "again", "dead"] {
        enqueue(&seawall, payload).await;
    }
    let worker = || worker(&seawall).result_ttl(Duration::from_secs(60));
    let run = Run::start(worker(), handler.clone());
    executed.reach(4).await;
    enqueue(&seawall, "dies").await;
    executed.reach(5).await;
    run.abort().await;
    let run = Run::start(worker().poison_after(2), handler);
    wait_until("all to end", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.claimed, report.succeeded), (1, 1));
    let refused: redis::Value = bench.ask(&["ACL", "LOG"]).await;
    let refused = format!("{refused:?}");
    assert!(!refused.contains(r#""lua""#), "by a script: {refused}");
}

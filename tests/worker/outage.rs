//! Redis killed, frozen or cut off while a worker is idle, busy, or about to finish.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    Seawall,
    chaos::{Fault, FaultProxy, RedisServer, wait_until},
    job::Retries,
    spool::{Overflow, TailOptions},
    worker::{Delivery, Failure},
};

use crate::support::{
    Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue, gated, gauge, text,
};

#[tokio::test]
async fn an_idle_worker_goes_on_when_redis_is_back() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    gate.open();
    let run = Run::start(seawall.worker("q"), gated(&executed, &gate));
    enqueue(&seawall, "before").await;
    executed.reach(1).await;
    bench.emptied().await;
    bench.redis.kill().await.unwrap();
    enqueue(&seawall, "meanwhile").await;
    bench.redis.restart().await.unwrap();
    executed.reach(2).await;
    enqueue(&seawall, "after").await;
    executed.reach(3).await;
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.all(), ["before 1", "meanwhile 1", "after 1"]);
}

#[tokio::test]
async fn a_worker_may_start_while_redis_is_away() {
    let mut bench = Bench::new().await;
    bench.redis.kill().await.unwrap();
    let seawall = bench.builder().connect().await.unwrap();
    let (executed, gate) = (Executed::default(), Gate::default());
    gate.open();
    enqueue(&seawall, "early").await;
    let run = Run::start(seawall.worker("q"), gated(&executed, &gate));
    bench.redis.restart().await.unwrap();
    executed.reach(1).await;
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.all(), ["early 1"]);
}

#[tokio::test]
async fn a_job_that_is_finished_while_redis_is_away_is_not_executed_again() {
    let mut bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..5 {
        enqueue(&seawall, number).await;
    }
    let run = Run::start(seawall.worker("q"), gated(&executed, &gate));
    executed.reach(5).await;
    bench.redis.kill().await.unwrap();
    gate.open();
    wait_until("the completions to be on disk", PATIENCE, || async {
        counter(&registry, "seawall_worker_completions_kept_total", &["q"]) == 5.0
    })
    .await
    .unwrap();
    bench.redis.restart().await.unwrap();
    bench.emptied().await;
    enqueue(&seawall, "next").await;
    executed.reach(6).await;
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.len(), 6, "{:?}", executed.all());
    assert_eq!((report.completions_kept, report.completions_lost), (5, 0));
    assert_eq!(bench.counted("succeeded").await, 6);
}

#[tokio::test]
async fn a_frozen_redis_costs_no_execution() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..5 {
        enqueue(&seawall, number).await;
    }
    let run = Run::start(seawall.worker("q"), gated(&executed, &gate));
    executed.reach(5).await;
    bench.redis.freeze().await.unwrap();
    gate.open();
    wait_until("the connection to be given up", PATIENCE, || async {
        !seawall.connection().is_up() && seawall.health().spool.records == 5
    })
    .await
    .unwrap();
    bench.redis.thaw().unwrap();
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.len(), 5, "{:?}", executed.all());
    assert_eq!(bench.counted("succeeded").await, 5);
}

#[tokio::test]
async fn a_busy_worker_executes_every_job_once_while_redis_is_killed_again_and_again() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(format!("{} {}", text(job.payload()), job.attempt()));
            tokio::task::yield_now().await;
            match job.attempt() {
                1 if job.payload().ends_with(b"7") => Err(Failure::new("flaky", "again")),
                _ => Ok(()),
            }
        }
    };
    let retries = Retries::fixed(Duration::from_millis(50));
    let worker = seawall.worker("q").concurrency(8).retries(retries);
    let run = Run::start(worker, handler);
    for round in 0..5 {
        for number in 0..100 {
            enqueue(&seawall, 100 * round + number).await;
        }
        executed.reach(100 * round + 20).await;
        bench.redis.kill().await.unwrap();
        bench.redis.restart().await.unwrap();
    }
    executed.reach(550).await;
    bench.emptied().await;
    let report = run.stop().await;
    let counts = executed.counts();
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(twice, [], "executions that were made twice");
    assert_eq!(counts.len(), 550);
    assert_eq!((report.started, report.succeeded), (550, 500));
    assert_eq!(bench.counted("succeeded").await, 500);
}

#[tokio::test]
async fn a_job_that_was_handed_out_in_a_lost_answer_is_executed_all_the_same() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let registry = Registry::new();
    let dir = tempfile::tempdir().unwrap();
    let builder = Seawall::builder(&proxy.url(), dir.path()).unwrap();
    let behind = connected(builder.metrics(&registry)).await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    gate.open();
    let worker = behind.worker("q").concurrency(4);
    let run = Run::start(worker, gated(&executed, &gate));
    let lost = || {
        let of = |outcome| counter(&registry, "seawall_calls_total", &["worker_turn", outcome]);
        of("transient") + of("outage")
    };
    let mut jobs = 0;
    // The answer that is lost may be that of a probe, so: until several turns have lost theirs.
    while lost() < 4.0 && jobs < 900 {
        proxy.set(Fault::DropNextReply);
        for _ in 0..3 {
            enqueue(&seawall, jobs).await;
            jobs += 1;
        }
        executed.reach(jobs).await;
    }
    proxy.heal();
    assert!(lost() >= 4.0, "hardly a turn lost its answer");
    bench.emptied().await;
    let report = run.stop().await;
    let counts = executed.counts();
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(counts.keys().all(|what| what.ends_with(" 1")), "{counts:?}");
    assert_eq!(report.started, jobs as u64);
}

#[tokio::test]
async fn a_cut_off_worker_finishes_what_it_has_and_keeps_it() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let behind = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    enqueue(&behind, "job").await;
    let run = Run::start(behind.worker("q"), gated(&executed, &gate));
    executed.reach(1).await;
    proxy.set(Fault::Refuse);
    proxy.cut();
    gate.open();
    wait_until("the completion to be on disk", PATIENCE, || async {
        behind.health().spool.records > 0
    })
    .await
    .unwrap();
    proxy.heal();
    bench.emptied().await;
    enqueue(&behind, "next").await;
    executed.reach(2).await;
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.all(), ["job 1", "next 1"]);
}

/// Whoever was about to look for dead workers finds those whose leases have run out meanwhile.
#[tokio::test]
async fn a_redis_that_stands_still_for_longer_than_a_lease_takes_no_job_from_a_worker_that_lives() {
    const LEASE: Duration = Duration::from_secs(1);
    const WORKERS: u8 = 4;
    let bench = Bench::new().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let (mut runs, mut dirs, mut registries) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WORKERS {
        let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::new());
        let builder = Seawall::builder(&bench.redis.url(), dir.path()).unwrap();
        let seawall = connected(builder.metrics(&registry)).await;
        enqueue(&seawall, number).await;
        let worker = seawall.worker("q").concurrency(1).lease(LEASE);
        runs.push(Run::start(worker, gated(&executed, &gate)));
        dirs.push(dir);
        registries.push(registry);
    }
    executed.reach(WORKERS.into()).await;
    let renewals = || -> f64 {
        let of = |one| counter(one, "seawall_worker_renewals_total", &["q"]);
        registries.iter().map(of).sum()
    };
    for _ in 0..3 {
        let before = renewals();
        wait_until("all to be allowed to look", PATIENCE, || async {
            renewals() > before + f64::from(10 * WORKERS)
        })
        .await
        .unwrap();
        bench.redis.freeze().await.unwrap();
        tokio::time::sleep(LEASE + LEASE / 4).await;
        bench.redis.thaw().unwrap();
    }
    gate.open();
    bench.emptied().await;
    for run in runs {
        let report = run.stop().await;
        assert_eq!((report.started, report.lost, report.claimed), (1, 0, 0));
    }
    assert_eq!(executed.len(), usize::from(WORKERS), "{:?}", executed.all());
}

#[tokio::test]
async fn completions_that_no_disk_takes_are_kept_in_memory() {
    completions_that_find_no_room(Overflow::Reject, "refused").await;
}

/// A spool that may throw away what is newest has not kept it.
#[tokio::test]
async fn completions_that_the_spool_drops_are_kept_in_memory() {
    completions_that_find_no_room(Overflow::DropNewest, "dropped").await;
}

async fn completions_that_find_no_room(overflow: Overflow, outcome: &str) {
    let mut bench = Bench::new().await;
    let registry = Registry::new();
    let builder = bench
        .builder()
        .spool(|spool| spool.with_max_records(2).with_overflow(overflow));
    let seawall = connected(builder.metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..8 {
        enqueue(&seawall, number).await;
    }
    seawall.flush().await;
    // No other turn follows the one that hands them out, so that they are told of again.
    let worker = seawall.worker("q").concurrency(8);
    let run = Run::start(worker, gated(&executed, &gate));
    executed.reach(8).await;
    bench.redis.kill().await.unwrap();
    gate.open();
    let kept = || counter(&registry, "seawall_worker_completions_kept_total", &["q"]);
    let refused = || counter(&registry, "seawall_enqueued_total", &["q", outcome]);
    wait_until("some to be refused", PATIENCE, || async {
        kept() == 2.0 && refused() >= 6.0
    })
    .await
    .unwrap();
    let unsettled = gauge(&registry, "seawall_worker_completions_unsettled");
    assert_eq!(unsettled, 6.0);
    bench.redis.restart().await.unwrap();
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.len(), 8, "{:?}", executed.all());
    assert_eq!((report.completions_lost, report.succeeded), (0, 8));
    assert_eq!(bench.counted("succeeded").await, 8);
}

#[tokio::test]
async fn a_redis_that_has_lost_what_was_executed_has_nothing_executed_again() {
    executed_and_lost(Some(TailOptions::default())).await;
}

/// The line sends what Redis has lost once more, and is mostly faster than the worker is handed a job again. It does
/// not have everything for ever.
#[tokio::test]
async fn a_worker_knows_by_itself_what_it_has_executed() {
    executed_and_lost(None).await;
}

async fn executed_and_lost(tail: Option<TailOptions>) {
    let mut bench = Bench {
        redis: RedisServer::start().await.unwrap(),
        dir: tempfile::tempdir().unwrap(),
    };
    let builder = bench.builder().spool(|spool| spool.with_tail(tail));
    let seawall = connected(builder).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..40 {
        enqueue(&seawall, number).await;
    }
    // What a replica has that lags behind: all jobs wait.
    let _: String = bench.ask(&["SAVE"]).await;
    let worker = seawall.worker("q").concurrency(30);
    let run = Run::start(worker, gated(&executed, &gate));
    executed.reach(30).await;
    gate.open();
    executed.reach(40).await;
    bench.emptied().await;
    bench.redis.kill().await.unwrap();
    bench.redis.restart().await.unwrap();
    seawall.connection().wait_ready(PATIENCE).await.unwrap();
    tokio::time::timeout(PATIENCE, seawall.flush())
        .await
        .unwrap();
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.len(), 40, "{:?}", executed.counts());
}

//! Workers that die, are cut off, or only live long: whose is a job?

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use seawall::{
    Job, Seawall,
    chaos::{Fault, FaultProxy, wait_until},
    job::Retries,
    worker::{Builder, Delivery, Failure},
};
use tokio::sync::Semaphore;

use crate::support::{
    Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue, gated_attempts, text,
};

const LEASE: Duration = Duration::from_secs(1);

fn worker(seawall: &Seawall) -> Builder {
    let retries = Retries::fixed(Duration::ZERO).with_jitter(0.0);
    seawall.worker("q").lease(LEASE).retries(retries)
}

/// Notes who executes what for the how manieth time, and never ends.
fn stuck(who: &'static str, executed: &Executed) -> impl Fn(Delivery) -> Stuck + use<> {
    let executed = executed.clone();
    move |job: Delivery| {
        executed.note(format!("{who} {}", job.attempt()));
        std::future::pending()
    }
}

type Stuck = std::future::Pending<Result<(), Failure>>;

#[tokio::test]
async fn jobs_of_a_worker_that_died_are_executed_by_another_and_the_attempt_counts() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    enqueue(&seawall, "job").await;
    let first = Run::start(worker(&seawall), stuck("first", &executed));
    executed.reach(1).await;
    first.abort().await;
    let noting = executed.clone();
    let second = Run::start(worker(&seawall), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            let error = job.error().unwrap();
            assert_eq!((error.error_type(), error.deaths()), ("worker_died", 1));
            executed.note(format!("second {}", job.attempt()));
            Ok::<_, Failure>(())
        }
    });
    executed.reach(2).await;
    bench.emptied().await;
    let report = second.stop().await;
    assert_eq!(executed.all(), ["first 1", "second 2"]);
    assert_eq!((report.claimed, report.started, report.retried), (1, 1, 1));
    let gone: u64 = bench.ask(&["ZCARD", "seawall:{q}:gone"]).await;
    assert_eq!(gone, 1);
}

#[tokio::test]
async fn a_job_that_keeps_killing_its_worker_becomes_a_dead_letter() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    enqueue(&seawall, "poison").await;
    for deaths in 1..=2 {
        let worker = worker(&seawall).poison_after(2);
        let run = Run::start(worker, stuck("dies", &executed));
        executed.reach(deaths).await;
        run.abort().await;
    }
    let last = Run::start(worker(&seawall).poison_after(2), stuck("lives", &executed));
    wait_until("a dead letter", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let failures: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:failures"]).await;
    assert!(failures[0].starts_with("2 2\n"), "{failures:?}");
    assert!(failures[0].contains("poison"), "{failures:?}");
    last.stop().await;
    assert_eq!(executed.all(), ["dies 1", "dies 2"]);
}

#[tokio::test]
async fn a_handler_may_run_for_longer_than_the_lease() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let handler = || gated_attempts(&executed, &gate);
    enqueue(&seawall, "long").await;
    let one = Run::start(worker(&seawall), handler());
    let other = Run::start(worker(&seawall), handler());
    executed.reach(1).await;
    // Each renews its lease three times in one.
    wait_until("several leases to pass", PATIENCE, || async {
        counter(&registry, "seawall_worker_renewals_total", &["q"]) > 24.0
    })
    .await
    .unwrap();
    gate.open();
    bench.emptied().await;
    let reports = [one.stop().await, other.stop().await];
    assert_eq!(executed.all(), ["1"]);
    assert!(reports.iter().all(|it| it.claimed == 0 && it.lost == 0));
}

#[tokio::test]
async fn jobs_in_which_workers_have_died_are_executed_one_at_a_time() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    for number in 0..10 {
        let queue = ["q", "r"][number % 2];
        let job = Job::new(queue, number.to_string()).for_worker();
        let job = job.delayed(Duration::from_secs(3600));
        let mut wait = redis::cmd("ZADD");
        wait.arg(format!("seawall:{{{queue}}}:later")).arg("-1");
        wait.arg(&job.id().as_bytes()[..]);
        let _ = seawall.enqueue(job).await.unwrap();
        // As after a death: for a worker that has no other such.
        let _: u64 = bench.redis.command(&wait).await.unwrap();
    }
    let (executed, at_once) = (Executed::default(), Arc::new(AtomicUsize::new(0)));
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q").queue("r", 1), move |job: Delivery| {
        let (executed, at_once) = (noting.clone(), at_once.clone());
        async move {
            let others = at_once.fetch_add(1, Ordering::Relaxed);
            executed.note(format!("{} beside {others}", text(job.payload())));
            // Any other that may begin does so meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
            at_once.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Failure>(())
        }
    });
    executed.reach(10).await;
    bench.emptied().await;
    run.stop().await;
    let all = executed.all();
    assert!(all.iter().all(|it| it.ends_with("beside 0")), "{all:?}");
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_is_told_so_and_goes_on_under_another_name() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut_off = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let told = Arc::new(Semaphore::new(0));
    enqueue(&seawall, "job").await;
    let (noting, telling) = (executed.clone(), told.clone());
    let old = Run::start(worker(&cut_off), move |job: Delivery| {
        let (executed, told) = (noting.clone(), telling.clone());
        async move {
            executed.note(format!("old {} {}", text(job.payload()), job.attempt()));
            if &job.payload()[..] == b"job" {
                let cancellation = job.cancellation().clone();
                tokio::spawn(async move {
                    cancellation.cancelled().await;
                    told.add_permits(1);
                });
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(())
        }
    });
    executed.reach(1).await;
    proxy.set(Fault::BlackHole);
    let noting = executed.clone();
    let new = Run::start(worker(&seawall), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(format!("new {} {}", text(job.payload()), job.attempt()));
            Ok::<_, Failure>(())
        }
    });
    executed.reach(2).await;
    bench.emptied().await;
    assert_eq!(told.available_permits(), 0, "nobody could tell it yet");
    proxy.heal();
    let permit = tokio::time::timeout(PATIENCE, told.acquire()).await;
    drop(permit.unwrap().unwrap());
    let report = new.stop().await;
    assert_eq!(report.claimed, 1);
    enqueue(&seawall, "next").await;
    executed.reach(3).await;
    bench.emptied().await;
    let report = old.stop().await;
    assert_eq!((report.lost, report.started, report.succeeded), (1, 2, 1));
    let all = executed.all();
    assert_eq!(all, ["old job 1", "new job 2", "old next 1"]);
}

#[tokio::test]
async fn what_a_worker_finishes_that_was_taken_for_dead_counts_once_or_not_at_all() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut_off = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let handler = |who: &'static str, gate: Option<Gate>| {
        let executed = executed.clone();
        move |job: Delivery| {
            let (executed, gate) = (executed.clone(), gate.clone());
            async move {
                executed.note(format!("{who} {}", job.attempt()));
                if let Some(gate) = gate {
                    gate.passed().await;
                }
                Ok::<_, Failure>(())
            }
        }
    };
    enqueue(&seawall, "job").await;
    let old = Run::start(worker(&cut_off), handler("old", Some(gate.clone())));
    executed.reach(1).await;
    proxy.set(Fault::BlackHole);
    // It finishes while it is cut off: that is on its disk, and nowhere else.
    gate.open();
    wait_until("the completion to be on disk", PATIENCE, || async {
        cut_off.health().spool.records > 0
    })
    .await
    .unwrap();
    let new = Run::start(worker(&seawall), handler("new", None));
    executed.reach(2).await;
    bench.emptied().await;
    proxy.heal();
    tokio::time::timeout(PATIENCE, cut_off.flush())
        .await
        .unwrap();
    old.stop().await;
    new.stop().await;
    assert_eq!(executed.all(), ["old 1", "new 2"]);
    assert_eq!(bench.counted("succeeded").await, 1);
    assert_eq!(bench.places().await, [0; 5]);
}

#[tokio::test]
async fn turns_that_arrive_late_hand_out_nothing() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let behind = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(worker(&behind).concurrency(4), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(text(job.payload()));
            Ok::<_, Failure>(())
        }
    });
    for round in 0..3 {
        // What is on its way stays there, and arrives when others have come before it.
        proxy.set(Fault::Stall);
        for number in 0..10 {
            enqueue(&seawall, format!("{round} {number}")).await;
        }
        wait_until("a connection to be given up", PATIENCE, || async {
            !behind.connection().is_up()
        })
        .await
        .unwrap();
        proxy.heal();
        executed.reach(10 * (round + 1)).await;
    }
    bench.emptied().await;
    run.stop().await;
    let counts = executed.counts();
    assert_eq!(counts.len(), 30);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[tokio::test]
async fn nobody_looks_through_all_that_is_running_again_and_again() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let handler = || gated_attempts(&executed, &gate);
    for number in 0..8 {
        enqueue(&seawall, number).await;
    }
    let runs = [(); 8].map(|()| Run::start(worker(&seawall).concurrency(1), handler()));
    executed.reach(8).await;
    let calls = async |command: &str| -> u64 {
        let info: String = bench.ask(&["INFO", "commandstats"]).await;
        let name = format!("cmdstat_{command}:calls=");
        let rest = info.lines().find_map(|line| line.strip_prefix(&name));
        rest.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    let died = async || calls("zrangebyscore").await;
    wait_until(
        "all to look for dead workers again and again",
        PATIENCE,
        || async { calls("hset").await > 0 && died().await > 1500 },
    )
    .await
    .unwrap();
    let scans = calls("hscan").await;
    gate.open();
    bench.emptied().await;
    let mut claimed = 0;
    for run in runs {
        claimed += run.stop().await.claimed;
    }
    assert_eq!(claimed, 0);
    assert!((1..60).contains(&scans), "{scans}");
}

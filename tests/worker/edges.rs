//! What nobody plans for: handlers that break their promises, a program that ends in the wrong order, jobs that are
//! larger than the line is fast.

use std::{
    panic::panic_any,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use prometheus::Registry;
use seawall::{
    Job, Seawall,
    chaos::{Fault, FaultProxy, wait_until},
    job::{JobId, Retries},
    worker::{Delivery, Failure},
};

use crate::support::{Bench, Executed, Gate, PATIENCE, Run, connected, enqueue, gauge, text};

/// Notes the payload, and fails with what it says, one way or another.
fn faulty(
    executed: &Executed,
) -> impl Fn(Delivery) -> BoxFuture<'static, Result<(), Failure>> + use<> {
    let executed = executed.clone();
    move |job: Delivery| {
        let executed = executed.clone();
        Box::pin(async move {
            executed.note(text(job.payload()));
            match &*text(job.payload()) {
                "fail" => Err(Failure::new("failure", "it failed")),
                "bomb" => panic_any(Bomb),
                _ => Ok(()),
            }
        })
    }
}

/// What a handler panics with, and panics again when that is thrown away.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "and once more");
    }
}

#[tokio::test]
async fn a_predicate_that_panics_takes_no_failure_and_ends_no_worker() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let worker = seawall
        .worker("q")
        .retries(Retries::none())
        .never_if(|_| panic!("a mistake in the predicate"));
    let retries = Retries::fixed(Duration::ZERO).with_max(1);
    let run = Run::start(worker.retries(retries), faulty(&executed));
    enqueue(&seawall, "fail").await;
    executed.reach(2).await;
    enqueue(&seawall, "fine").await;
    executed.reach(3).await;
    wait_until("a dead letter", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.succeeded, report.retried, report.dead), (1, 1, 1));
}

#[tokio::test]
async fn a_job_is_not_stuck_when_its_panic_panics() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let worker = seawall.worker("q").concurrency(1).retries(Retries::none());
    let run = Run::start(worker, faulty(&executed));
    enqueue(&seawall, "bomb").await;
    enqueue(&seawall, "fine").await;
    executed.reach(2).await;
    wait_until("a dead letter", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.succeeded, report.dead), (1, 1));
}

/// A service that panics wherever its payload tells it to; `clone` once in a while.
struct Fragile {
    executed: Executed,
    clones: std::sync::atomic::AtomicUsize,
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        let before = self
            .clones
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(before != 1, "the second clone fails");
        Self {
            executed: self.executed.clone(),
            clones: 100.into(),
        }
    }
}

impl tower::Service<Delivery> for Fragile {
    type Response = ();
    type Error = Failure;
    type Future = BoxFuture<'static, Result<(), Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Delivery) -> Self::Future {
        self.executed.note(text(job.payload()));
        assert!(&job.payload()[..] != b"call", "before there is a future");
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_service_may_panic_wherever_it_is_called_and_only_its_job_fails() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let fragile = Fragile {
        executed: executed.clone(),
        clones: 0.into(),
    };
    let retries = Retries::fixed(Duration::ZERO).with_max(1);
    let worker = seawall.worker("q").concurrency(1).retries(retries);
    let run = Run::start(worker, fragile);
    for payload in ["one", "cloned", "call", "last"] {
        enqueue(&seawall, payload).await;
    }
    wait_until("one dead letter, and nothing else", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.succeeded, report.retried, report.dead), (3, 2, 1));
    let counts = executed.counts();
    assert_eq!((counts["call"], counts["cloned"]), (2, 1));
}

#[tokio::test]
async fn no_more_jobs_are_begun_once_the_spool_takes_no_completions() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let other = connected(Seawall::builder(&bench.redis.url(), dir.path()).unwrap()).await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let (noting, waiting) = (executed.clone(), gate.clone());
    let worker = seawall.worker("q").concurrency(2);
    let run = Run::start(worker, move |job: Delivery| {
        let (executed, gate) = (noting.clone(), waiting.clone());
        async move {
            executed.note(text(job.payload()));
            gate.passed().await;
            Ok::<_, Failure>(())
        }
    });
    for number in 0..2 {
        enqueue(&other, number).await;
    }
    executed.reach(2).await;
    // In the wrong order: the worker was to end first.
    let _ = seawall.shutdown(Duration::ZERO).await;
    for number in 2..50 {
        enqueue(&other, number).await;
    }
    gate.open();
    let running = |count: u64| {
        let bench = &bench;
        move || async move { bench.places().await[3] >= count }
    };
    // Those whose receipts had to come before it could be known.
    let _ = wait_until("more", Duration::from_millis(500), running(5)).await;
    let report = run.stop().await;
    assert!(executed.len() <= 4, "{:?}", executed.all());
    assert_eq!(report.completions_lost, executed.len() as u64);
    let unsettled = gauge(&registry, "seawall_worker_completions_unsettled");
    assert_eq!(unsettled, 0.0, "of a worker that is no more");
    let leases: u64 = bench.ask(&["ZCARD", "seawall:{q}:workers"]).await;
    assert_eq!(leases, 1, "nobody else is to begin them at once");
    let last = Run::start(other.worker("q"), faulty(&executed));
    bench_has_only_running(&bench, report.completions_lost).await;
    last.stop().await;
}

/// What was given up waits for the lease to end.
async fn bench_has_only_running(bench: &Bench, count: u64) {
    wait_until("the others to be executed", PATIENCE, || async {
        bench.places().await == [count, 0, 0, count, 0]
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_busy_all_the_time_hears_that_it_is_to_end() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let jobs: u64 = 30_000;
    let all = (0..jobs).map(|_| Job::new("q", "").for_worker());
    for receipt in seawall.enqueue_all(all).await {
        let _ = receipt.unwrap();
    }
    seawall.flush().await;
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q").concurrency(64), move |_: Delivery| {
        noting.note("");
        async { Ok::<_, Failure>(()) }
    });
    executed.reach(500).await;
    let report = run.stop().await;
    assert!(
        report.started < jobs,
        "it has executed everything there was"
    );
    seawall.flush().await;
    let left = jobs - report.succeeded;
    assert_eq!(bench.places().await, [left, left, 0, 0, 0]);
}

#[tokio::test]
async fn jobs_that_are_too_large_to_come_at_once_come_one_after_the_other() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let behind = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let large = "x".repeat(1 << 20);
    for _ in 0..24 {
        enqueue(&seawall, &large).await;
    }
    // All of them together take twice as long as an answer may.
    proxy.set(Fault::Throttle(24 << 20));
    let noting = executed.clone();
    let worker = behind.worker("q").concurrency(24);
    let run = Run::start(worker, move |job: Delivery| {
        noting.note(job.payload().len());
        async { Ok::<_, Failure>(()) }
    });
    executed.reach(24).await;
    proxy.heal();
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!((report.started, report.succeeded), (24, 24));
}

#[tokio::test]
async fn a_job_of_the_same_id_as_one_before_is_executed_too_on_a_new_connection() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let run = Run::start(seawall.worker("q").concurrency(1), faulty(&executed));
    let id = JobId::from_bytes([7; 16]);
    for number in 0..4 {
        let job = Job::new("q", number.to_string()).for_worker().with_id(id);
        let _ = seawall.enqueue(job).await.unwrap();
        executed.reach(number + 1).await;
        bench.emptied().await;
        bench.redis.kill().await.unwrap();
        bench.redis.restart().await.unwrap();
    }
    run.stop().await;
    assert_eq!(executed.all(), ["0", "1", "2", "3"]);
}

/// How many of it there are.
#[derive(Clone, Default)]
struct Alive(std::sync::Arc<()>);

impl Alive {
    fn count(&self) -> usize {
        std::sync::Arc::strong_count(&self.0) - 1
    }
}

#[tokio::test]
async fn wherever_a_worker_is_dropped_nothing_of_it_goes_on_and_no_job_is_lost() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, alive) = (Executed::default(), Alive::default());
    let handler = || {
        let (executed, alive) = (executed.clone(), alive.clone());
        move |job: Delivery| {
            let (executed, held) = (executed.clone(), alive.clone());
            async move {
                let number: u64 = text(job.payload()).parse().unwrap();
                for _ in 0..number % 7 {
                    tokio::task::yield_now().await;
                }
                if number.is_multiple_of(5) && job.attempt() == 1 {
                    return Err(Failure::new("flaky", "again"));
                }
                executed.note(number);
                drop(held);
                Ok::<_, Failure>(())
            }
        }
    };
    let retries = Retries::fixed(Duration::ZERO).with_max(100);
    let worker = |seawall: &Seawall| {
        let worker = seawall.worker("q").concurrency(5).poison_after(100);
        worker
            .lease(Duration::from_secs(1))
            .retries(retries.clone())
    };
    let jobs = 200;
    for number in 0..jobs {
        enqueue(&seawall, number).await;
    }
    let before = alive.count();
    for round in 0..40 {
        let run = Box::pin(worker(&seawall).run(handler()));
        // It is polled by nobody but this; its own task goes on meanwhile.
        let mut run = run;
        for _ in 0..round {
            tokio::select! {
                biased;
                ended = &mut run => panic!("it ended: {ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(run);
        wait_until("all handlers to be gone", PATIENCE, || async {
            alive.count() == before
        })
        .await
        .unwrap();
    }
    let run = Run::start(worker(&seawall), handler());
    bench.emptied().await;
    run.stop().await;
    let counts = executed.counts();
    assert_eq!(counts.len(), jobs as usize, "jobs that were executed");
}

#[tokio::test]
async fn a_failure_longer_than_a_record_may_be_ends_its_job_all_the_same() {
    let bench = Bench::new().await;
    let builder = bench.builder();
    let seawall = connected(builder.spool(|spool| spool.with_max_record_bytes(1_500))).await;
    let run = Run::start(seawall.worker("q"), |job: Delivery| async move {
        let message = "x".repeat(2_000);
        match job.attempt() {
            1 => Err::<(), _>(Failure::new("long", message).retry_after(Duration::ZERO)),
            _ => Err(Failure::new("long", message).permanently()),
        }
    });
    enqueue(&seawall, "job").await;
    wait_until("a dead letter", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!(
        (report.retried, report.dead, report.completions_lost),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_queue_may_have_any_name() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let longest = "n".repeat(1024);
    for name in [
        "{",
        "}",
        "{}",
        "a}b",
        "{a",
        "}{",
        "a{b}c",
        ":",
        "ü 日本",
        "\0",
        "*",
        "[a]",
        "\\",
        "wake",
        &longest,
    ] {
        let executed = Executed::default();
        let run = Run::start(seawall.worker(name).weight(2), faulty(&executed));
        let other = format!("{name}2");
        let other = &other[..other.len().min(1024)];
        let neighbour = (other != name).then(|| seawall.worker(other));
        let neighbour = neighbour.map(|worker| Run::start(worker, faulty(&executed)));
        for number in 0..3 {
            let job = Job::new(name, number.to_string()).for_worker();
            let _ = seawall.enqueue(job).await.unwrap();
        }
        executed.reach(3).await;
        let report = run.stop().await;
        assert_eq!(
            (report.succeeded, report.completions_lost),
            (3, 0),
            "{name:?}"
        );
        if let Some(neighbour) = neighbour {
            assert_eq!(neighbour.stop().await.started, 0, "{name:?}");
        }
    }
    let keys: Vec<String> = bench.ask(&["KEYS", "seawall:*:jobs"]).await;
    assert_eq!(keys, [""; 0], "jobs are left");
}

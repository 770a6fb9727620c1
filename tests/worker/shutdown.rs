//! How a worker ends: in time, too late, while Redis is away, or in the middle of everything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::Registry;
use seawall::{
    chaos::wait_until,
    connect::ConnectOptions,
    worker::{Delivery, Failure, WorkerError},
};

use crate::support::{
    Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue, gauge, numbers, text,
};

#[tokio::test]
async fn handlers_may_finish_and_nothing_new_is_begun() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..6 {
        enqueue(&seawall, number).await;
    }
    let (noting, waiting) = (executed.clone(), gate.clone());
    let run = Run::start(seawall.worker("q").concurrency(2), move |job: Delivery| {
        let (executed, gate) = (noting.clone(), waiting.clone());
        async move {
            executed.note(text(job.payload()));
            gate.passed().await;
            Ok::<_, Failure>(())
        }
    });
    executed.reach(2).await;
    let (report, ()) = tokio::join!(run.stop(), async { gate.open() });
    assert_eq!((report.started, report.succeeded), (2, 2));
    assert_eq!(executed.len(), 2);
    assert_eq!(bench.places().await, [4, 4, 0, 0, 0]);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_given_back_to_the_front_and_does_not_count() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    for number in 0..4 {
        enqueue(&seawall, number).await;
    }
    let told = Executed::default();
    let (noting, telling) = (executed.clone(), told.clone());
    let worker = seawall.worker("q").concurrency(2);
    let run = Run::start(
        worker.shutdown_within(Duration::from_millis(20)),
        move |job: Delivery| {
            noting.note(text(job.payload()));
            let (cancellation, told) = (job.cancellation().clone(), telling.clone());
            tokio::spawn(async move {
                cancellation.cancelled().await;
                told.note("cancelled");
            });
            std::future::pending::<Result<(), Failure>>()
        },
    );
    executed.reach(2).await;
    let report = run.stop().await;
    told.reach(2).await;
    assert_eq!((report.started, report.released), (2, 2));
    assert_eq!(bench.places().await, [4, 4, 0, 0, 0]);
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q").concurrency(1), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            assert_eq!((job.attempt(), job.error()), (1, None));
            executed.note(text(job.payload()));
            Ok::<_, Failure>(())
        }
    });
    executed.reach(6).await;
    bench.emptied().await;
    run.stop().await;
    let mut again = executed.all().split_off(2);
    assert_eq!(again[2..], ["2", "3"], "those that were begun are in front");
    again.sort();
    assert_eq!(again, numbers(0..4));
    assert_eq!(bench.counted("released").await, 2);
}

#[tokio::test]
async fn a_worker_that_ends_while_redis_is_away_loses_nothing() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    enqueue(&seawall, "done").await;
    let (noting, waiting) = (executed.clone(), gate.clone());
    let run = Run::start(seawall.worker("q"), move |job: Delivery| {
        let (executed, gate) = (noting.clone(), waiting.clone());
        async move {
            executed.note(text(job.payload()));
            gate.passed().await;
            Ok::<_, Failure>(())
        }
    });
    executed.reach(1).await;
    bench.redis.kill().await.unwrap();
    gate.open();
    let report = run.stop().await;
    assert_eq!((report.completions_kept, report.completions_lost), (1, 0));
    let left = seawall.shutdown(Duration::from_millis(50)).await.unwrap();
    assert_eq!(left, 1);
    drop(seawall);
    // The next run of the program, which has no worker yet.
    let _seawall = bench.builder().connect().await.unwrap();
    bench.redis.restart().await.unwrap();
    bench.emptied().await;
    assert_eq!(bench.counted("succeeded").await, 1);
    assert_eq!(executed.len(), 1);
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_nothing_running() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let executed = Executed::default();
    let is_dropped = Arc::new(AtomicBool::new(false));
    enqueue(&seawall, "job").await;
    let (noting, flag) = (executed.clone(), is_dropped.clone());
    let run = Run::start(seawall.worker("q"), move |_: Delivery| {
        let (executed, dropped) = (noting.clone(), Dropped(flag.clone()));
        async move {
            executed.note("begun");
            std::future::pending::<()>().await;
            drop(dropped);
            Ok::<_, Failure>(())
        }
    });
    executed.reach(1).await;
    assert_eq!(gauge(&registry, "seawall_worker_in_flight"), 1.0);
    run.abort().await;
    assert_eq!(gauge(&registry, "seawall_worker_in_flight"), 0.0);
    wait_until("the handler to be dropped", PATIENCE, || async {
        is_dropped.load(Ordering::Acquire)
    })
    .await
    .unwrap();
    assert_eq!(
        bench.places().await,
        [1, 0, 0, 1, 0],
        "until the lease ends"
    );
}

#[tokio::test]
async fn a_worker_keeps_its_seawall_and_an_idle_one_ends_at_once() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q"), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(text(job.payload()));
            Ok::<_, Failure>(())
        }
    });
    enqueue(&seawall, "one").await;
    executed.reach(1).await;
    bench.emptied().await;
    drop(seawall);
    let dir = tempfile::tempdir().unwrap();
    let other = seawall::Seawall::builder(&bench.redis.url(), dir.path()).unwrap();
    let other = other.connect().await.unwrap();
    enqueue(&other, "two").await;
    executed.reach(2).await;
    bench.emptied().await;
    assert_eq!(run.stop().await.succeeded, 2);
}

#[tokio::test]
async fn a_worker_does_not_run_where_nothing_would_keep_what_it_finishes() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    enqueue(&seawall, "waits").await;
    seawall.shutdown(PATIENCE).await.unwrap();
    let executed = Executed::default();
    let seen = executed.clone();
    let run = seawall.worker("q").run(move |job: Delivery| {
        seen.note(text(job.payload()));
        async { Ok::<_, Failure>(()) }
    });
    assert!(matches!(run.await, Err(WorkerError::Closed)));
    assert_eq!(executed.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_never_comes_to_an_await_does_not_keep_its_worker() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let executed = Executed::default();
    enqueue(&seawall, "job").await;
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let (noting, goes) = (executed.clone(), Arc::new(Mutex::new(goes)));
    let worker = seawall.worker("q").shutdown_within(Duration::ZERO);
    let run = Run::start(worker, move |job: Delivery| {
        let (executed, goes) = (noting.clone(), goes.clone());
        async move {
            executed.note(text(job.payload()));
            // An error, when the test is over.
            let _ = goes.lock().recv();
            Ok::<_, Failure>(())
        }
    });
    executed.reach(1).await;
    let report = run.stop().await;
    assert_eq!((report.started, report.released), (1, 1));
    assert_eq!(bench.places().await, [1, 1, 0, 0, 0]);
    assert_eq!(gauge(&registry, "seawall_worker_in_flight"), 0.0);
    drop(go);
}

#[tokio::test]
async fn a_job_that_is_handed_out_while_the_worker_ends_is_given_back() {
    handed_out_at_the_end(false).await;
}

#[tokio::test]
async fn a_job_that_may_have_been_handed_out_while_the_worker_ends_is_given_back() {
    handed_out_at_the_end(true).await;
}

/// In a turn that is answered after the worker is told to end, or not at all, if the worker has `given_up`.
async fn handed_out_at_the_end(given_up: bool) {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let builder = bench.builder().metrics(&registry);
    let patient = |options: ConnectOptions| options.with_response_timeout(Duration::from_secs(5));
    let seawall = connected(builder.connection(patient)).await;
    let executed = Executed::default();
    let handler = || {
        let executed = executed.clone();
        move |job: Delivery| {
            executed.note(text(job.payload()));
            async { Ok::<_, Failure>(()) }
        }
    };
    // Redis has the script then, so that a turn is one call.
    enqueue(&seawall, "first").await;
    let run = Run::start(seawall.worker("q"), handler());
    executed.reach(1).await;
    run.stop().await;
    enqueue(&seawall, "job").await;
    let _: String = bench.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let worker = seawall.worker("q").lease(Duration::from_secs(1));
    let run = Run::start(worker, handler());
    wait_until("a turn to be on its way", PATIENCE, || async {
        let clients: String = bench.ask(&["INFO", "clients"]).await;
        !clients.contains("blocked_clients:0")
    })
    .await
    .unwrap();
    let lost = || {
        let of = |outcome| counter(&registry, "seawall_calls_total", &["worker_turn", outcome]);
        of("transient") + of("outage")
    };
    let stopping = tokio::spawn(run.stop());
    if given_up {
        wait_until("it to be given up", PATIENCE, || async { lost() > 0.0 })
            .await
            .unwrap();
    }
    let _: String = bench.ask(&["CLIENT", "UNPAUSE"]).await;
    let report = stopping.await.unwrap();
    assert_eq!((report.started, report.released), (0, 1));
    assert_eq!(bench.places().await, [1, 1, 0, 0, 0]);
    assert_eq!(executed.all(), ["first"]);
}

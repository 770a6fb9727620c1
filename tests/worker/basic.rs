//! Redis is fine: what handlers get, and what becomes of their jobs.

use std::{convert::Infallible, time::Duration};

use seawall::{
    Job,
    chaos::wait_until,
    job::{Destination, Handling, Retries},
    worker::{Delivery, Failure, Output},
};
use tower::{ServiceBuilder, service_fn, timeout::TimeoutLayer};

use crate::support::{Bench, Executed, Gate, PATIENCE, Run, enqueue, numbers, text};

#[tokio::test]
async fn with_one_slot_jobs_run_once_and_in_order() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    for number in 0..50 {
        enqueue(&seawall, number).await;
    }
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q").concurrency(1), move |job: Delivery| {
        let executed = noting.clone();
        async move {
            assert_eq!((job.attempt(), job.retries_left()), (1, 3));
            executed.note(text(job.payload()));
            Ok::<_, Failure>(())
        }
    });
    executed.reach(50).await;
    for number in 50..100 {
        enqueue(&seawall, number).await;
    }
    executed.reach(100).await;
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.all(), numbers(0..100));
    assert_eq!((report.started, report.succeeded), (100, 100));
    assert_eq!(bench.counted("succeeded").await, 100);
    let here: u64 = bench.ask(&["ZCARD", "seawall:{q}:workers"]).await;
    assert_eq!(here, 0, "it has said that it works no more");
}

#[tokio::test]
async fn many_slots_execute_every_job_once() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(text(job.payload()));
            Ok::<_, Infallible>(())
        }
    };
    let run = Run::start(seawall.worker("q").concurrency(64), handler);
    let jobs = (0..5_000).map(|n| Job::new("q", n.to_string()).for_worker());
    for receipt in seawall.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    executed.reach(5_000).await;
    bench.emptied().await;
    run.stop().await;
    let counts = executed.counts();
    assert_eq!(counts.len(), 5_000);
    assert!(counts.values().all(|count| *count == 1));
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sum {
    a: u32,
    b: u32,
}

#[tokio::test]
async fn a_typed_handler_gets_its_payload_and_its_result_is_kept() {
    async fn add(sum: Sum, _: Delivery) -> Result<u32, Failure> {
        Ok(sum.a + sum.b)
    }
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let handling = Handling::new().with_result_ttl(Duration::from_secs(60));
    let job = Job::json("q", &Sum { a: 3, b: 4 }).unwrap();
    let _ = seawall
        .enqueue(job.with_destination(Destination::worker(handling)))
        .await
        .unwrap();
    let unreadable = Job::new("q", r#"{"a":"s3cret"}"#).for_worker();
    let _ = seawall.enqueue(unreadable).await.unwrap();
    let run = Run::start(seawall.worker("q"), add);
    wait_until("both to end", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let results: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:results"]).await;
    assert_eq!(results, ["s7"]);
    let failures: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:failures"]).await;
    assert!(failures[0].contains("invalid_payload"), "{failures:?}");
    assert!(!failures[0].contains("s3cret"), "{failures:?}");
    assert_eq!(run.stop().await.dead, 1);
}

#[tokio::test]
async fn tower_layers_wrap_a_handler() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = ServiceBuilder::new()
        .concurrency_limit(1)
        .map_err(Failure::from)
        .service(service_fn(move |job: Delivery| {
            let executed = noting.clone();
            async move {
                executed.note(format!("begin {}", text(job.payload())));
                tokio::task::yield_now().await;
                executed.note(format!("end {}", text(job.payload())));
                Ok::<_, Infallible>(Output::from("done".to_owned()))
            }
        }));
    let run = Run::start(seawall.worker("q").concurrency(8), handler);
    for number in 0..20 {
        enqueue(&seawall, number).await;
    }
    executed.reach(40).await;
    bench.emptied().await;
    run.stop().await;
    for pair in executed.all().chunks(2) {
        assert_eq!(pair[0].replace("begin", "end"), pair[1]);
    }
}

#[tokio::test]
async fn the_errors_of_layers_and_services_keep_their_types() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    // The layer boxes errors: its own, and the failure in it.
    let handler = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_millis(50)))
        .service(service_fn(|job: Delivery| async move {
            match &*text(job.payload()) {
                "hangs" => std::future::pending().await,
                _ => Err::<(), _>(Failure::new("own", "of the handler")),
            }
        }));
    let worker = seawall.worker("q").retries(Retries::none());
    let run = Run::start(worker, handler);
    enqueue(&seawall, "hangs").await;
    enqueue(&seawall, "fails").await;
    wait_until("two dead letters", PATIENCE, || async {
        bench.places().await == [2, 0, 0, 0, 2]
    })
    .await
    .unwrap();
    run.stop().await;
    let failures: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:failures"]).await;
    let failures = failures.join("\n");
    assert!(failures.contains("\"own\""), "{failures}");
    assert!(failures.contains("timed out"), "{failures}");
}

#[tokio::test]
async fn a_retry_waits_in_redis_and_not_in_a_slot() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            let payload = text(job.payload());
            executed.note(format!("{payload} {}", job.attempt()));
            match (&*payload, job.attempt()) {
                ("fails", 1..=2) => Err(Failure::new("flaky", "try again")),
                ("fails", attempt) => {
                    let error = job.error().unwrap();
                    assert_eq!((error.error_type(), attempt), ("flaky", 3));
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    };
    let retries = Retries::fixed(Duration::from_millis(600)).with_jitter(0.0);
    let worker = seawall.worker("q").concurrency(1).retries(retries);
    let run = Run::start(worker, handler);
    enqueue(&seawall, "fails").await;
    executed.reach(1).await;
    wait_until("the retry to wait", PATIENCE, || async {
        bench.places().await == [1, 0, 1, 0, 0]
    })
    .await
    .unwrap();
    enqueue(&seawall, "other").await;
    executed.reach(4).await;
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.all(), ["fails 1", "other 1", "fails 2", "fails 3"]);
    assert_eq!((report.retried, report.succeeded), (2, 2));
}

#[tokio::test]
async fn panics_and_timeouts_are_failures_that_are_recorded() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let handler = |job: Delivery| async move {
        match &*text(job.payload()) {
            "panics" => panic!("no good: {}", 7),
            "hangs" => std::future::pending::<()>().await,
            _ => {}
        }
        Ok::<_, Failure>(())
    };
    let worker = seawall.worker("q").retries(Retries::none());
    let run = Run::start(worker.timeout(Duration::from_millis(50)), handler);
    for payload in ["panics", "hangs", "is fine"] {
        enqueue(&seawall, payload).await;
    }
    wait_until("two dead letters", PATIENCE, || async {
        bench.places().await == [2, 0, 0, 0, 2]
    })
    .await
    .unwrap();
    let failures: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:failures"]).await;
    let failures = failures.join("\n");
    assert!(failures.contains("\"panic\"") && failures.contains("no good: 7"));
    assert!(failures.contains("\"timeout\""));
    let report = run.stop().await;
    assert_eq!((report.dead, report.succeeded), (2, 1));
}

#[tokio::test]
async fn scheduled_jobs_start_when_they_are_due_and_expired_ones_do_not() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(text(job.payload()));
            Ok::<_, Failure>(())
        }
    };
    let job = |payload: &'static str| Job::new("q", payload).for_worker();
    let ms = Duration::from_millis;
    let began = tokio::time::Instant::now();
    let _ = seawall
        .enqueue(job("late").delayed(ms(2_000)))
        .await
        .unwrap();
    let expiring = job("never").delayed(ms(100)).expires_in(ms(50));
    let _ = seawall.enqueue(expiring).await.unwrap();
    let run = Run::start(seawall.worker("q"), handler);
    // A worker that sleeps until one is due hears of one that is due before.
    let _ = seawall.enqueue(job("soon").delayed(ms(200))).await.unwrap();
    executed.reach(2).await;
    assert!(began.elapsed() >= ms(2_000));
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.all(), ["soon", "late"]);
    assert_eq!((report.expired, report.started), (1, 2));
    assert_eq!(bench.counted("expired").await, 1);
}

/// Nobody but its own timer wakes the worker then.
#[tokio::test]
async fn one_scheduled_job_after_the_other_starts_when_it_is_due() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let noting = executed.clone();
    let run = Run::start(seawall.worker("q"), move |job: Delivery| {
        noting.note(text(job.payload()));
        async { Ok::<_, Failure>(()) }
    });
    let all = async {
        for number in 0..12 {
            let job = Job::new("q", number.to_string()).for_worker();
            let job = job.delayed(Duration::from_millis(100));
            let _ = seawall.enqueue(job).await.unwrap();
            executed.reach(number + 1).await;
        }
    };
    // Woken once in a while, it would take three times as long.
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    bench.emptied().await;
    run.stop().await;
    assert_eq!(executed.all(), numbers(0..12));
}

#[tokio::test]
async fn several_queues_share_the_slots_by_their_weights() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    for queue in ["q", "r"] {
        let jobs = (0..400).map(|_| Job::new(queue, queue).for_worker());
        for receipt in seawall.enqueue_all(jobs).await {
            let _ = receipt.unwrap();
        }
    }
    let executed = Executed::default();
    let noting = executed.clone();
    let handler = move |job: Delivery| {
        let executed = noting.clone();
        async move {
            executed.note(job.queue());
            Ok::<_, Failure>(())
        }
    };
    let worker = seawall.worker("q").weight(3).queue("r", 1).concurrency(8);
    let run = Run::start(worker, handler);
    executed.reach(800).await;
    run.stop().await;
    // While both have jobs.
    let of_q = executed.all()[..400].iter().filter(|it| *it == "q").count();
    assert!((250..=350).contains(&of_q), "{of_q}");
}

#[tokio::test]
async fn with_one_slot_no_queue_waits_until_another_is_empty() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    for queue in ["q", "r"] {
        let jobs = (0..40).map(|_| Job::new(queue, queue).for_worker());
        for receipt in seawall.enqueue_all(jobs).await {
            let _ = receipt.unwrap();
        }
    }
    let executed = Executed::default();
    let noting = executed.clone();
    let worker = seawall.worker("q").queue("r", 1).concurrency(1);
    let run = Run::start(worker, move |job: Delivery| {
        noting.note(job.queue());
        async { Ok::<_, Failure>(()) }
    });
    executed.reach(80).await;
    run.stop().await;
    let of_q = executed.all()[..40].iter().filter(|it| *it == "q").count();
    assert!((10..=30).contains(&of_q), "{of_q}");
}

#[tokio::test]
async fn a_result_that_is_too_large_is_not_kept_and_its_job_has_succeeded() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let worker = seawall.worker("q").result_ttl(Duration::from_secs(60));
    let run = Run::start(worker, |job: Delivery| async move {
        let bytes: usize = text(job.payload()).parse().unwrap();
        Ok::<_, Failure>("x".repeat(bytes))
    });
    for bytes in [3, 100_000] {
        enqueue(&seawall, bytes).await;
    }
    bench.emptied().await;
    assert_eq!(run.stop().await.succeeded, 2);
    let mut results: Vec<String> = bench.ask(&["HVALS", "seawall:{q}:results"]).await;
    results.sort();
    assert_eq!(results, ["s", "s\"xxx\""]);
}

#[tokio::test]
async fn a_queue_that_was_idle_does_not_get_all_slots_to_make_up_for_it() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let (noting, waiting) = (executed.clone(), gate.clone());
    let worker = seawall.worker("q").queue("r", 1).concurrency(8);
    let run = Run::start(worker, move |job: Delivery| {
        let (executed, gate) = (noting.clone(), waiting.clone());
        async move {
            executed.note(job.queue());
            if &job.payload()[..] == b"waits" {
                gate.passed().await;
            }
            Ok::<_, Failure>(())
        }
    });
    let enqueue = async |queue: &'static str, payload: &'static str, count: usize| {
        let jobs = (0..count).map(|_| Job::new(queue, payload).for_worker());
        for receipt in seawall.enqueue_all(jobs).await {
            let _ = receipt.unwrap();
        }
    };
    enqueue("q", "", 400).await;
    executed.reach(400).await;
    enqueue("q", "waits", 8).await;
    executed.reach(408).await;
    enqueue("q", "", 400).await;
    enqueue("r", "", 400).await;
    gate.open();
    executed.reach(1208).await;
    run.stop().await;
    // While both have jobs.
    let both = &executed.all()[408..808];
    let of_q = both.iter().filter(|it| *it == "q").count();
    assert!((100..=300).contains(&of_q), "{of_q}");
}

#[tokio::test]
async fn a_handler_that_gives_up_or_discards_is_obeyed() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let handler = |job: Delivery| async move {
        let failure = Failure::new("known", "as it said");
        Err::<(), _>(match &*text(job.payload()) {
            "discard" => failure.discard(),
            _ => failure.permanently(),
        })
    };
    let run = Run::start(seawall.worker("q"), handler);
    enqueue(&seawall, "discard").await;
    enqueue(&seawall, "permanently").await;
    wait_until("both to end", PATIENCE, || async {
        bench.places().await == [1, 0, 0, 0, 1]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.started, report.dead, report.discarded), (2, 1, 1));
}

#[tokio::test]
async fn absurd_settings_are_refused_before_anything_is_fetched() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    enqueue(&seawall, "waits").await;
    let handler = |_: Delivery| async { Ok::<_, Failure>(()) };
    let worker = || seawall.worker("q");
    for (absurd, named) in [
        (worker().concurrency(0), "concurrency"),
        (worker().concurrency(5_000), "concurrency"),
        (worker().weight(0), "weight"),
        (worker().queue("q", 1), "queue"),
        (worker().lease(Duration::from_millis(5)), "lease"),
        (worker().timeout(Duration::ZERO), "timeout"),
        (worker().poison_after(0), "poison_after"),
        (worker().dead_letters(0), "dead_letters"),
        (worker().retries(Retries::fixed(Duration::MAX)), "delay"),
    ] {
        let error = absurd.run(handler).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(named), "{source}");
    }
    assert_eq!(bench.places().await, [1, 1, 0, 0, 0]);
}

//! Jobs that are fetched before there is a slot for them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use seawall::{chaos::wait_until, worker::Failure};
use tokio::sync::Semaphore;

use crate::support::{Bench, Executed, PATIENCE, Run, enqueue};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fetched_jobs_are_executed_in_their_order_and_never_more_than_there_are_slots() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    for number in 0..300 {
        enqueue(&seawall, number).await;
    }
    let (executed, at_once) = (Executed::default(), Arc::new(AtomicUsize::new(0)));
    let worker = seawall.worker("q").concurrency(1).prefetch(50);
    let run = Run::start(worker, {
        let executed = executed.clone();
        move |number: u64, _| {
            let (executed, at_once) = (executed.clone(), at_once.clone());
            async move {
                assert_eq!(at_once.fetch_add(1, Relaxed), 0, "two at once");
                tokio::task::yield_now().await;
                executed.note(number);
                at_once.fetch_sub(1, Relaxed);
                Ok::<_, Failure>(())
            }
        }
    });
    bench.emptied().await;
    run.stop().await;
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(executed.all(), expected);
}

#[tokio::test]
async fn jobs_that_wait_for_a_slot_are_given_back_at_the_end_and_their_attempt_does_not_count() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    for number in 0..8 {
        enqueue(&seawall, number).await;
    }
    let go = Arc::new(Semaphore::new(0));
    let executed = Executed::default();
    let handler = {
        let (go, executed) = (go.clone(), executed.clone());
        move |number: u64, delivery: seawall::worker::Delivery| {
            let (go, executed) = (go.clone(), executed.clone());
            async move {
                go.acquire().await?.forget();
                executed.note(format!("{number}, attempt {}", delivery.attempt()));
                Ok::<_, Failure>(())
            }
        }
    };
    let worker = seawall.worker("q").concurrency(1).prefetch(5);
    let run = Run::start(worker, handler.clone());
    wait_until("all to be fetched that may be", PATIENCE, || async {
        bench.places().await == [8, 2, 0, 6, 0]
    })
    .await
    .unwrap();
    let stopping = tokio::spawn(run.stop());
    wait_until("those that wait to be given back", PATIENCE, || async {
        bench.places().await == [8, 7, 0, 1, 0]
    })
    .await
    .unwrap();
    go.add_permits(1);
    let report = stopping.await.unwrap();
    assert_eq!((report.succeeded, report.released), (1, 5));

    go.add_permits(7);
    let run = Run::start(seawall.worker("q"), handler);
    bench.emptied().await;
    run.stop().await;
    let mut all = executed.all();
    all.sort();
    let expected: Vec<String> = (0..8)
        .map(|number| format!("{number}, attempt 1"))
        .collect();
    assert_eq!(all, expected);
}

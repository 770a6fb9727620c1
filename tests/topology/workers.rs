//! A worker works its queue at every target, and ends each job where it came from.

use std::sync::Arc;

use parking_lot::Mutex;
use seawall::{
    Job, Seawall,
    worker::{Delivery, Failure},
};
use tokio::sync::{oneshot, watch};

use crate::support::{Pair, active, drained, until, until_active};

async fn enqueue(seawall: &Seawall, number: u32) {
    let payload = format!("{} {number}", active(seawall));
    let _ = seawall
        .enqueue(Job::new("q", payload).for_worker())
        .await
        .unwrap();
}

async fn left(seawall: &Seawall, target: &str) -> u64 {
    let queue = seawall.target(target).unwrap().queue("q");
    let stat = queue.stat().await.unwrap();
    stat.ready + stat.running + stat.dead
}

#[tokio::test]
async fn a_job_that_ends_while_its_target_is_out_is_ended_there_and_not_executed_again() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    let (executed, gate) = (Arc::new(Mutex::new(Vec::new())), watch::Sender::new(false));
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = seawall.worker("q").shutdown_on(stopped);
    let (seen, opened) = (executed.clone(), gate.subscribe());
    let run = tokio::spawn(async move {
        worker
            .run(move |job: Delivery| {
                let payload = String::from_utf8(job.payload().to_vec()).unwrap();
                let mut opened = opened.clone();
                seen.lock().push(payload.clone());
                async move {
                    // Those of the first target take until it is out.
                    if payload.starts_with('a') {
                        opened.wait_for(|open| *open).await.unwrap();
                    }
                    Ok::<_, Failure>(())
                }
            })
            .await
    });
    for number in 0..5 {
        enqueue(&seawall, number).await;
    }
    until("the first jobs", || executed.lock().len() == 5).await;
    pair.a.kill().await.unwrap();
    until_active(&seawall, "b").await;
    gate.send_replace(true);
    for number in 0..5 {
        enqueue(&seawall, number).await;
    }
    until("the jobs of the other", || executed.lock().len() == 10).await;
    until("completions on disk", || {
        seawall.target("a").unwrap().spool().stats().records == 5
    })
    .await;
    pair.a.restart().await.unwrap();
    until_active(&seawall, "a").await;
    enqueue(&seawall, 5).await;
    until("a job after the outage", || executed.lock().len() == 11).await;
    stop.send(()).unwrap();
    let report = run.await.unwrap().unwrap();
    drained(&seawall).await;
    assert_eq!((report.succeeded, report.completions_kept), (11, 5));
    assert_eq!(
        (left(&seawall, "a").await, left(&seawall, "b").await),
        (0, 0)
    );
    let mut executed = executed.lock().clone();
    executed.sort();
    let mut wanted: Vec<_> = (0..5).map(|number| format!("b {number}")).collect();
    wanted.extend((0..6).map(|number| format!("a {number}")));
    wanted.sort();
    assert_eq!(executed, wanted);
}

//! A Redis that is there and refuses: full, not allowed to write, or asked for what it is not allowed to do.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    Seawall,
    chaos::wait_until,
    job::Retries,
    worker::{Builder, Delivery, Failure},
};

use crate::support::{Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue};

const LEASE: Duration = Duration::from_secs(1);

fn worker(seawall: &Seawall) -> Builder {
    let retries = Retries::fixed(Duration::ZERO).with_jitter(0.0);
    let worker = seawall.worker("q").concurrency(1);
    worker.lease(LEASE).retries(retries)
}

/// Who has a lease, by Redis's own clock.
async fn alive(bench: &Bench) -> u64 {
    let time: (u64, u64) = bench.ask(&["TIME"]).await;
    let now = (time.0 * 1000 + time.1 / 1000).to_string();
    bench
        .ask(&["ZCOUNT", "seawall:{q}:workers", &now, "+inf"])
        .await
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
    let handler = || {
        let (executed, gate) = (executed.clone(), gate.clone());
        move |job: Delivery| {
            let (executed, gate) = (executed.clone(), gate.clone());
            async move {
                executed.note(job.attempt());
                gate.passed().await;
                Ok::<_, Failure>(())
            }
        }
    };
    let runs = [(); 3].map(|()| Run::start(worker(&seawall), handler()));
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
        alive(&bench).await == 0
    })
    .await
    .unwrap();
    let _: String = bench.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let before = renewals();
    wait_until("leases to pass", PATIENCE, || async {
        renewals() > before + 30.0
    })
    .await
    .unwrap();
    assert_eq!(alive(&bench).await, 3);
    gate.open();
    bench.emptied().await;
    for run in runs {
        let report = run.stop().await;
        assert_eq!((report.claimed, report.lost, report.started), (0, 0, 1));
    }
    assert_eq!(executed.all(), ["1", "1", "1"]);
}

//! Which target is used when, and that no job changes sides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use seawall::{RedisCall, Seawall, stack::Topology};

use crate::support::{PLENTY, Pair, active, drained, list, until, until_active, waiting};

/// Which server a call gets to, by a key that only one of them has.
async fn who_answers(seawall: &Seawall) -> Option<String> {
    let call = RedisCall::new("who", redis::cmd("GET").arg("who"));
    seawall.call(call).await.ok()?.decode().unwrap()
}

async fn name_them(pair: &Pair) {
    for (name, redis) in [("a", &pair.a), ("b", &pair.b)] {
        let set = redis::cmd("SET").arg("who").arg(name).to_owned();
        redis.command::<()>(&set).await.unwrap();
    }
}

#[tokio::test]
async fn the_standby_takes_over_and_what_waits_for_the_primary_goes_to_the_primary_alone() {
    let mut pair = Pair::new().await;
    name_them(&pair).await;
    let seawall = pair.seawall().await;
    let receipts = pair.hand_in_many(&seawall, 100).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    assert_eq!(who_answers(&seawall).await.as_deref(), Some("a"));

    pair.a.kill().await.unwrap();
    let receipts = pair.hand_in_many(&seawall, 100).await;
    assert!(receipts.iter().all(|receipt| receipt.is_spooled()));
    until_active(&seawall, "b").await;
    let receipts = pair.hand_in_many(&seawall, 100).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    assert_eq!(who_answers(&seawall).await.as_deref(), Some("b"));
    assert_eq!(waiting(&seawall, "a"), 100, "they stay");
    assert_eq!(waiting(&seawall, "b"), 0);
    assert_eq!(seawall.health().spool.records, 100, "the sum of both");
    assert!(seawall.health().up && seawall.readiness().is_ready());

    pair.a.restart().await.unwrap();
    until_active(&seawall, "a").await;
    drained(&seawall).await;
    assert_eq!(who_answers(&seawall).await.as_deref(), Some("a"));
    let receipts = pair.hand_in_many(&seawall, 100).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    assert_eq!(list(&pair.a).await.len(), 300);
    pair.judge().await;

    for (target, switches, is_active) in [("a", 1.0, 1.0), ("b", 1.0, 0.0)] {
        assert_eq!(
            pair.metric("seawall_target_switches_total", target),
            switches
        );
        assert_eq!(pair.metric("seawall_target_active", target), is_active);
    }
    assert_eq!(pair.metric("seawall_spool_replayed_total", "a"), 100.0);
    assert_eq!(pair.metric("seawall_spool_replayed_total", "b"), 0.0);
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
}

#[tokio::test]
async fn without_failback_the_standby_stays_in_use() {
    let mut pair = Pair::new().await;
    let seawall = pair.open(pair.topology().without_failback()).await;
    until_active(&seawall, "a").await;
    pair.a.kill().await.unwrap();
    until_active(&seawall, "b").await;
    pair.a.restart().await.unwrap();
    until("a", || seawall.target("a").unwrap().is_healthy()).await;
    let _ = pair.hand_in_many(&seawall, 10).await;
    // The other way round there is nothing to hold it back.
    pair.b.kill().await.unwrap();
    until_active(&seawall, "a").await;
    pair.b.restart().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 10).await;
    drained(&seawall).await;
    assert_eq!(list(&pair.b).await.len(), 10);
    pair.judge().await;
}

#[tokio::test]
async fn with_both_out_jobs_wait_for_the_active_one_until_one_is_back() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    pair.b.kill().await.unwrap();
    until("b out", || !seawall.target("b").unwrap().is_healthy()).await;
    pair.a.kill().await.unwrap();
    let receipts = pair.hand_in_many(&seawall, 50).await;
    assert!(receipts.iter().all(|receipt| receipt.is_spooled()));
    assert_eq!(
        (active(&seawall).as_str(), waiting(&seawall, "a")),
        ("a", 50)
    );
    pair.b.restart().await.unwrap();
    until_active(&seawall, "b").await;
    let _ = pair.hand_in_many(&seawall, 50).await;
    pair.a.restart().await.unwrap();
    drained(&seawall).await;
    pair.judge().await;
}

#[tokio::test]
async fn a_primary_that_is_down_at_the_start_is_left_for_the_standby() {
    let mut pair = Pair::new().await;
    pair.a.kill().await.unwrap();
    let seawall = pair.open(pair.topology()).await;
    assert_eq!(active(&seawall), "a");
    let _ = pair.hand_in_many(&seawall, 20).await;
    until_active(&seawall, "b").await;
    let _ = pair.hand_in_many(&seawall, 20).await;
    pair.a.restart().await.unwrap();
    drained(&seawall).await;
    pair.judge().await;
}

#[tokio::test]
async fn a_frozen_primary_is_left_and_what_is_in_doubt_there_is_not_doubled() {
    let pair = Pair::new().await;
    let seawall = pair.seawall().await;
    let _ = pair.hand_in_many(&seawall, 20).await;
    pair.a.freeze().await.unwrap();
    // Sent, and not answered: carried out once it thaws, and sent again from disk.
    let receipts = pair.hand_in_many(&seawall, 20).await;
    assert!(receipts.iter().all(|receipt| receipt.is_spooled()));
    until_active(&seawall, "b").await;
    let _ = pair.hand_in_many(&seawall, 20).await;
    pair.a.thaw().unwrap();
    until_active(&seawall, "a").await;
    drained(&seawall).await;
    pair.judge().await;
}

#[tokio::test]
async fn a_primary_that_comes_and_goes_under_load_costs_and_doubles_nothing() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    let done = AtomicBool::new(false);
    let load = async |pair: &Pair, done: &AtomicBool| {
        while !done.load(Ordering::Relaxed) {
            let _ = pair.hand_in_many(&seawall, 16).await;
        }
    };
    for round in 0..5 {
        done.store(false, Ordering::Relaxed);
        pair.a.kill().await.unwrap();
        let wait = async {
            until_active(&seawall, "b").await;
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(load(&pair, &done), wait);
        pair.a.restart().await.unwrap();
        done.store(false, Ordering::Relaxed);
        let wait = async {
            until_active(&seawall, "a").await;
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(load(&pair, &done), wait);
        assert!(pair.metric("seawall_target_switches_total", "a") >= f64::from(round + 1));
    }
    drained(&seawall).await;
    pair.judge().await;
}

#[tokio::test]
async fn an_operator_moves_calls_away_by_forcing_the_breaker_open() {
    let pair = Pair::new().await;
    let seawall = pair.seawall().await;
    seawall.target("a").unwrap().breaker().force_open();
    until_active(&seawall, "b").await;
    let receipts = pair.hand_in_many(&seawall, 5).await;
    assert!(receipts.iter().all(|receipt| receipt.is_delivered()));
    seawall.target("a").unwrap().breaker().reset();
    until_active(&seawall, "a").await;
    pair.judge().await;
}

/// The breaker of a target without calls would stay open for ever.
#[tokio::test]
async fn a_target_whose_breaker_opened_is_found_to_be_healthy_again_without_any_calls() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    pair.a.kill().await.unwrap();
    while seawall.health().outage_since.is_none() {
        let _ = who_answers(&seawall).await;
    }
    until_active(&seawall, "b").await;
    pair.a.restart().await.unwrap();
    until_active(&seawall, "a").await;
    assert!(seawall.health().outage_since.is_none());
}

#[tokio::test]
async fn a_check_of_the_users_own_counts_too() {
    let pair = Pair::new().await;
    let open = Arc::new(AtomicBool::new(true));
    let (asked, interval) = (open.clone(), Duration::from_millis(20));
    let port = pair.a.addr().port();
    let topology = pair
        .topology()
        .with_check(interval, PLENTY, move |connection| {
            let asked = asked.clone();
            async move {
                let is_a = format!("{connection:?}").contains(&port.to_string());
                !is_a || asked.load(Ordering::Relaxed)
            }
        });
    let seawall = pair.open(topology).await;
    until("both", || {
        seawall.targets().all(|target| target.is_healthy())
    })
    .await;
    open.store(false, Ordering::Relaxed);
    until_active(&seawall, "b").await;
    open.store(true, Ordering::Relaxed);
    until_active(&seawall, "a").await;
}

/// Nothing goes anywhere unless it is asked for.
#[tokio::test]
async fn a_single_deployment_has_one_target_and_no_task_or_metric_for_it() {
    let pair = Pair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let builder = Seawall::builder(Topology::single(pair.a.url()), dir.path()).unwrap();
    let seawall = builder.metrics(&pair.registry).connect().await.unwrap();
    until("a connection", || seawall.health().up).await;
    let targets: Vec<_> = seawall.targets().collect();
    assert_eq!(targets.len(), 1);
    assert!(targets[0].is_active() && targets[0].is_healthy());
    let families = pair.registry.gather();
    assert!(
        !families
            .iter()
            .any(|family| family.name().contains("target"))
    );
    let labels = families.iter().flat_map(|family| family.get_metric());
    let mut labels = labels.flat_map(|metric| metric.get_label());
    assert!(!labels.any(|label| label.name() == "target"));
}

//! What was spooled for one target and is given to another, since somebody has asked for it.

use std::time::Duration;

use seawall::{
    Job, Seawall, error::ErrorKind, job::Destination, sequence::Command, spool::Overflow,
};

use crate::support::{PLENTY, Pair, drained, jobs, list, until, until_active, waiting};

/// With `count` jobs waiting for `a`, which is out, and `b` in use.
async fn failed_over(pair: &mut Pair, count: usize) -> Seawall {
    let seawall = pair.seawall().await;
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, count).await;
    until_active(&seawall, "b").await;
    assert_eq!(waiting(&seawall, "a"), count as u64);
    seawall
}

async fn moved(seawall: &Seawall) -> Result<u64, seawall::Error> {
    let moved = tokio::time::timeout(PLENTY, seawall.move_spooled("a", "b")).await;
    moved.expect("it ends")
}

#[tokio::test]
async fn what_is_moved_is_in_the_other_target_in_order_and_the_lane_it_left_goes_on() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    for job in jobs("before", 1..=5) {
        assert!(
            seawall
                .enqueue(Job::new("q", job))
                .await
                .unwrap()
                .is_delivered()
        );
    }
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 3_000).await;
    until_active(&seawall, "b").await;
    assert!(
        seawall
            .enqueue(Job::new("q", "b-1"))
            .await
            .unwrap()
            .is_delivered()
    );
    assert_eq!(moved(&seawall).await.unwrap(), 3_000);
    assert_eq!(waiting(&seawall, "a"), 0);
    let mut expected = vec!["b-1".to_owned()];
    expected.extend(jobs("a", 1..=3_000));
    assert_eq!(list(&pair.b).await, expected);
    assert_eq!(pair.metric("seawall_spool_moved_total", "a"), 3_000.0);
    assert_eq!(pair.metric("seawall_spool_replayed_total", "a"), 0.0);

    // Redis at `a` never had these numbers, and that is no loss.
    pair.a.restart().await.unwrap();
    until_active(&seawall, "a").await;
    for job in jobs("after", 1..=5) {
        assert!(
            seawall
                .enqueue(Job::new("q", job))
                .await
                .unwrap()
                .is_delivered()
        );
    }
    let mut expected = jobs("before", 1..=5);
    expected.extend(jobs("after", 1..=5));
    assert_eq!(list(&pair.a).await, expected);
    assert_eq!(pair.metric("seawall_lost_by_redis_total", "a"), 0.0);
    // Nor is anything of it left on disk.
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    let seawall = pair.open(pair.topology()).await;
    drained(&seawall).await;
    assert_eq!(list(&pair.a).await.len(), 10);
    assert_eq!(list(&pair.b).await.len(), 3_001);
}

#[tokio::test]
async fn what_an_earlier_run_left_can_be_moved_as_well() {
    let mut pair = Pair::new().await;
    let seawall = failed_over(&mut pair, 200).await;
    assert_eq!(seawall.shutdown(Duration::ZERO).await.unwrap(), 200);
    drop(seawall);
    let seawall = pair.open(pair.topology()).await;
    until_active(&seawall, "b").await;
    assert_eq!(moved(&seawall).await.unwrap(), 200);
    assert_eq!(list(&pair.b).await, jobs("a", 1..=200));
}

#[tokio::test]
async fn with_the_other_target_out_as_well_they_wait_there() {
    let mut pair = Pair::new().await;
    let seawall = failed_over(&mut pair, 100).await;
    pair.b.kill().await.unwrap();
    assert_eq!(moved(&seawall).await.unwrap(), 100);
    assert_eq!((waiting(&seawall, "a"), waiting(&seawall, "b")), (0, 100));
    // Nobody waits for `a` any more.
    pair.a.restart().await.unwrap();
    pair.b.restart().await.unwrap();
    drained(&seawall).await;
    assert_eq!(list(&pair.a).await, [""; 0]);
    assert_eq!(list(&pair.b).await, jobs("a", 1..=100));
}

/// After each reconnect Redis is asked what it still has, before anything else goes there. One that does not
/// answer that must not hold up what is not for it.
#[tokio::test]
async fn what_is_moved_does_not_wait_for_the_target_it_leaves() {
    let pair = Pair::new().await;
    let seawall = pair.seawall().await;
    for job in jobs("before", 1..=5) {
        assert!(
            seawall
                .enqueue(Job::new("q", job))
                .await
                .unwrap()
                .is_delivered()
        );
    }
    let mute = redis::cmd("ACL")
        .arg("SETUSER")
        .arg("default")
        .arg("-get")
        .to_owned();
    pair.a.command::<()>(&mute).await.unwrap();
    let cut = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .to_owned();
    let _ = pair.a.command::<u64>(&cut).await.unwrap();
    let blocked = || pair.lanes("a", "blocked") == 1.0;
    until("a refusal", blocked).await;
    assert!(
        seawall.target("a").unwrap().is_healthy(),
        "it only refuses to say"
    );
    let _ = pair.hand_in_many(&seawall, 20).await;
    assert_eq!(waiting(&seawall, "a"), 20);
    seawall.target("a").unwrap().breaker().force_open();
    until_active(&seawall, "b").await;
    assert_eq!(moved(&seawall).await.unwrap(), 20);
    assert_eq!(list(&pair.b).await, jobs("a", 1..=20));
}

#[tokio::test]
async fn what_the_other_target_has_no_room_for_stays_where_it_is() {
    let mut pair = Pair::new().await;
    let builder = pair.builder(pair.topology());
    let seawall = builder.spool(|options| options.with_max_records(100));
    let seawall = seawall.connect().await.unwrap();
    until("both", || {
        seawall.targets().all(|target| target.is_healthy())
    })
    .await;
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 80).await;
    until_active(&seawall, "b").await;
    pair.b.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 50).await;
    let refused = moved(&seawall).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SpoolFull, "{refused:?}");
    let (left, taken) = (waiting(&seawall, "a"), waiting(&seawall, "b"));
    assert_eq!((left, taken), (30, 100), "as many as there was room for");
    // Those that are left are for `a` again.
    pair.a.restart().await.unwrap();
    until("delivery", || waiting(&seawall, "a") == 0).await;
    assert_eq!(list(&pair.a).await, jobs("a", 51..=80));
    pair.b.restart().await.unwrap();
    drained(&seawall).await;
    let mut expected = jobs("b", 1..=50);
    expected.extend(jobs("a", 1..=50));
    assert_eq!(list(&pair.b).await, expected);
}

#[tokio::test]
async fn what_the_other_target_refuses_for_good_is_parked_where_it_was_and_doubles_no_other() {
    let mut pair = Pair::new().await;
    let seawall = pair.seawall().await;
    pair.a.kill().await.unwrap();
    let to = |key: &'static str, number: u32| {
        let push = Command::new("RPUSH").arg(key).arg(number.to_string());
        Job::new("mixed", "").with_destination(Destination::commands(vec![push]))
    };
    let jobs = [("q", 1), ("wrong", 2), ("q", 3), ("wrong", 4), ("q", 5)];
    for receipt in seawall
        .enqueue_all(jobs.map(|(key, number)| to(key, number)))
        .await
    {
        assert!(receipt.unwrap().is_spooled());
    }
    until_active(&seawall, "b").await;
    let set = redis::cmd("SET").arg("wrong").arg("no list").to_owned();
    pair.b.command::<()>(&set).await.unwrap();
    assert_eq!(moved(&seawall).await.unwrap(), 3);
    assert_eq!(list(&pair.b).await, ["1", "3", "5"]);
    let stats = seawall.target("a").unwrap().spool().stats();
    assert_eq!((stats.records, stats.parked), (0, 2));
}

#[tokio::test]
async fn what_the_other_target_would_drop_stays_where_it_is() {
    let mut pair = Pair::new().await;
    let builder = pair.builder(pair.topology());
    let seawall = builder.spool(|options| {
        options
            .with_max_records(100)
            .with_overflow(Overflow::DropNewest)
    });
    let seawall = seawall.connect().await.unwrap();
    until("both", || {
        seawall.targets().all(|target| target.is_healthy())
    })
    .await;
    pair.a.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 80).await;
    until_active(&seawall, "b").await;
    pair.b.kill().await.unwrap();
    let _ = pair.hand_in_many(&seawall, 50).await;
    let refused = moved(&seawall).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SpoolFull, "{refused:?}");
    assert_eq!((waiting(&seawall, "a"), waiting(&seawall, "b")), (30, 100));
}

#[tokio::test]
async fn a_move_that_makes_no_sense_is_refused() {
    let mut pair = Pair::new().await;
    let seawall = failed_over(&mut pair, 10).await;
    for (from, to, why) in [
        ("b", "a", "active"),
        ("a", "a", "the same"),
        ("a", "c", "no target"),
        ("c", "b", "no target"),
    ] {
        let refused = seawall.move_spooled(from, to).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        let text = std::error::Error::source(&refused).unwrap().to_string();
        assert!(text.contains(why), "{text}");
    }
    pair.a.restart().await.unwrap();
    drained(&seawall).await;
    pair.judge().await;
}

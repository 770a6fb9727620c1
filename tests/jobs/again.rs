//! Jobs that have the id of one before, outcomes that are no longer wanted, and a Redis that forbids a part of it.

use seawall::chaos::wait_until;
use std::time::Duration;

use crate::queue::{Queue, id, key, operation};

#[tokio::test]
async fn what_comes_late_of_an_execution_does_nothing_to_a_later_job_of_the_same_id() {
    let queue = Queue::new().await;
    for late in [
        operation("E", 1, &["1", "ann", "s", "9000000", "result"]),
        operation("R", 1, &["1", "ann", "0", "1 0"]),
        operation("D", 1, &["1", "ann", "4000000000000", "10", "1 0"]),
        operation("G", 1, &["1", "ann"]),
    ] {
        let _: String = queue.tell(&redis::cmd("FLUSHALL")).await;
        queue
            .apply(vec![operation("A", 1, &["new job 1", "0"])])
            .await;
        let before = queue.contents().await;
        queue.apply(vec![late]).await;
        assert_eq!(queue.contents().await, before);
        let listed: u64 = queue.tell(redis::cmd("LLEN").arg(key("ready"))).await;
        assert_eq!(listed, 1);
    }
}

#[tokio::test]
async fn what_comes_late_of_an_execution_counts_for_its_own_job() {
    let queue = Queue::new().await;
    queue
        .apply(vec![
            operation("A", 1, &["job 1", "0"]),
            operation("E", 1, &["1", "ann", "s", "0", ""]),
        ])
        .await;
    assert_eq!(queue.contents().await.jobs.len(), 0);
}

#[tokio::test]
async fn outcomes_go_as_fast_as_they_come() {
    let queue = Queue::new().await;
    let ended = |ids: std::ops::RangeInclusive<u8>, ttl: &str| {
        let one = |id| {
            let add = operation("A", id, &[&format!("job {id}"), "0"]);
            [add, operation("E", id, &["1", "ann", "s", ttl, "result"])]
        };
        ids.flat_map(one).collect::<Vec<_>>()
    };
    queue.apply(ended(1..=150, "1")).await;
    wait_until("them to be over", Duration::from_secs(10), || async {
        let time: (u64, u64) = queue.tell(&redis::cmd("TIME")).await;
        let now = time.0 * 1000 + time.1 / 1000;
        let mut left = redis::cmd("ZCOUNT");
        queue
            .tell::<u64>(left.arg(key("done")).arg(now).arg("+inf"))
            .await
            == 0
    })
    .await
    .unwrap();
    queue.apply(ended(151..=250, "9000000")).await;
    assert_eq!(queue.contents().await.results.len(), 100);
    let known: u64 = queue.tell(redis::cmd("ZCARD").arg(key("done"))).await;
    assert_eq!(known, 100);
}

#[tokio::test]
async fn what_is_forbidden_for_a_while_is_done_later_and_no_job_is_left_out() {
    for (forbidden, late, place) in [
        (
            "-zadd",
            operation("R", 1, &["1", "ann", "4000000000000", "1 0"]),
            "later",
        ),
        (
            "-rpush",
            operation("R", 1, &["1", "ann", "0", "1 0"]),
            "ready",
        ),
        (
            "-zadd",
            operation("D", 1, &["1", "ann", "4000000000000", "9", "1 0"]),
            "dead",
        ),
        (
            "-hset",
            operation("D", 1, &["1", "ann", "4000000000000", "9", "1 0"]),
            "dead",
        ),
        ("-lpush", operation("G", 1, &["1", "ann"]), "ready"),
    ] {
        let queue = Queue::new().await;
        queue.apply(vec![operation("A", 1, &["job 1", "0"])]).await;
        let _: u64 = queue.tell(redis::cmd("DEL").arg(key("ready"))).await;
        let mut start = redis::cmd("HSET");
        start.arg(key("running")).arg(&id(1).as_bytes()[..]);
        let _: u64 = queue.tell(start.arg("1 ann")).await;
        let allow = async |rule: &str| {
            let mut acl = redis::cmd("ACL");
            let _: () = queue
                .tell(acl.arg("SETUSER").arg("default").arg(rule))
                .await;
        };
        allow(forbidden).await;
        for receipt in queue.seawall.enqueue_all(vec![late]).await {
            let _ = receipt.unwrap();
        }
        allow(&forbidden.replace('-', "+")).await;
        queue.seawall.flush().await;
        let found = queue.contents().await;
        let places = [
            ("ready", found.ready.len()),
            ("later", found.later.len()),
            ("running", found.running.len()),
            ("dead", found.dead.len()),
        ];
        for (name, count) in places {
            assert_eq!(
                count,
                usize::from(name == place),
                "{name} after {forbidden}"
            );
        }
    }
}

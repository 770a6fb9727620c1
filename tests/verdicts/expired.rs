//! A job whose time has passed is not delivered late, and does not vanish either.

use std::time::{Duration, SystemTime};

use seawall::{Job, error::ErrorKind, job::Destination};

use crate::support::{Line, list, server};

fn job(number: u64, expired: bool, group: bool) -> Job {
    let now = SystemTime::now();
    let job = Job::new("q", number.to_string()).expires_at(if expired {
        now - Duration::from_secs(1)
    } else {
        now + Duration::from_secs(3600)
    });
    if group {
        job.with_destination(Destination::stream("q"))
    } else {
        job
    }
}

/// Every other of ten.
fn jobs(group: bool) -> Vec<Job> {
    (0..10)
        .map(|number| job(number, number % 2 == 1, group))
        .collect()
}

#[tokio::test]
async fn a_caller_that_waits_is_told_and_the_others_go() {
    for group in [false, true] {
        let redis = server().await;
        let line = Line::to(&redis.url()).await.connected().await;
        let answers = line.seawall.enqueue_all(jobs(group)).await;
        for (number, answer) in answers.iter().enumerate() {
            match answer {
                Ok(receipt) => assert!(number % 2 == 0 && receipt.is_delivered()),
                Err(error) => {
                    assert!(number % 2 == 1);
                    assert_eq!(error.kind(), ErrorKind::Expired);
                    assert!(!error.may_have_landed());
                }
            }
        }
        assert!(line.shows("seawall_expired_total{queue=\"q\"} 5"));
        assert!(line.shows("seawall_enqueued_total{queue=\"q\",receipt=\"refused\"} 5"));
        assert_eq!(length(&redis, group).await, 5);
    }
}

#[tokio::test]
async fn what_expires_on_disk_is_counted_and_the_others_go() {
    for group in [false, true] {
        let mut redis = server().await;
        let line = Line::to(&redis.url()).await.connected().await;
        redis.kill().await.unwrap();
        for answer in line.seawall.enqueue_all(jobs(group)).await {
            assert!(answer.expect("accepted").is_spooled());
        }
        redis.restart().await.unwrap();
        line.drained().await;
        line.comes_to_show("seawall_expired_total{queue=\"q\"} 5")
            .await;
        line.comes_to_show("seawall_spool_replayed_total{queue=\"q\"} 5")
            .await;
        assert_eq!(length(&redis, group).await, 5);
        assert_eq!(line.seawall.health().spool.parked, 0);
        if !group {
            assert_eq!(list(&redis, "q").await, ["0", "2", "4", "6", "8"]);
        }
    }
}

async fn length(redis: &seawall::chaos::RedisServer, group: bool) -> usize {
    let length = if group { "XLEN" } else { "LLEN" };
    redis.command(redis::cmd(length).arg("q")).await.unwrap()
}

//! Parked jobs: listed, sent again, deleted, and what happens when there is no room for more.

use std::{collections::BTreeSet, time::Duration};

use futures_util::FutureExt as _;
use seawall::{
    Error, Job, Seawall,
    chaos::{RedisServer, wait_until},
    error::ErrorKind,
    spool::{LaneId, ParkedFilter, ParkedId, Replay, SpoolOptions},
    stack::Builder,
};

use crate::support::{Line, PLENTY, list, numbers, server, tell};

/// Parks jobs with these numbers in their queues, whose keys have the wrong type.
async fn park(redis: &mut RedisServer, line: &Line, queues: &[(&'static str, u64)]) {
    for (queue, _) in queues {
        tell(redis, &format!("SET {queue} x")).await;
    }
    redis.kill().await.unwrap();
    for (queue, count) in queues {
        let jobs = (0..*count).map(|number| Job::new(*queue, number.to_string()));
        for receipt in line.seawall.enqueue_all(jobs).await {
            assert!(receipt.expect("accepted").is_spooled());
        }
    }
    redis.restart().await.unwrap();
    line.drained().await;
    let all: u64 = queues.iter().map(|(_, count)| count).sum();
    assert_eq!(books(&line.seawall).await, (0, all));
}

/// How many wait, and how many are parked, counted and really.
async fn books(seawall: &Seawall) -> (u64, u64) {
    let stats = seawall.health().spool;
    let listed = seawall.spool().parked(usize::MAX).await.unwrap();
    assert_eq!(stats.parked, listed.len() as u64);
    if stats.records + stats.parked == 0 {
        assert_eq!(stats.bytes, 0);
    }
    (stats.records, stats.parked)
}

#[tokio::test]
async fn parked_jobs_are_listed_in_pages_by_queue_and_one_by_one() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    park(&mut redis, &line, &[("one", 25), ("other", 7)]).await;
    let spool = line.seawall.spool();
    for (which, count) in [
        (ParkedFilter::all(), 32),
        (ParkedFilter::queue("one"), 25),
        (ParkedFilter::queue("other"), 7),
        (ParkedFilter::queue("none"), 0),
    ] {
        for limit in [1, 3, 100] {
            let (mut ids, mut after) = (BTreeSet::new(), None);
            loop {
                let page = spool.parked_page(&which, after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.id());
                for parked in &page {
                    assert!(ids.insert(parked.id()), "twice");
                }
            }
            assert_eq!(ids.len(), count, "{which:?}");
        }
    }
    let id = spool.parked(20).await.unwrap()[11].id();
    let read: ParkedId = id.to_string().parse().unwrap();
    let one = spool.parked_page(&read.into(), None, 10).await.unwrap();
    assert_eq!(one.iter().map(|one| one.id()).collect::<Vec<_>>(), [id]);
    let unknown = ParkedId::new(LaneId::fresh(), 1);
    let none = spool.parked_page(&unknown.into(), None, 10).await.unwrap();
    assert!(none.is_empty());
    assert_eq!(spool.unpark(unknown).await.unwrap(), 0);
    for text in ["", "/", "1", "x/1", &format!("{}/x", LaneId::fresh())] {
        assert!(text.parse::<ParkedId>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn jobs_sent_again_come_in_order_before_those_that_wait_and_only_those_meant() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    park(&mut redis, &line, &[("q", 10), ("other", 3)]).await;
    tell(&redis, "DEL q").await;
    let spool = line.seawall.spool();
    assert_eq!(spool.unpark(ParkedFilter::queue("q")).await.unwrap(), 10);
    line.drained().await;
    assert_eq!(list(&redis, "q").await, numbers(0..10));
    assert_eq!(books(&line.seawall).await, (0, 3));
    assert!(line.shows("seawall_spool_unparked_total{fate=\"resent\",queue=\"q\"} 10"));
    // Nothing is left in the way.
    let next = line.seawall.enqueue(Job::new("q", "10")).await.unwrap();
    assert!(next.is_delivered());

    tell(&redis, "DEL other").await;
    let second = spool.parked(3).await.unwrap()[1].id();
    assert_eq!(spool.unpark(second).await.unwrap(), 1);
    assert_eq!(spool.unpark(second).await.unwrap(), 0);
    line.drained().await;
    assert_eq!(list(&redis, "other").await, numbers(1..2));
    assert_eq!(spool.delete_parked(ParkedFilter::all()).await.unwrap(), 2);
    assert_eq!(books(&line.seawall).await, (0, 0));
    assert!(line.shows("seawall_spool_unparked_total{fate=\"deleted\",queue=\"other\"} 2"));
}

#[tokio::test]
async fn what_redis_refuses_again_is_parked_again_with_one_more_attempt() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    park(&mut redis, &line, &[("q", 30)]).await;
    let spool = line.seawall.spool();
    for attempts in 2..5 {
        assert_eq!(spool.unpark(ParkedFilter::all()).await.unwrap(), 30);
        line.drained().await;
        assert_eq!(books(&line.seawall).await, (0, 30));
        let parked = spool.parked(100).await.unwrap();
        assert!(parked.iter().all(|parked| parked.attempts() == attempts));
        let order = parked.iter().map(|parked| parked.number());
        assert!(order.eq(1..=30));
    }
}

#[tokio::test]
async fn jobs_sent_again_while_redis_is_out_wait_for_it_also_across_a_restart() {
    let mut redis = server().await;
    let dir = tempfile::tempdir().unwrap();
    let line = Line::with(&redis.url(), |builder| in_dir(builder, dir.path())).await;
    line.is_up().await;
    park(&mut redis, &line, &[("q", 10), ("r", 10)]).await;
    tell(&redis, "DEL q r").await;
    redis.kill().await.unwrap();
    let spool = line.seawall.spool();
    assert_eq!(spool.unpark(ParkedFilter::queue("q")).await.unwrap(), 10);
    assert_eq!(books(&line.seawall).await, (10, 10));
    let left = line.seawall.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(left, 10);
    let closed: Error = spool.unpark(ParkedFilter::all()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);

    // No queue has a task yet for the other ten.
    let line = Line::with(&redis.url(), |builder| in_dir(builder, dir.path())).await;
    assert_eq!(books(&line.seawall).await, (10, 10));
    let spool = line.seawall.spool();
    assert_eq!(spool.unpark(ParkedFilter::all()).await.unwrap(), 10);
    assert_eq!(books(&line.seawall).await, (20, 0));
    redis.restart().await.unwrap();
    line.drained().await;
    assert_eq!(list(&redis, "q").await, numbers(0..10));
    assert_eq!(list(&redis, "r").await, numbers(0..10));
    assert_eq!(books(&line.seawall).await, (0, 0));
}

fn in_dir(builder: Builder, dir: &std::path::Path) -> Builder {
    builder.spool(|options| options.with_dir(dir))
}

/// Ten in one queue with room for four: the lane is blocked, nothing is lost, and it goes on.
#[tokio::test]
async fn with_no_room_for_more_parked_jobs_the_lane_is_blocked_until_there_is() {
    let mut redis = server().await;
    let line = Line::with(&redis.url(), |builder| {
        builder.spool(|options: SpoolOptions| {
            let millis = Duration::from_millis;
            let replay = Replay::unpaced().with_delays(millis(5), millis(20));
            options.with_max_parked(4).with_replay(replay)
        })
    })
    .await
    .connected()
    .await;
    tell(&redis, "SET q x").await;
    redis.kill().await.unwrap();
    let jobs = (0..10).map(|number| Job::new("q", number.to_string()));
    for receipt in line.seawall.enqueue_all(jobs).await {
        assert!(receipt.expect("accepted").is_spooled());
    }
    redis.restart().await.unwrap();
    line.comes_to_show("seawall_lanes{state=\"blocked\"} 1")
        .await;
    assert!(line.shows("seawall_spool_limit_parked 4"));
    // What shares a chunk with others that wait is counted among these.
    let (waiting, parked) = books(&line.seawall).await;
    assert!((6..=10).contains(&waiting) && parked == 4);
    // Others go on.
    let other = line.seawall.enqueue(Job::new("r", "0")).await.unwrap();
    assert!(other.is_delivered());

    let spool = line.seawall.spool();
    assert_eq!(spool.delete_parked(ParkedFilter::all()).await.unwrap(), 4);
    wait_until("four more", PLENTY, || async {
        spool.parked(9).await.unwrap().len() == 4
    })
    .await
    .unwrap();
    // What is sent again goes first, and then there is room for none.
    tell(&redis, "DEL q").await;
    assert_eq!(spool.unpark(ParkedFilter::all()).await.unwrap(), 4);
    line.drained().await;
    assert_eq!(books(&line.seawall).await, (0, 0));
    let mut delivered = list(&redis, "q").await;
    delivered.sort();
    assert_eq!(delivered, numbers(4..10));
    line.comes_to_show("seawall_lanes{state=\"blocked\"} 0")
        .await;
}

#[tokio::test]
async fn more_parked_jobs_than_a_page_holds_are_all_sent_again_once() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    park(&mut redis, &line, &[("q", 2_500)]).await;
    tell(&redis, "DEL q").await;
    let spool = line.seawall.spool();
    // Two at once take nothing twice, and one that nobody waits for is made all the same.
    assert!(spool.unpark(ParkedFilter::all()).now_or_never().is_none());
    let both = tokio::join!(
        spool.unpark(ParkedFilter::all()),
        spool.unpark(ParkedFilter::queue("q"))
    );
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (0, 0));
    line.drained().await;
    assert_eq!(list(&redis, "q").await, numbers(0..2_500));
    assert_eq!(books(&line.seawall).await, (0, 0));
}

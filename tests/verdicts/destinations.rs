//! What jobs become in Redis, whether they went directly or by way of the disk.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use redis::Value;
use seawall::{
    Job,
    chaos::RedisServer,
    job::{Destination, JobId},
    sequence::Command,
};

use crate::support::{Line, list, server};

/// Not UTF-8, with every byte that a careless writer would escape.
const PAYLOAD: &[u8] = b"\x00\xff\r\n'\"$3\r\n";

struct HandedIn {
    jobs: Vec<Job>,
    stream_id: JobId,
}

fn one_of_each() -> HandedIn {
    let job = |queue: &'static str, payload: &'static [u8]| Job::new(queue, payload);
    let due = SystemTime::UNIX_EPOCH + Duration::from_millis(1_900_000_000_125);
    let in_stream = job("stream", PAYLOAD)
        .with_destination(Destination::stream("events"))
        .with_header("trace", "t1")
        .with_header("from", "tests");
    let group = vec![
        Command::new("HSET").arg("job:1").arg("state").arg("queued"),
        Command::new("SADD").arg("all").arg("1"),
        Command::new("RPUSH").arg("rq").arg("1"),
    ];
    let stream_id = in_stream.id();
    let jobs = vec![
        job("named", PAYLOAD),
        job("named", b"second"),
        job("q", b"1").with_destination(Destination::list("back")),
        job("q", b"2").with_destination(Destination::list("back")),
        job("q", b"1").with_destination(Destination::list_front("front")),
        job("q", b"2").with_destination(Destination::list_front("front")),
        in_stream,
        job("q", PAYLOAD).with_destination(Destination::stream("own").with_payload_field("body")),
        job("q", PAYLOAD)
            .with_destination(Destination::sorted_set("later"))
            .due_at(due),
        job("q", b"not used").with_destination(Destination::commands(group)),
    ];
    HandedIn { jobs, stream_id }
}

async fn ask<T: redis::FromRedisValue>(redis: &RedisServer, line: &str) -> T {
    redis.command(&crate::support::cmd(line)).await.unwrap()
}

/// The fields of the only entry of a stream, in their order.
async fn only_entry(redis: &RedisServer, key: &str) -> Vec<(String, Vec<u8>)> {
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let mut entries: Vec<Entry> = ask(redis, &format!("XRANGE {key} - +")).await;
    assert_eq!(entries.len(), 1);
    entries.remove(0).1
}

async fn all_is_as_documented(redis: &RedisServer, stream_id: JobId) {
    let named: Vec<Vec<u8>> = ask(redis, "LRANGE named 0 -1").await;
    assert_eq!(named, [PAYLOAD, b"second"]);
    assert_eq!(list(redis, "back").await, ["1", "2"]);
    assert_eq!(list(redis, "front").await, ["2", "1"]);

    let field = |name: &str, value: &[u8]| (name.to_owned(), value.to_owned());
    let id = stream_id.to_string();
    assert_eq!(
        only_entry(redis, "events").await,
        [
            field("id", id.as_bytes()),
            field("payload", PAYLOAD),
            field("trace", b"t1"),
            field("from", b"tests"),
        ]
    );
    let own = only_entry(redis, "own").await;
    assert_eq!(own[1], field("body", PAYLOAD));

    let later: Vec<(Vec<u8>, f64)> = ask(redis, "ZRANGE later 0 -1 WITHSCORES").await;
    assert_eq!(later, [(PAYLOAD.to_vec(), 1_900_000_000.125)]);

    let hash: HashMap<String, String> = ask(redis, "HGETALL job:1").await;
    assert_eq!(hash, HashMap::from([("state".into(), "queued".into())]));
    assert_eq!(ask::<Vec<String>>(redis, "SMEMBERS all").await, ["1"]);
    assert_eq!(list(redis, "rq").await, ["1"]);
}

#[tokio::test]
async fn each_destination_gets_what_is_documented() {
    let redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    let HandedIn { jobs, stream_id } = one_of_each();
    for receipt in line.seawall.enqueue_all(jobs).await {
        assert!(receipt.unwrap().is_delivered());
    }
    all_is_as_documented(&redis, stream_id).await;
}

#[tokio::test]
async fn each_destination_gets_the_same_by_way_of_the_disk() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    redis.kill().await.unwrap();
    let HandedIn { jobs, stream_id } = one_of_each();
    for receipt in line.seawall.enqueue_all(jobs).await {
        assert!(receipt.unwrap().is_spooled());
    }
    redis.restart().await.unwrap();
    line.drained().await;
    all_is_as_documented(&redis, stream_id).await;
}

#[tokio::test]
async fn a_stream_with_a_bound_stays_near_it() {
    let redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    let bounded = || Destination::stream("events").with_max_len(100);
    let jobs = (0..1000)
        .map(|number: u32| Job::new("events", number.to_string()).with_destination(bounded()));
    for receipt in line.seawall.enqueue_all(jobs).await {
        assert!(receipt.unwrap().is_delivered());
    }
    let left: usize = ask(&redis, "XLEN events").await;
    // Redis trims whole nodes of 100 entries.
    assert!((100..=200).contains(&left), "{left}");
    let last: Value = ask(&redis, "XREVRANGE events + - COUNT 1").await;
    assert!(format!("{last:?}").contains("999"), "{last:?}");
}

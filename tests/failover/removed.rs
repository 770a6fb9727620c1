//! What a server that has lost nothing no longer has: somebody has removed it, and it is not given back.

use seawall::{Job, chaos::RedisServer};

use crate::support::{App, numbers};

async fn app(redis: &RedisServer, dir: &tempfile::TempDir) -> App {
    App::at(&redis.url(), dir.path(), |spool| spool).await
}

async fn list(redis: &RedisServer) -> Vec<u64> {
    let list = redis::cmd("LRANGE").arg("q").arg(0).arg(-1).to_owned();
    redis.command(&list).await.unwrap()
}

#[tokio::test]
async fn what_was_flushed_is_not_sent_again_and_the_lane_goes_on() {
    let redis = RedisServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let app = app(&redis, &dir).await;
    app.enqueue("q", 0..50).await;
    let _: () = redis.command(&redis::cmd("FLUSHALL")).await.unwrap();
    app.enqueue("q", 50..80).await;
    app.drained().await;
    assert_eq!(list(&redis).await, numbers(50..80));
    assert_eq!(app.metric("seawall_removed_total", "q"), 50.0);
    assert_eq!(app.metric("seawall_lost_by_redis_total", "q"), 0.0);
    assert_eq!(app.metric("seawall_repaired_total", "q"), 0.0);
}

#[tokio::test]
async fn a_lane_key_that_was_evicted_doubles_nothing() {
    let redis = RedisServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let app = app(&redis, &dir).await;
    app.enqueue("q", 0..50).await;
    let keys: Vec<String> = redis
        .command(redis::cmd("KEYS").arg("seawall:{q}:lane:*"))
        .await
        .unwrap();
    assert_eq!(keys.len(), 1);
    let _: () = redis.command(redis::cmd("DEL").arg(&keys)).await.unwrap();
    app.enqueue("q", 50..80).await;
    app.drained().await;
    assert_eq!(list(&redis).await, numbers(0..80));
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_given_what_it_had_a_moment_ago() {
    let mut redis = RedisServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let app = app(&redis, &dir).await;
    app.enqueue("q", 0..50).await;
    redis.restart_empty().await.unwrap();
    app.until("seawall_repaired_total", "q", |count| count >= 50.0)
        .await;
    let _ = app.seawall.enqueue(Job::new("q", "50")).await.unwrap();
    app.drained().await;
    assert_eq!(list(&redis).await, numbers(0..51));
}

//! A Redis that is away, hangs, or loses an answer.

use std::time::Duration;

use seawall::{
    RedisCall,
    chaos::{Fault, FaultProxy, RedisServer},
    connect::{ConnectOptions, Connection},
    error::ErrorKind,
    retry::RetryLayer,
    worker::{Queue, queues},
};
use tower::ServiceBuilder;

use super::support::{PLENTY, Scene};

#[tokio::test]
async fn a_queue_is_not_waited_for_while_redis_is_away() {
    let mut scene = Scene::new().await;
    scene.redis.kill().await.unwrap();
    let queue = scene.app.queue("emails");
    let error = queue.stat().await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(scene.app.queues().await.is_err());
    assert!(queue.purge().await.is_err());
}

#[tokio::test]
async fn a_redis_that_hangs_is_given_up() {
    let redis = RedisServer::start().await.unwrap();
    let options = ConnectOptions::from_url(&redis.url()).unwrap();
    // Nothing else has a limit.
    let options = options.with_response_timeout(PLENTY).with_probe(PLENTY, PLENTY);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PLENTY).await.unwrap();
    redis.freeze().await.unwrap();
    let queue = Queue::new("emails", connection).with_timeout(Duration::from_millis(50));
    let error = queue.stat().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    redis.thaw().unwrap();
}

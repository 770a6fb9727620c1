//! A Redis that is away, hangs, or loses an answer.

use std::time::Duration;

use seawall::{
    RedisCall,
    chaos::{Fault, FaultProxy, RedisServer},
    connect::{ConnectOptions, Connection},
    error::ErrorKind,
    job::JobId,
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
    let options = options
        .with_response_timeout(PLENTY)
        .with_probe(PLENTY, PLENTY);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PLENTY).await.unwrap();
    redis.freeze().await.unwrap();
    let queue = Queue::new("emails", connection).with_timeout(Duration::from_millis(50));
    let error = queue.stat().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    redis.thaw().unwrap();
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_made_once() {
    let scene = Scene::new().await;
    let proxy = FaultProxy::start(scene.redis.addr()).await.unwrap();
    let options = ConnectOptions::from_url(&proxy.url()).unwrap();
    // The next reply is to be that of the change.
    let options = options
        .with_probe(PLENTY, PLENTY)
        .with_response_timeout(PLENTY);
    let connection = Connection::open(options).unwrap();
    let line = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .service(connection.clone());
    let queue = Queue::new("emails", line).with_timeout(PLENTY);
    let (purged, deleted) = (scene.dead("timeout").await, scene.queued().await);
    let kept = [scene.dead("timeout").await, scene.queued().await];
    for id in [purged, deleted] {
        let change = async |id| match id == deleted {
            true => queue.delete(id).await,
            false => queue.purge_one(id).await,
        };
        connection.wait_ready(PLENTY).await.unwrap();
        assert!(!change(JobId::from_bytes([7; 16])).await.unwrap());
        proxy.set(Fault::DropNextReply);
        match change(id).await {
            // The second try finds nothing, and can't tell that the first has done it.
            Ok(done) => assert!(!done),
            Err(error) => assert!(error.may_have_landed(), "{error}"),
        }
        assert_eq!(proxy.dropped_replies(), 1 + u64::from(id == deleted));
        assert_eq!(scene.state(id).await, None);
    }
    for id in kept {
        assert!(scene.state(id).await.is_some());
    }
}

#[tokio::test]
async fn a_server_that_is_no_redis_of_seawalls_gives_an_error_and_no_nonsense() {
    let line = tower::service_fn(|_: RedisCall| async {
        let answer = redis::Value::Array(vec![redis::Value::Int(1)]);
        Ok::<_, seawall::Error>(seawall::Reply::new(answer))
    });
    let queue = Queue::new("emails", line);
    let error = queue.stat().await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    assert!(queues(line).await.is_err());
}

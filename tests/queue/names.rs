//! Which queues there are.

use seawall::{
    Job, Seawall,
    chaos::{RedisCluster, RedisServer},
    error::ErrorKind,
};

use super::support::{PLENTY, Scene, TOKEN};

#[tokio::test]
async fn queues_are_found_by_what_is_left_of_them() {
    let scene = Scene::new().await;
    assert!(scene.app.queues().await.unwrap().is_empty());
    scene.queued().await;
    scene.add(Job::new("app:{x}:high", "x")).await;
    scene.add(Job::new("{}odd", "x")).await;
    // A list of the application's, whose lane has a key as well.
    let _ = scene.app.enqueue(Job::new("plain", "x")).await.unwrap();
    assert_eq!(
        scene.app.queues().await.unwrap(),
        ["app:{x}:high", "emails", "{}odd"]
    );
    scene.raw("DEL jobs", &[]).await;
    scene.raw("DEL ready", &[]).await;
    scene.raw("DEL wake", &[]).await;
    assert_eq!(scene.app.queues().await.unwrap(), ["app:{x}:high", "{}odd"]);
    scene.raw("ZADD workers", &[b"1", TOKEN.as_bytes()]).await;
    assert_eq!(scene.app.queues().await.unwrap().len(), 3);
}

#[tokio::test]
async fn several_queues_of_a_redis_have_nothing_in_common() {
    let scene = Scene::new().await;
    scene.add(Job::new("a:{x}", "x")).await;
    scene.add(Job::new("b:{x}", "x")).await;
    for queue in ["a:{x}", "b:{x}"] {
        assert_eq!(scene.app.queue(queue).stat().await.unwrap().ready, 1);
    }
    assert_eq!(scene.app.queue("x").stat().await.unwrap().ready, 0);
}

#[tokio::test]
async fn on_a_cluster_a_queue_is_looked_at_and_a_list_of_them_is_refused() {
    let cluster = RedisCluster::builder().start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let app = Seawall::builder(cluster.url().as_str(), dir.path()).unwrap();
    let app = app.connect().await.unwrap();
    app.connection().wait_ready(PLENTY).await.unwrap();
    for queue in ["emails", "sms", "reports"] {
        let _ = app
            .enqueue(Job::new(queue, "x").for_worker())
            .await
            .unwrap();
        let stat = app.queue(queue).with_timeout(PLENTY).stat().await.unwrap();
        assert_eq!(stat.ready, 1, "{queue}");
    }
    let error = app.queues().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("name the queue"), "{why}");
}

#[tokio::test]
async fn of_several_targets_each_has_its_own_queue() {
    let (one, other) = (RedisServer::start().await, RedisServer::start().await);
    let (one, other) = (one.unwrap(), other.unwrap());
    let topology = seawall::stack::Topology::failover([one.url(), other.url()]);
    let dir = tempfile::tempdir().unwrap();
    let app = Seawall::builder(topology.with_names(["a", "b"]), dir.path()).unwrap();
    let app = app.connect().await.unwrap();
    for target in app.targets() {
        target.connection().wait_ready(PLENTY).await.unwrap();
    }
    let _ = app
        .enqueue(Job::new("emails", "x").for_worker())
        .await
        .unwrap();
    assert_eq!(app.queue("emails").stat().await.unwrap().ready, 1);
    for (target, ready) in [("a", 1), ("b", 0)] {
        let queue = app.target(target).unwrap().queue("emails");
        assert_eq!(queue.stat().await.unwrap().ready, ready, "{target}");
    }
}

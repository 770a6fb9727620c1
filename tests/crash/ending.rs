//! The orderly end, and the one without a word.

use std::time::Duration;

use seawall::{
    Job, Seawall, chaos::wait_until, connect::ConnectOptions, error::ErrorKind, spool::OpenError,
    stack::BuildError,
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    PLENTY,
    app::Orders,
    scene::{Scene, durable},
};

async fn spool_some(seawall: &Seawall, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let receipt = seawall
            .enqueue(Job::new("q", number.to_string()))
            .await
            .unwrap();
        assert!(receipt.is_spooled());
    }
}

#[tokio::test]
async fn a_shutdown_without_redis_leaves_all_on_disk_and_the_next_run_delivers_it() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(100);
    let seawall = orders.builder().connect().await.unwrap();
    let mut receipts = Vec::new();
    for number in orders.numbers() {
        scene.books.attempt((&orders.name, number));
        receipts.push(seawall.enqueue(orders.job(number)));
    }
    assert_eq!(
        seawall.shutdown(Duration::from_millis(100)).await.unwrap(),
        100
    );
    for (number, receipt) in orders.numbers().zip(receipts) {
        assert!(receipt.await.unwrap().is_spooled());
        scene.books.acknowledge((&orders.name, number));
    }
    let late = seawall.enqueue(orders.job(0)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
    scene.settle(0).await;
}

/// They wait for an answer of Redis when the deadline comes, and get the disk's.
#[tokio::test]
async fn jobs_on_their_way_when_the_deadline_comes_are_spooled() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    let mut orders = scene.orders(10);
    orders.spool_after_ms = 60_000;
    let seawall = orders.builder().connect().await.unwrap();
    wait_until("a connection", PLENTY, || async { seawall.health().up })
        .await
        .unwrap();
    scene.redis.freeze().await.unwrap();
    let receipts: Vec<_> = orders
        .numbers()
        .map(|number| {
            scene.books.attempt((&orders.name, number));
            seawall.enqueue(orders.job(number))
        })
        .collect();
    assert_eq!(
        seawall.shutdown(Duration::from_millis(50)).await.unwrap(),
        10
    );
    scene.redis.thaw().unwrap();
    for (number, receipt) in orders.numbers().zip(receipts) {
        assert!(receipt.await.unwrap().is_spooled());
        scene.books.acknowledge((&orders.name, number));
    }
    drop(seawall);
    scene.settle(0).await;
}

#[tokio::test]
async fn a_shutdown_with_redis_up_leaves_nothing_neither_here_nor_there() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    let mut orders = scene.orders(200);
    // On a slow machine an answer may be late, and then the batch may still be on its way: the key stays.
    orders.spool_after_ms = 60_000;
    let patient = |options: ConnectOptions| {
        options
            .with_response_timeout(PLENTY)
            .with_probe(Duration::from_secs(1), PLENTY)
    };
    let seawall = orders
        .builder()
        .connection(patient)
        .connect()
        .await
        .unwrap();
    wait_until("a connection", PLENTY, || async { seawall.health().up })
        .await
        .unwrap();
    for number in orders.numbers() {
        scene.books.attempt((&orders.name, number));
        if number == 100 {
            assert_eq!(scene.lane_keys().await.len(), 1);
            // No batch is on its way, nor sent to a socket nobody has seen close: what is, may land
            // later, and the key stays.
            scene.redis.kill().await.unwrap();
            wait_until("the loss to be seen", PLENTY, || async {
                !seawall.health().up
            })
            .await
            .unwrap();
        }
        if number == 150 {
            scene.redis.restart().await.unwrap();
        }
        let _ = seawall.enqueue(orders.job(number)).await.unwrap();
        scene.books.acknowledge((&orders.name, number));
    }
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    assert_eq!(scene.delivered().await, 200);
    assert_eq!(scene.lane_keys().await, [""; 0]);
    scene.balance(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_last_handle_is_dropped_everything_ends_and_the_directory_is_free() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    let orders = scene.orders(0);
    let before = Handle::current().metrics().num_alive_tasks();
    for up in [true, false, true] {
        if up {
            scene.redis.restart().await.unwrap();
        } else {
            scene.redis.kill().await.unwrap();
        }
        let seawall = freed(&orders).await;
        if up {
            seawall.flush().await;
        } else {
            spool_some(&seawall, 0..10).await;
        }
        let pending = seawall.enqueue(Job::new("q", "pending"));
        drop(seawall.clone());
        drop(seawall);
        drop(pending);
        let ended = || async { Handle::current().metrics().num_alive_tasks() <= before };
        wait_until("the tasks to end", PLENTY, ended).await.unwrap();
    }
}

/// Opens as soon as the one before has let go of the directory.
async fn freed(orders: &Orders) -> Seawall {
    let opening = async {
        loop {
            match orders.builder().connect().await {
                Ok(seawall) => break seawall,
                Err(BuildError::Spool(OpenError::Locked { .. })) => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    timeout(PLENTY, opening)
        .await
        .expect("the directory stays locked")
}

//! No room on disk, by the spool's own bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use seawall::{
    Seawall,
    chaos::{Books, wait_until},
    error::ErrorKind,
    spool::{Bound, Overflow, Readiness, SpoolOptions},
};
use tokio::task::JoinSet;

use super::{
    PLENTY,
    app::Orders,
    scene::{Scene, durable},
};

async fn open(orders: &Orders, bound: impl FnOnce(SpoolOptions) -> SpoolOptions) -> Seawall {
    orders.builder().spool(bound).connect().await.unwrap()
}

/// 16 producers, each of which waits for one answer before its next job. Says how many were accepted.
fn crowd(
    seawall: &Seawall,
    books: &Arc<Books>,
    orders: &Orders,
) -> impl Future<Output = u64> + use<> {
    let mut producers = JoinSet::new();
    for producer in 0..16 {
        let (seawall, books) = (seawall.clone(), books.clone());
        let mut orders = orders.clone();
        orders.name = format!("producer-{producer}");
        producers.spawn(async move {
            let mut accepted = 0;
            for number in orders.numbers() {
                books.attempt((&orders.name, number));
                match seawall.enqueue(orders.job(number)).await {
                    Ok(_) => {
                        books.acknowledge((&orders.name, number));
                        accepted += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::SpoolFull, "{error:?}");
                        assert!(!error.may_have_landed(), "{error:?}");
                    }
                }
            }
            accepted
        });
    }
    async move { producers.join_all().await.into_iter().sum() }
}

/// Looks at the spool all the while `of` runs, and says the most it ever held.
async fn most_held<T>(seawall: &Seawall, of: impl Future<Output = T>) -> (T, u64, u64) {
    let done = Arc::new(AtomicBool::new(false));
    let watch = std::thread::spawn({
        let (seawall, done) = (seawall.clone(), done.clone());
        move || {
            let mut most = (0, 0);
            while !done.load(Relaxed) {
                let stats = seawall.spool().stats();
                most = (stats.records.max(most.0), stats.bytes.max(most.1));
                std::thread::yield_now();
            }
            most
        }
    });
    let result = of.await;
    done.store(true, Relaxed);
    let (records, bytes) = watch.join().unwrap();
    (result, records, bytes)
}

async fn resumes(seawall: &Seawall, scene: &mut Scene<'_>) {
    scene.redis.restart().await.unwrap();
    seawall.flush().await;
    let orders = scene.orders(10);
    for number in orders.numbers() {
        scene.books.attempt((&orders.name, number));
        let _ = seawall.enqueue(orders.job(number)).await.unwrap();
        scene.books.acknowledge((&orders.name, number));
    }
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    scene.balance(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_full_of_records_refuses_the_rest_and_resumes_by_itself() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(40);
    let seawall = open(&orders, |spool| spool.with_max_records(100)).await;
    let crowd = crowd(&seawall, &scene.books, &orders);
    let (accepted, records, _) = most_held(&seawall, crowd).await;
    assert_eq!((accepted, records), (100, 100));
    assert_eq!(seawall.health().spool.records, 100);
    resumes(&seawall, &mut scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_full_of_bytes_refuses_the_rest_and_resumes_by_itself() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(40);
    let seawall = open(&orders, |spool| spool.with_max_bytes(8 << 10)).await;
    let crowd = crowd(&seawall, &scene.books, &orders);
    let (accepted, _, bytes) = most_held(&seawall, crowd).await;
    assert!(bytes <= 8 << 10, "{bytes}");
    let held = seawall.health().spool.records;
    assert!(accepted > 0 && accepted == held, "{accepted} of {held}");
    resumes(&seawall, &mut scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_may_wait_for_room_get_through_once_there_is_some() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(40);
    let block = Overflow::Block { timeout: PLENTY };
    let seawall = open(&orders, |spool| {
        spool.with_max_records(100).with_overflow(block)
    })
    .await;
    let crowd = crowd(&seawall, &scene.books, &orders);
    let crowd = tokio::spawn(crowd);
    // The spool is full, and 540 jobs have no place yet.
    wait_until("a full spool", PLENTY, || async {
        seawall.health().spool.records == 100
    })
    .await
    .unwrap();
    scene.redis.restart().await.unwrap();
    assert_eq!(crowd.await.unwrap(), 640);
    resumes(&seawall, &mut scene).await;
}

#[tokio::test]
async fn callers_that_wait_for_room_in_vain_are_refused_when_their_time_is_up() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(8);
    let block = Overflow::Block {
        timeout: Duration::from_millis(300),
    };
    let seawall = open(&orders, |spool| {
        spool.with_max_records(5).with_overflow(block)
    })
    .await;
    let mut receipts = Vec::new();
    for number in orders.numbers() {
        scene.books.attempt((&orders.name, number));
        receipts.push((
            number,
            tokio::time::Instant::now(),
            seawall.enqueue(orders.job(number)),
        ));
    }
    for (number, since, receipt) in receipts {
        match receipt.await {
            Ok(_) => scene.books.acknowledge((&orders.name, number)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SpoolFull, "{error:?}");
                assert!(since.elapsed() >= Duration::from_millis(300), "it waits");
            }
        }
    }
    assert_eq!(scene.books.balance().acknowledged, 5);
    resumes(&seawall, &mut scene).await;
}

/// Redis itself is the judge of what is left: the newest, in the order of their receipts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_for_newer_jobs_is_exactly_what_never_comes_to_redis() {
    let mut redis = durable().await;
    let mut scene = Scene::new(&mut redis, 0).await;
    scene.redis.kill().await.unwrap();
    let orders = scene.orders(300);
    let registry = prometheus::Registry::new();
    let seawall = orders
        .builder()
        .metrics(&registry)
        .spool(|spool| {
            spool
                .with_max_records(100)
                .with_overflow(Overflow::DropOldest)
        })
        .connect()
        .await
        .unwrap();
    for some in orders.numbers().collect::<Vec<_>>().chunks(30) {
        let receipts = seawall.enqueue_all(some.iter().map(|number| orders.job(*number)));
        for (number, receipt) in some.iter().zip(receipts.await) {
            assert!(receipt.unwrap().is_spooled());
            if *number >= 200 {
                scene.books.attempt((&orders.name, *number));
                scene.books.acknowledge((&orders.name, *number));
            }
        }
    }
    let health = seawall.health();
    assert_eq!(health.spool.records, 100);
    assert_eq!(health.readiness, Readiness::Full(Bound::Records));
    let counted = prometheus::TextEncoder::new();
    let counted = counted.encode_to_string(&registry.gather()).unwrap();
    let dropped = "seawall_dropped_total{queue=\"jobs-0\",which=\"oldest\"} 200";
    assert!(counted.contains(dropped), "{counted}");
    resumes(&seawall, &mut scene).await;
}

//! Callers that go away.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rand::Rng as _;
use seawall::{
    Seawall,
    chaos::{Books, wait_until},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    PLENTY,
    app::Orders,
    dice,
    scene::{Scene, durable},
    seeds,
};

/// A future that is dropped unless it is ready within so many polls.
struct Impatient<F> {
    inner: F,
    polls: u32,
}

impl<F: Future + Unpin> Future for Impatient<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        if let Poll::Ready(output) = Pin::new(&mut self.inner).poll(cx) {
            return Poll::Ready(Some(output));
        }
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// Several producers, each with one job at a time, of which it gives up three in four.
fn crowd(
    seed: u64,
    seawall: &Seawall,
    books: &Arc<Books>,
    orders: &Orders,
) -> impl Future<Output = ()> + use<> {
    let mut producers = JoinSet::new();
    for producer in 0..8 {
        let (seawall, books) = (seawall.clone(), books.clone());
        let mut orders = orders.clone();
        orders.name = format!("producer-{producer}");
        let mut dice = dice(seed * 8 + producer);
        producers.spawn(async move {
            for number in orders.numbers() {
                // Memory has room for a few of the large ones only.
                let bytes = dice.random_range(0..30_000);
                let polls = [0, 1, 2, u32::MAX][dice.random_range(0..4)];
                books.attempt((&orders.name, number));
                let inner = seawall.enqueue(orders.padded(number, bytes));
                if let Some(receipt) = (Impatient { inner, polls }).await {
                    let _ = receipt.unwrap();
                    books.acknowledge((&orders.name, number));
                }
            }
        });
    }
    async move {
        timeout(PLENTY, producers.join_all())
            .await
            .expect("a producer hangs");
    }
}

/// It takes all the memory there is.
async fn nothing_has_leaked(seawall: &Seawall, scene: &mut Scene<'_>) {
    seawall.flush().await;
    let orders = scene.orders(3);
    for number in orders.numbers() {
        scene.books.attempt((&orders.name, number));
        let _ = seawall
            .enqueue(orders.padded(number, MEMORY))
            .await
            .unwrap();
        scene.books.acknowledge((&orders.name, number));
    }
}

const MEMORY: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_at_any_await_leave_no_gap_and_no_leak() {
    let mut redis = durable().await;
    for seed in seeds(3) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let orders = scene.orders(150);
        let builder = orders
            .builder()
            .spool(|spool| spool.with_max_memory(MEMORY));
        let seawall = builder.connect().await.unwrap();
        let crowd = tokio::spawn(crowd(seed, &seawall, &scene.books, &orders));
        scene.delivered_at_least(dice.random_range(1..100)).await;
        scene.redis.kill().await.unwrap();
        let spooled = dice.random_range(1..100);
        wait_until("spooled jobs", PLENTY, || async {
            seawall.health().spool.records >= spooled || crowd.is_finished()
        })
        .await
        .unwrap();
        scene.redis.restart().await.unwrap();
        crowd.await.unwrap();
        nothing_has_leaked(&seawall, &mut scene).await;
        assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
        scene.balance(seed).await;
    }
}

/// Those that find no memory free wait; none that comes later, when there is some, passes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_handed_in_together_stay_in_order_though_memory_holds_a_few_of_them() {
    let mut redis = durable().await;
    for seed in seeds(5) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        let orders = scene.orders(300);
        let builder = orders
            .builder()
            .spool(|spool| spool.with_max_memory(MEMORY));
        let seawall = builder.connect().await.unwrap();
        let jobs: Vec<_> = orders
            .numbers()
            .map(|number| {
                scene.books.attempt((&orders.name, number));
                orders.padded(number, dice.random_range(0..8_000))
            })
            .collect();
        let receipts = seawall.enqueue_all(jobs).await;
        for (number, receipt) in orders.numbers().zip(receipts) {
            let _ = receipt.unwrap();
            scene.books.acknowledge((&orders.name, number));
        }
        assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
        scene.balance(seed).await;
    }
}

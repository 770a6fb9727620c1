//! Layers of tower's around handlers: a limit for each dependency, a timeout, and one of your own.
//!
//! ```text
//! cargo run --features chaos --example handlers
//! ```
//!
//! Two queues share a mail server that takes two connections at a time, whatever the worker's concurrency is. One of
//! its answers never comes: that execution is given up, and the next one succeeds. Expect, within a few seconds:
//!
//! ```text
//! newsletters ok after 51.2ms
//! ..
//! emails failed after 201.1ms: request timed out
//! ..
//! the mail server has sent 20 emails, 2 at a time at most; given up: 1
//! ```
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use seawall::{
    Job, Seawall,
    chaos::{RedisServer, wait_until},
    error::BoxError,
    worker::{Delivery, Failure},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceBuilder};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let redis = RedisServer::start().await?;
    let dir = tempfile::tempdir()?;
    let seawall = Seawall::builder(&redis.url(), dir.path())?;
    let seawall = seawall.connect().await?;
    seawall.connection().wait_ready(PATIENCE).await?;
    for number in 0..10_u64 {
        for queue in ["emails", "newsletters"] {
            let job = Job::json(queue, &number)?.for_worker();
            let _receipt = seawall.enqueue(job).await?;
        }
    }

    // Shared by all executions: a closure holds it. `Builder::extension` is the other way.
    let server = Arc::<MailServer>::default();
    let handler = ServiceBuilder::new()
        // Layers put errors in boxes; this takes the failure out again, with what it says of retries.
        .map_err(Failure::boxed)
        .layer(TimedLayer)
        .concurrency_limit(CONNECTIONS)
        .timeout(Duration::from_millis(200))
        .service_fn({
            let server = server.clone();
            move |delivery: Delivery| send(server.clone(), delivery)
        });

    let (stop, stopped) = oneshot::channel::<()>();
    let worker = seawall
        .worker("emails")
        .queue("newsletters", 1)
        .concurrency(16)
        .shutdown_on(stopped)
        .run(handler);
    let worker = tokio::spawn(worker);
    let all_sent = || async { server.sent.load(Relaxed) == 20 };
    wait_until("all emails", PATIENCE, all_sent).await?;
    drop(stop);
    let report = worker.await??;
    println!(
        "the mail server has sent {} emails, {} at a time at most; given up: {}",
        server.sent.load(Relaxed),
        server.most.load(Relaxed),
        report.retried,
    );
    seawall.shutdown(PATIENCE).await?;
    Ok(())
}

async fn send(server: Arc<MailServer>, delivery: Delivery) -> Result<(), Failure> {
    let number: u64 = delivery.json()?;
    let _connection = server.connection();
    if number == 5 && delivery.queue() == "emails" && delivery.attempt() == 1 {
        std::future::pending::<()>().await;
    }
    sleep(Duration::from_millis(50)).await;
    server.sent.fetch_add(1, Relaxed);
    Ok(())
}

#[derive(Default)]
struct MailServer {
    sent: AtomicUsize,
    connections: AtomicUsize,
    most: AtomicUsize,
}

/// It ends when it is dropped, also with an execution that is given up.
struct Connection<'a>(&'a MailServer);

impl MailServer {
    fn connection(&self) -> Connection<'_> {
        let now = self.connections.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        Connection(self)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A layer of your own: says how long each execution took.
struct TimedLayer;

impl<S> Layer<S> for TimedLayer {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed(inner)
    }
}

#[derive(Clone)]
struct Timed<S>(S);

impl<S> Service<Delivery> for Timed<S>
where
    S: Service<Delivery, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let (queue, began) = (delivery.queue().to_owned(), Instant::now());
        let execution = self.0.call(delivery);
        Box::pin(async move {
            let result = execution.await;
            let took = began.elapsed();
            match &result {
                Ok(_) => println!("{queue} ok after {took:.1?}"),
                Err(error) => println!("{queue} failed after {took:.1?}: {error}"),
            }
            result
        })
    }
}

const CONNECTIONS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);

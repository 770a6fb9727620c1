//! The line by hand: what `Seawall::builder(..).connect()` puts together, from the public layers, with
//! two layers of tower's own in between.
//!
//! ```text
//! cargo run --features chaos --example layers
//! ```
//!
//! It starts a Redis of its own, enqueues, kills it, enqueues, starts it again, and shows what has
//! arrived: `1 2 3 4 5 6`, the first three delivered, the others spooled. Compare `main` with
//! `src/stack/arm.rs`, which is the same without the layers in between.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::time::Duration;

use seawall::{
    Error, Job,
    breaker::{BreakerLayer, BreakerOptions},
    chaos::RedisServer,
    connect::{ConnectOptions, Connection},
    error::BoxError,
    retry::{RetryLayer, RetryPolicy},
    sequence::{SequenceLayer, Write},
    spool::{Spool, SpoolLayer, SpoolOptions, Spooling},
};
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut redis = RedisServer::builder().durable().start().await?;
    let dir = tempfile::tempdir()?;

    let connection = Connection::open(ConnectOptions::from_url(&redis.url())?)?;
    let breaker = BreakerLayer::new(BreakerOptions::default());
    // Tells replay that Redis is back. Without it, replay finds out at its next look.
    let recoveries = breaker.handle().recoveries();
    let spool = Spool::open(SpoolOptions::new(dir.path()).with_recoveries(recoveries)).await?;

    let mut line: Spooling<Write> = ServiceBuilder::new()
        .layer(SpoolLayer::new(&spool)) // jobs in, receipts out
        .layer(SequenceLayer::new()) // a numbered batch becomes one call
        .layer(RetryLayer::new(RetryPolicy::default().with_max_retries(2)))
        .map_err(Error::from) // tower's Timeout boxes its errors; the verdict is still inside
        .layer(BreakerLayer::clone(&breaker))
        .map_err(Error::from)
        .timeout(Duration::from_millis(200)) // tower's, for each attempt
        .concurrency_limit(32) // tower's as well
        .service(connection.clone());

    connection.wait_ready(Duration::from_secs(5)).await?;
    enqueue(&mut line, 1..=3).await?;
    redis.kill().await?;
    println!("Redis killed");
    enqueue(&mut line, 4..=6).await?;
    redis.restart().await?;
    println!("Redis restarted");
    spool.flush().await;

    let range = redis::cmd("LRANGE").arg("emails").arg(0).arg(-1).to_owned();
    let arrived: Vec<String> = redis.command(&range).await?;
    println!("arrived: {}", arrived.join(" "));
    spool.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

/// `line` is a `tower::Service`: anything that takes one can stand here, or go around it.
async fn enqueue(
    line: &mut Spooling<Write>,
    numbers: std::ops::RangeInclusive<u32>,
) -> Result<(), Error> {
    for number in numbers {
        let job = Job::new("emails", number.to_string()).into_write()?;
        let receipt = line.ready().await?.call(job).await?;
        println!("{number}: {:?}", receipt.place());
    }
    Ok(())
}

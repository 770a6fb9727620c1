//! A failover in which the primary takes with it what it had acknowledged, and what Seawall does about that.
//!
//! ```text
//! cargo run --features chaos --example sentinel
//! ```
//!
//! It starts a primary, two replicas and three sentinels of its own, and enqueues all the time. In the middle the
//! replicas are cut off, the primary goes on acknowledging, and is killed; the sentinels promote a replica, which
//! has none of that. Expect, within about ten seconds:
//!
//! ```text
//! node 0 has acknowledged 1026 jobs of which no replica has the last 520, and is killed
//! the master has moved: from 127.0.0.1:21768 to 127.0.0.1:11141
//! repaired: Redis had acknowledged 527 jobs and lost them, and has them again
//! books, from node 1: attempted=2240 acknowledged=2240 delivered=2240 .. lost=0 .. out_of_order=0
//! ```
//!
//! It ends with 1 if anything is lost, doubled or out of order.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{cell::Cell, process::ExitCode, time::Duration};

use prometheus::Registry;
use seawall::{
    Job, Seawall,
    chaos::{Books, SentinelSet, wait_until},
    error::BoxError,
};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mut set = SentinelSet::builder().proxied().start().await?;
    let (dir, registry) = (tempfile::tempdir()?, Registry::new());
    let seawall = Seawall::builder(&set.url(), dir.path())?.metrics(&registry);
    let seawall = seawall.connect().await?;
    seawall.connection().wait_ready(PATIENCE).await?;

    let books = Books::new();
    let over = Cell::new(false);
    let scene = async {
        fail_over(&mut set, &books, &registry).await?;
        over.set(true);
        Ok(())
    };
    tokio::try_join!(scene, enqueue_until(&over, &seawall, &books))?;
    // Ends once Redis has all that was accepted.
    let left = seawall.shutdown(PATIENCE).await?;
    println!(
        "repaired: Redis had acknowledged {} jobs and lost them, and has them again",
        repaired(&registry)
    );

    let primary = set.wait_for_primary().await?;
    for number in jobs(&set, primary).await? {
        books.deliver((QUEUE, number));
    }
    let balance = books.balance();
    println!("books, from node {primary}: {balance}");
    if left > 0 {
        println!("left on disk: {left}");
    }
    Ok(ExitCode::from(u8::from(!balance.is_clean() || left > 0)))
}

/// What happens to Redis, while jobs come in.
async fn fail_over(
    set: &mut SentinelSet,
    books: &Books,
    registry: &Registry,
) -> Result<(), BoxError> {
    acknowledged(books, 500).await?;
    let old = set.primary().await.ok_or("the sentinels know no primary")?;
    set.cut_replication(old);
    // Each of these is in the primary alone, and its producer was told that it is delivered.
    let replicated = most_on_a_replica(set, old).await?;
    let ahead = || async {
        let on_primary = jobs(set, old).await.map_or(0, |jobs| jobs.len());
        on_primary >= replicated + 500
    };
    wait_until("jobs that no replica has", PATIENCE, ahead).await?;
    let on_primary = jobs(set, old).await?.len();
    println!(
        "node {old} has acknowledged {on_primary} jobs of which no replica has the last {}, and is killed",
        on_primary - replicated
    );
    set.kill_primary().await?;

    let new = set.wait_for_primary_other_than(old).await?;
    let addrs = set.node_addrs();
    println!(
        "the master has moved: from {} to {}",
        addrs[old], addrs[new]
    );
    let repairs = || async { repaired(registry) > 0 };
    wait_until("what was lost to come back", PATIENCE, repairs).await?;
    // Also what comes after is to arrive.
    acknowledged(books, books.balance().acknowledged + 500).await
}

/// Hands in numbers, one after the other, and writes down which of them are accepted.
async fn enqueue_until(
    over: &Cell<bool>,
    seawall: &Seawall,
    books: &Books,
) -> Result<(), BoxError> {
    let mut number = 0;
    while !over.get() {
        number += 1;
        books.attempt((QUEUE, number));
        let _ = seawall.enqueue(Job::new(QUEUE, number.to_string())).await?;
        books.acknowledge((QUEUE, number));
    }
    Ok(())
}

/// Waits for the load to get so far, not for a time.
async fn acknowledged(books: &Books, count: u64) -> Result<(), BoxError> {
    let so_many = || async { books.balance().acknowledged >= count };
    Ok(wait_until("more jobs", PATIENCE, so_many).await?)
}

/// How many jobs the replica has that has most of them.
async fn most_on_a_replica(set: &SentinelSet, primary: usize) -> Result<usize, BoxError> {
    let mut most = 0;
    for node in (0..set.nodes().len()).filter(|node| *node != primary) {
        most = most.max(jobs(set, node).await?.len());
    }
    Ok(most)
}

/// The jobs that a node has, asked past all proxies.
async fn jobs(set: &SentinelSet, node: usize) -> Result<Vec<u64>, BoxError> {
    let all = redis::cmd("LRANGE").arg(QUEUE).arg(0).arg(-1).to_owned();
    Ok(set.node(node).command(&all).await?)
}

/// How many jobs Redis had acknowledged and lost, and was given back.
fn repaired(registry: &Registry) -> u64 {
    let families = registry.gather();
    let of_queues = families
        .iter()
        .filter(|family| family.name() == "seawall_repaired_total")
        .flat_map(|family| family.get_metric());
    of_queues
        .map(|of_queue| of_queue.get_counter().get_value() as u64)
        .sum()
}

const QUEUE: &str = "emails";
const PATIENCE: Duration = Duration::from_secs(30);

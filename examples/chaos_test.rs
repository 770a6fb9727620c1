//! A chaos test of your own code, to copy: a Sentinel set, a load, a fault, and the books.
//!
//! ```text
//! cargo run --features chaos --example chaos_test          # another seed each time
//! cargo run --features chaos --example chaos_test -- 7     # the seed of a run that failed
//! ```
//!
//! With `RUST_LOG=info` it shows what Seawall and the nemesis do.
//!
//! It needs a `redis-server` that can be started, and takes about a minute. Each of the two tests ends
//! with a line of counters:
//!
//! ```text
//! the primary dies: attempted=2914 acknowledged=2914 delivered=2914 .. lost=0 .. out_of_order=0
//! ```
//!
//! Among your tests each of them is a `#[tokio::test]` that asserts `balance.is_clean()`; `Outbox` is
//! where your own code goes.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{env, process::ExitCode, time::Duration};

use seawall::{
    Job, Seawall,
    chaos::{Balance, Books, Nemesis, SentinelSet, wait_until},
    error::BoxError,
};
use tempfile::TempDir;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    tracing_subscriber::fmt::init();
    let seed = match env::args().nth(1) {
        Some(seed) => seed.parse()?,
        None => rand::random(),
    };
    let died = no_job_is_lost_when_the_primary_dies().await?;
    println!("the primary dies: {died}");
    println!("nemesis, seed {seed}:");
    let attacked = no_job_is_lost_whatever_the_nemesis_does(seed).await?;
    println!("nemesis, seed {seed}: {attacked}");
    let clean = died.is_clean() && attacked.is_clean();
    Ok(ExitCode::from(u8::from(!clean)))
}

/// One fault, at a moment of your choice.
async fn no_job_is_lost_when_the_primary_dies() -> Result<Balance, BoxError> {
    let mut set = SentinelSet::builder().durable().start().await?;
    let (outbox, books) = (Outbox::open(&set.url()).await?, Books::new());
    let fault = async {
        sent(&books, 500).await?;
        let old = set.kill_primary().await?;
        let new = set.wait_for_primary_other_than(old).await?;
        println!("node {old} was killed, node {new} is the primary");
        // Also what comes after is to arrive.
        sent(&books, books.balance().attempted + 500).await?;
        set.node_mut(old).restart().await?;
        set.wait_until_healthy().await?;
        Ok::<(), BoxError>(())
    };
    tokio::select! {
        done = fault => done?,
        never = outbox.send_for_ever(&books) => match never {},
    }
    judge(&set, outbox, &books).await?;
    Ok(books.balance())
}

/// Many faults, in an order that the seed decides.
async fn no_job_is_lost_whatever_the_nemesis_does(seed: u64) -> Result<Balance, BoxError> {
    let set = SentinelSet::builder().durable().proxied().start();
    let mut set = set.await?;
    let (outbox, books) = (Outbox::open(&set.url()).await?, Books::new());
    let nemesis = Nemesis::new(seed).with_strikes(8);
    tokio::select! {
        done = nemesis.run(&mut set, |deed| println!("  {deed}")) => drop(done?),
        never = outbox.send_for_ever(&books) => match never {},
    }
    judge(&set, outbox, &books).await?;
    Ok(books.balance())
}

/// The code under test.
struct Outbox {
    seawall: Seawall,
    _spool: TempDir,
}

impl Outbox {
    async fn open(url: &str) -> Result<Self, BoxError> {
        let spool = tempfile::tempdir()?;
        Ok(Self {
            seawall: Seawall::builder(url, spool.path())?.connect().await?,
            _spool: spool,
        })
    }

    /// Sends numbers, and writes down which of them it was told are safe.
    async fn send_for_ever(&self, books: &Books) -> std::convert::Infallible {
        let mut number = 0;
        loop {
            number += 1;
            books.attempt((QUEUE, number));
            let job = Job::new(QUEUE, number.to_string());
            if self.seawall.enqueue(job).await.is_ok() {
                books.acknowledge((QUEUE, number));
            }
        }
    }

    /// Ends once all that was accepted is in Redis.
    async fn close(self) -> Result<(), BoxError> {
        match self.seawall.shutdown(PLENTY).await? {
            0 => Ok(()),
            left => Err(format!("{left} jobs are still on disk").into()),
        }
    }
}

/// Writes down what the set holds in the end: on the primary, past all proxies, and without taking
/// anything out.
async fn judge(set: &SentinelSet, outbox: Outbox, books: &Books) -> Result<(), BoxError> {
    outbox.close().await?;
    let primary = set.wait_for_primary().await?;
    let all = redis::cmd("LRANGE").arg(QUEUE).arg(0).arg(-1).to_owned();
    let all: Vec<u64> = set.node(primary).command(&all).await?;
    for number in all {
        books.deliver((QUEUE, number));
    }
    for lost in books.lost(10) {
        println!("lost: {lost}");
    }
    Ok(())
}

/// Waits for the load to get so far, not for a time.
async fn sent(books: &Books, jobs: u64) -> Result<(), BoxError> {
    let so_many = || async { books.balance().attempted >= jobs };
    Ok(wait_until("more jobs", PLENTY, so_many).await?)
}

const QUEUE: &str = "emails";
const PLENTY: Duration = Duration::from_secs(60);

//! A queue client that seawall knows nothing about, with the same protection: its own job type, its own
//! error type, and the spool, retry and breaker around it.
//!
//! ```text
//! cargo run --example wrap_your_client
//! ```
//!
//! The client here is a toy, in memory, that can be made to fail. It needs nothing else, not even a
//! Redis. Expect telegrams 1 to 3 delivered at once; 4 to 9 spooled while the office is closed; and all of
//! them, in order, once it opens. Telegram 3 arrives twice, since its first answer is lost: a foreign
//! client gets each record at least once, in order. (Exactly once takes seawall's own scripts.)
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use seawall::{
    Error,
    breaker::{BreakerLayer, BreakerOptions},
    call::{Repeat, Request},
    classify::{Class, Landed, Verdict},
    error::BoxError,
    retry::{RetryLayer, RetryPolicy},
    spool::{Spool, SpoolLayer, SpoolOptions, Spoolable, Spooling, Undecodable},
    wrap::{OneByOneLayer, wrap},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let office = TelegraphOffice::default();
    let dir = tempfile::tempdir()?;
    let breaker = BreakerLayer::new(BreakerOptions::default());
    let recoveries = breaker.handle().recoveries();
    let spool = Spool::open(SpoolOptions::new(dir.path()).with_recoveries(recoveries)).await?;

    let client = office.clone();
    let send = service_fn(move |telegram: Telegram| {
        let client = client.clone();
        async move { client.send(telegram).await }
    });
    let mut line: Spooling<Telegram> = ServiceBuilder::new()
        .layer(SpoolLayer::new(&spool))
        .layer(OneByOneLayer::new()) // a batch becomes one call after the other
        .layer(RetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        .service(wrap(send, verdict));

    enqueue(&mut line, 1..=2).await?;
    office.lose_next_answer();
    enqueue(&mut line, 3..=3).await?;
    office.set_open(false);
    println!("the office closes");
    enqueue(&mut line, 4..=9).await?;
    office.set_open(true);
    println!("the office opens");
    spool.flush().await;

    println!("arrived: {}", office.arrived().join(" "));
    spool.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

async fn enqueue(
    line: &mut Spooling<Telegram>,
    numbers: std::ops::RangeInclusive<u32>,
) -> Result<(), Error> {
    for number in numbers {
        let telegram = Telegram {
            town: "Bergen".into(),
            text: number.to_string(),
        };
        let receipt = line.ready().await?.call(telegram).await?;
        println!("{number}: {:?}", receipt.place());
    }
    Ok(())
}

// ===== what you write for your client: a verdict on its errors, and how a job is kept on disk =====

/// Whose fault is it, and was the work done?
fn verdict(error: &TelegraphError) -> Verdict {
    match error {
        TelegraphError::Closed => Verdict::new(Class::Outage, Landed::No),
        TelegraphError::NoAnswer => Verdict::new(Class::Transient, Landed::Maybe),
        TelegraphError::TooLong => Verdict::new(Class::Permanent, Landed::No),
    }
}

impl Request for Telegram {
    fn name(&self) -> &'static str {
        "telegram"
    }

    /// Rather twice than not at all. `Unsafe` would return a telegram in doubt to its sender instead.
    fn repeat(&self) -> Repeat {
        Repeat::Safe
    }
}

impl Spoolable for Telegram {
    /// Telegrams to one town stay in order.
    fn queue(&self) -> &str {
        &self.town
    }

    fn size(&self) -> usize {
        self.text.len()
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.text.as_bytes());
    }

    fn decode(town: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let text = String::from_utf8(bytes.into()).map_err(|_| Undecodable::new("not UTF-8"))?;
        Ok(Self {
            town: town.clone(),
            text,
        })
    }
}

// ===== the client, as it came =====

#[derive(Clone, Debug)]
struct Telegram {
    town: Arc<str>,
    text: String,
}

#[derive(Debug, thiserror::Error)]
enum TelegraphError {
    #[error("the office is closed")]
    Closed,
    #[error("the line went dead before an answer")]
    NoAnswer,
    #[error("nobody pays for that many words")]
    TooLong,
}

#[derive(Clone, Debug, Default)]
struct TelegraphOffice {
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug, Default)]
struct Desk {
    closed: bool,
    loses_next_answer: bool,
    arrived: Vec<String>,
}

impl TelegraphOffice {
    async fn send(&self, telegram: Telegram) -> Result<(), TelegraphError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut desk = self.desk.lock();
        if desk.closed {
            return Err(TelegraphError::Closed);
        }
        if telegram.text.len() > 100 {
            return Err(TelegraphError::TooLong);
        }
        desk.arrived.push(telegram.text);
        if std::mem::take(&mut desk.loses_next_answer) {
            return Err(TelegraphError::NoAnswer);
        }
        Ok(())
    }

    fn set_open(&self, open: bool) {
        self.desk.lock().closed = !open;
    }

    fn lose_next_answer(&self) {
        self.desk.lock().loses_next_answer = true;
    }

    fn arrived(&self) -> Vec<String> {
        self.desk.lock().arrived.clone()
    }
}

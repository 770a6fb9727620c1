//! `stat`: how much there is.

use std::{
    fmt::{self, Display},
    time::SystemTime,
};

use clap::Args;
use seawall::worker::{QueueStat, queues};
use serde::Serialize;

use super::reach::{Reach, failed, is_name};
use crate::{
    Out, Result,
    failure::Failure,
    output::{Column, Side::Left, Side::Right, Table},
    text::{age, count, moment, plain, unix_ms},
};

/// Count what is in a queue, or in all of them: by state, with the oldest, who works, and what has happened
#[derive(Args)]
pub(crate) struct Arguments {
    /// The queue's name; all that there are without it, which takes a look at each key's name
    #[arg(value_name = "QUEUE")]
    name: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    if let Some(name) = &arguments.name {
        is_name(name)?;
        let redis = arguments.reach.open().await?;
        let stat = redis
            .queue(name)
            .stat()
            .await
            .map_err(|error| failed(&error))?;
        return out.report(&Report::of(name, &stat));
    }
    let redis = arguments.reach.open().await?;
    let names = queues(redis.line.clone())
        .await
        .map_err(|error| all(&error))?;
    let mut table = Table::new(COLUMNS);
    let mut broken = None;
    for name in &names {
        match redis.queue(name).stat().await {
            Ok(stat) if out.is_json() => out.record(&Report::of(name, &stat))?,
            Ok(stat) => table.push(Report::of(name, &stat).row()),
            // The others are looked at all the same.
            Err(error) if error.is_permanent() => {
                broken.get_or_insert(failed(&error).about(name));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    if !out.is_json() {
        table.write(out)?;
    }
    broken.map_or(Ok(()), Err)
}

fn all(error: &seawall::Error) -> Failure {
    match error.kind() {
        seawall::error::ErrorKind::Invalid => {
            failed(error).with_next("name the queue: `seawall queue stat QUEUE`")
        }
        _ => failed(error),
    }
}

const COLUMNS: &[Column] = &[
    ("QUEUE", Left),
    ("READY", Right),
    ("LATER", Right),
    ("RUNNING", Right),
    ("RETRYING", Right),
    ("DEAD", Right),
    ("DONE", Right),
    ("WORKERS", Right),
    ("OLDEST", Left),
];

#[derive(Serialize)]
struct Report<'a> {
    queue: &'a str,
    ready: u64,
    later: u64,
    running: u64,
    /// Failed at least once, and neither finished nor dead.
    retrying: u64,
    dead: u64,
    /// Finished, and how is still known.
    done: u64,
    workers: u64,
    oldest_ready_ms: Option<u64>,
    next_due_ms: Option<u64>,
    /// By the clock of Redis.
    now_ms: u64,
    counters: Counters,
}

#[derive(Serialize)]
struct Counters {
    succeeded: u64,
    retried: u64,
    dead: u64,
    expired: u64,
    discarded: u64,
    released: u64,
}

impl<'a> Report<'a> {
    fn of(queue: &'a str, stat: &QueueStat) -> Self {
        let ms = |at: Option<SystemTime>| at.map(unix_ms);
        let counters = &stat.counters;
        Self {
            queue,
            ready: stat.ready,
            later: stat.later,
            running: stat.running,
            retrying: stat.retrying,
            dead: stat.dead,
            done: stat.done,
            workers: stat.workers,
            oldest_ready_ms: ms(stat.oldest_ready),
            next_due_ms: ms(stat.next_due),
            now_ms: unix_ms(stat.at),
            counters: Counters {
                succeeded: counters.succeeded,
                retried: counters.retried,
                dead: counters.dead,
                expired: counters.expired,
                discarded: counters.discarded,
                released: counters.released,
            },
        }
    }

    fn row(&self) -> Vec<String> {
        let numbers = [
            self.ready,
            self.later,
            self.running,
            self.retrying,
            self.dead,
            self.done,
            self.workers,
        ];
        let oldest = self.oldest_ready_ms.map(|at| age(at, self.now_ms));
        let mut row = vec![plain(self.queue)];
        row.extend(numbers.map(count));
        row.push(oldest.unwrap_or("-".to_owned()));
        row
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<10} {value}");
        row("queue", plain(self.queue))?;
        let waiting = self.oldest_ready_ms.map_or(String::new(), |at| {
            format!(", the first for {}", age(at, self.now_ms))
        });
        row("ready", format!("{}{waiting}", count(self.ready)))?;
        let next = self
            .next_due_ms
            .map_or(String::new(), |at| format!(", the next at {}", moment(at)));
        row("later", format!("{}{next}", count(self.later)))?;
        row("running", count(self.running))?;
        row("retrying", count(self.retrying))?;
        row("dead", count(self.dead))?;
        row("done", count(self.done))?;
        row("workers", count(self.workers))?;
        let counters = &self.counters;
        let counters = [
            ("succeeded", counters.succeeded),
            ("retried", counters.retried),
            ("died", counters.dead),
            ("expired", counters.expired),
            ("discarded", counters.discarded),
            ("given back", counters.released),
        ];
        let counters = counters.map(|(name, number)| format!("{} {name}", count(number)));
        row("so far", counters.join(", "))
    }
}

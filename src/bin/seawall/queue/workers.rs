//! `workers`: who is there.

use std::time::SystemTime;

use clap::Args;
use seawall::worker::{WorkerInfo, WorkerState};
use serde::Serialize;

use super::reach::{OneQueue, failed};
use crate::{
    Out, Result,
    output::{Column, Side::Left, Side::Right, Table},
    text::{age, count, moment, plain, unix_ms},
};

/// List who works: alive, silent (their lease has ended), and gone (taken for dead within the last hour)
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    queue: OneQueue,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    let workers = queue.workers().await.map_err(|error| failed(&error))?;
    let mut table = Table::new(COLUMNS);
    for worker in &workers {
        if out.is_json() {
            out.record(&Row::of(worker))?;
        } else {
            table.push(row(worker));
        }
    }
    match out.is_json() {
        true => Ok(()),
        false => table.write(out),
    }
}

const COLUMNS: &[Column] = &[
    ("WORKER", Left),
    ("STATE", Left),
    ("HOST", Left),
    ("PID", Right),
    ("IN FLIGHT", Right),
    ("OF", Right),
    ("STARTED", Left),
    ("BEAT", Left),
    ("DONE", Right),
    ("QUEUES", Left),
];

fn row(worker: &WorkerInfo) -> Vec<String> {
    let now = unix_ms(SystemTime::now());
    let queues: Vec<_> = worker.queues.iter().map(|queue| plain(queue)).collect();
    let state = match worker.state {
        WorkerState::Alive => "alive".to_owned(),
        state => format!("{state} for {}", age(unix_ms(worker.since), now)),
    };
    let beat = worker
        .last_beat
        .map(|at| format!("{} ago", age(unix_ms(at), now)));
    let started = worker.started_at.map(|at| moment(unix_ms(at)));
    let or_none = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    vec![
        plain(worker.id.as_str()),
        state,
        or_none(plain(&worker.host)),
        or_none(match worker.pid {
            0 => String::new(),
            pid => pid.to_string(),
        }),
        count(worker.in_flight),
        count(worker.concurrency),
        started.unwrap_or("-".to_owned()),
        beat.unwrap_or("-".to_owned()),
        count(worker.counters.succeeded),
        or_none(queues.join(",")),
    ]
}

#[derive(Serialize)]
struct Row<'a> {
    worker: &'a str,
    state: &'static str,
    since_ms: u64,
    host: &'a str,
    pid: u32,
    queues: &'a [String],
    concurrency: u64,
    in_flight: u64,
    started_ms: Option<u64>,
    last_beat_ms: Option<u64>,
    counters: Counters,
}

#[derive(Serialize)]
struct Counters {
    started: u64,
    succeeded: u64,
    retried: u64,
    dead: u64,
    expired: u64,
    discarded: u64,
    released: u64,
    lost: u64,
    claimed: u64,
    kept: u64,
}

impl<'a> Row<'a> {
    fn of(worker: &'a WorkerInfo) -> Self {
        let counters = &worker.counters;
        Self {
            worker: worker.id.as_str(),
            state: worker.state.as_str(),
            since_ms: unix_ms(worker.since),
            host: &worker.host,
            pid: worker.pid,
            queues: &worker.queues,
            concurrency: worker.concurrency,
            in_flight: worker.in_flight,
            started_ms: worker.started_at.map(unix_ms),
            last_beat_ms: worker.last_beat.map(unix_ms),
            counters: Counters {
                started: counters.started,
                succeeded: counters.succeeded,
                retried: counters.retried,
                dead: counters.dead,
                expired: counters.expired,
                discarded: counters.discarded,
                released: counters.released,
                lost: counters.lost,
                claimed: counters.claimed,
                kept: counters.kept,
            },
        }
    }
}

//! Who is there: [`Queue::workers`].

use std::{collections::HashMap, fmt, time::SystemTime};

use super::{Queue, info::time, script::WORKERS};
use crate::{
    error::Error,
    worker::presence::{About, Counters, WorkerId},
};

impl Queue {
    /// The workers of the queue: those that work, those whose lease has ended and who may still be there, and those
    /// that were taken for dead within the last hour. At most 1,000 of each, the latest first.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        type Listed = Vec<(String, f64, Option<Vec<u8>>)>;
        type Answer = (u64, Listed, Listed, Vec<(String, u64)>, bool);
        let answer: Answer = self.ask(&WORKERS, [MOST.to_string()]).await?;
        let (now_ms, there, gone, counted, is_counted) = answer;
        let counted: HashMap<_, _> = counted.into_iter().collect();
        let there = there.into_iter().map(|(token, until, about)| {
            let until = until as u64;
            let state = match until >= now_ms {
                true => WorkerState::Alive,
                false => WorkerState::Silent,
            };
            (token, state, until, about)
        });
        // One that has ended in order may be on the list, and has left nothing to say.
        let gone = gone.into_iter().filter(|(_, _, about)| about.is_some());
        let gone = gone.map(|(token, at, about)| (token, WorkerState::Gone, at as u64, about));
        let workers = there.chain(gone).map(|(token, state, at_ms, about)| {
            let about = about.and_then(|json| serde_json::from_slice(&json).ok());
            let about: About = about.unwrap_or_default();
            let in_flight = match is_counted {
                true => counted.get(&token).copied().unwrap_or(0),
                false => about.in_flight as u64,
            };
            WorkerInfo {
                state,
                since: time(at_ms).unwrap_or(SystemTime::UNIX_EPOCH),
                host: about.host,
                pid: about.pid,
                queues: about.queues.into_iter().map(|share| share.name).collect(),
                concurrency: about.concurrency as u64,
                in_flight,
                started_at: time(about.started_at),
                last_beat: time(about.beat_at),
                counters: about.counters.into(),
                id: WorkerId::of(token),
            }
        });
        Ok(workers.collect())
    }
}

const MOST: usize = 1_000;

/// A worker of a queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// What it is called in Redis.
    pub id: WorkerId,
    /// Whether it is there.
    pub state: WorkerState,
    /// For one that is [alive](WorkerState::Alive), until when it has its lease; for one that is
    /// [silent](WorkerState::Silent), when that ended; for one that is [gone](WorkerState::Gone), when it was taken for
    /// dead.
    pub since: SystemTime,
    /// Its machine's name; empty as long as it has not said.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// All the queues that it works for.
    pub queues: Vec<String>,
    /// How many jobs it takes at once.
    pub concurrency: u64,
    /// How many jobs of this queue it has now.
    pub in_flight: u64,
    /// When it started, by its own clock.
    pub started_at: Option<SystemTime>,
    /// When it last said how it is, by its own clock.
    pub last_beat: Option<SystemTime>,
    /// What it had done by then, of all its queues.
    pub counters: WorkerCounters,
}

/// Whether a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// It has its lease.
    Alive,
    /// Its lease has ended. It has died, or can't reach Redis, and nobody has taken its jobs yet.
    Silent,
    /// It was taken for dead, and its jobs were given to others. If it still lives, it has been told so.
    Gone,
}

impl WorkerState {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a worker has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounters {
    /// Executions begun.
    pub started: u64,
    /// Jobs that have ended well.
    pub succeeded: u64,
    /// Attempts that failed and were followed by another one.
    pub retried: u64,
    /// Jobs that became dead letters.
    pub dead: u64,
    /// Jobs whose time had passed.
    pub expired: u64,
    /// Jobs that were discarded.
    pub discarded: u64,
    /// Jobs that it gave back.
    pub released: u64,
    /// Executions that were taken from it since it did not renew its lease.
    pub lost: u64,
    /// Jobs that it took over from workers that were taken for dead.
    pub claimed: u64,
    /// Completions that were kept on disk until Redis was back.
    pub kept: u64,
}

impl From<Counters> for WorkerCounters {
    fn from(counted: Counters) -> Self {
        Self {
            started: counted.started,
            succeeded: counted.succeeded,
            retried: counted.retried,
            dead: counted.dead,
            expired: counted.expired,
            discarded: counted.discarded,
            released: counted.released,
            lost: counted.lost,
            claimed: counted.claimed,
            kept: counted.kept,
        }
    }
}

//! How much there is of everything: [`QueueStat`].

use std::time::SystemTime;

/// A queue in numbers, all of one moment. Made by [`Queue::stat`](super::Queue::stat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStat {
    /// Jobs that wait for a worker. A few may be counted that were [deleted](super::Queue::delete), until a worker
    /// comes to them.
    pub ready: u64,
    /// Jobs that wait for their time: scheduled ones, and failed ones that are going to be tried again.
    pub later: u64,
    /// Jobs that a worker has.
    pub running: u64,
    /// Jobs that have failed at least once and are neither finished nor dead, wherever they are.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// Finished jobs whose outcome is still known.
    pub done: u64,
    /// Workers that have their lease.
    pub workers: u64,
    /// Since when the job at the front has been waiting: when it was enqueued, or due if that is later.
    pub oldest_ready: Option<SystemTime>,
    /// When the next one is due of those that wait for their time.
    pub next_due: Option<SystemTime>,
    /// What has happened so far.
    pub counters: QueueCounters,
    /// When this was, by the clock of Redis.
    pub at: SystemTime,
}

/// What has happened in a queue since its first job, as far as Redis remembers. Counted once for each job, or
/// attempt, whatever was sent twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Jobs that have ended well.
    pub succeeded: u64,
    /// Attempts that failed and that the job was given another one after.
    pub retried: u64,
    /// Jobs that became dead letters.
    pub dead: u64,
    /// Jobs whose time had passed.
    pub expired: u64,
    /// Jobs that were discarded.
    pub discarded: u64,
    /// Jobs that a worker gave back when it ended.
    pub released: u64,
}

impl QueueCounters {
    /// From the pairs in Redis; names of a newer version mean nothing here.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Self {
        let mut counters = Self::default();
        for (name, number) in pairs {
            let counter = match &*name {
                "succeeded" => &mut counters.succeeded,
                "retried" => &mut counters.retried,
                "dead" => &mut counters.dead,
                "expired" => &mut counters.expired,
                "discarded" => &mut counters.discarded,
                "released" => &mut counters.released,
                _ => continue,
            };
            *counter = number.parse().unwrap_or(0);
        }
        counters
    }
}

//! Workers.

mod queue;

pub use self::queue::{
    Counters, InvalidJobState, JobInfo, JobPage, JobState, Page, Queue, QueueStat, WorkerCounters,
    WorkerInfo, WorkerState, queues,
};

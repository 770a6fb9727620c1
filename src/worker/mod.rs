//! Executes jobs. A placeholder: the worker itself has this file.

mod budget;
mod decision;
mod failure;
mod queue;
mod task_error;

pub use self::{
    decision::DeadReason,
    failure::Failure,
    queue::{
        Counters, InvalidJobState, JobInfo, JobPage, JobState, Page, Queue, QueueStat,
        WorkerCounters, WorkerInfo, WorkerState, queues,
    },
    task_error::{FailedAttempt, TaskError},
};

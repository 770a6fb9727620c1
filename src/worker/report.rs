//! What a worker has done, once it has ended: [`WorkerReport`], or why it did not begin: [`WorkerError`].

use crate::error::InvalidSetting;

/// What a worker has done until it ended. Made by [`Builder::run`](super::Builder::run).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Executions begun.
    pub started: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Executions that failed and whose jobs are executed again; those of workers that died among them.
    pub retried: u64,
    /// Jobs that became dead letters.
    pub dead: u64,
    /// Jobs whose time had passed before they could be executed.
    pub expired: u64,
    /// Jobs that the handler had discarded.
    pub discarded: u64,
    /// Jobs given back unfinished when the worker ended.
    pub released: u64,
    /// Executions cancelled because others had taken the worker for dead, or the job over.
    pub lost: u64,
    /// Jobs taken over from workers that had died.
    pub claimed: u64,
    /// Completions that went to disk because Redis was out. They are applied when it is back, by this process or the
    /// next one on the same spool.
    pub completions_kept: u64,
    /// Completions that are neither in Redis nor on disk: their jobs are executed again after the lease. Not 0 only
    /// if the disk failed or was full while Redis was out.
    pub completions_lost: u64,
}

/// Why a worker did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A setting makes no sense. Nothing was fetched.
    #[error("cannot run the worker")]
    Setting(#[from] InvalidSetting),
    /// The [`Seawall`](crate::Seawall) has been shut down: nothing would keep what the worker finishes.
    #[error("the worker's Seawall has been shut down")]
    Closed,
    /// The worker was not called inside a tokio runtime, or that was shut down under it.
    #[error("the worker needs a tokio runtime")]
    NoRuntime,
}

//! One job, as it is found: [`JobInfo`].

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{JobState, facts::Facts};
use crate::{
    job::{
        JobId,
        task::{Record, Unreadable},
    },
    worker::TaskError,
};

/// A job, as it was at one moment. Made by [`Queue::job`](super::Queue::job), and by lists without what is in it.
///
/// Its `Debug` output shows neither its payload nor its result nor a header.
#[derive(Clone)]
pub struct JobInfo {
    id: JobId,
    state: JobState,
    facts: Facts,
    /// Of a job that is not finished.
    record: Option<Result<Record, Unreadable>>,
    /// Of one that is not finished, if it has failed.
    error: Option<TaskError>,
    is_whole: bool,
}

impl JobInfo {
    /// `None` if there is no such job. Of a listed one `facts` hold only the beginning of the record, and of its result
    /// the first letter.
    pub(super) fn of(id: JobId, facts: Facts, now_ms: u64, is_whole: bool) -> Option<Self> {
        Some(Self {
            id,
            state: facts.state(now_ms)?,
            record: facts.record.clone().map(Record::decode),
            error: facts.failures.as_deref().and_then(TaskError::parse),
            facts,
            is_whole,
        })
    }

    /// Its headers reach beyond what was fetched of the record.
    pub(super) fn is_cut_short(&self) -> bool {
        let cut = self.facts.record.as_ref().map_or(0, Bytes::len) < self.facts.record_len;
        cut && matches!(self.record, Some(Err(_)))
    }

    /// As it is in a list.
    pub(super) fn without_content(mut self) -> Self {
        self.is_whole = false;
        self
    }

    /// Its id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Where it is.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// How often it was started so far. `None` once it is finished: that is not kept.
    pub fn attempts(&self) -> Option<u32> {
        self.record.as_ref()?;
        let failed = self.error.as_ref().map_or(0, TaskError::attempts);
        let runs = self.facts.execution().map(|(attempt, _)| attempt);
        Some(runs.map_or(failed, |runs| runs.max(failed)))
    }

    /// How many retries it has left, if it brings [retries of its own](crate::job::Handling::with_retries). `None` if
    /// they are the worker's, which only that knows, and once it is finished.
    pub fn retries_left(&self) -> Option<u32> {
        let retries = self.readable()?.handling.retries()?;
        if self.state == JobState::Dead {
            return Some(0);
        }
        let error = self.error.as_ref();
        let before = error.map_or(0, TaskError::attempts_before_requeue);
        let started = self.attempts()?.saturating_sub(before);
        Some(retries.max().saturating_sub(started.saturating_sub(1)))
    }

    /// What went wrong with it so far: the last failure, and those before. `None` if it has not failed, and once it is
    /// finished.
    pub fn error(&self) -> Option<&TaskError> {
        self.error.as_ref()
    }

    /// When it was enqueued. `None` once it is finished.
    pub fn enqueued_at(&self) -> Option<SystemTime> {
        self.of_record(|record| record.enqueued_ms)
    }

    /// When it is due, if it waits for that; or else when it was to be due first, if it was enqueued for later.
    pub fn due_at(&self) -> Option<SystemTime> {
        match self.state {
            JobState::Scheduled | JobState::Failed => self.facts.later.and_then(time),
            _ => self.of_record(|record| record.due_ms),
        }
    }

    /// From when on it is not worth running, if it ever is.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.of_record(|record| record.expires_ms)
    }

    /// Until when a dead letter is kept, or the outcome of a finished job.
    pub fn kept_until(&self) -> Option<SystemTime> {
        match self.state {
            JobState::Dead => self.facts.dead.and_then(time),
            state if state.is_final() => self.facts.done.and_then(time),
            _ => None,
        }
    }

    /// The worker that has it: the [id](super::WorkerInfo::id) of one of [`Queue::workers`](super::Queue::workers).
    pub fn worker(&self) -> Option<&str> {
        let running = self.state == JobState::Running;
        self.facts
            .execution()
            .filter(|_| running)
            .map(|(_, token)| token)
    }

    /// Its headers.
    pub fn headers(&self) -> &[(Bytes, Bytes)] {
        self.readable().map_or(&[], |record| &record.headers)
    }

    /// How many bytes its payload has. `None` once it is finished.
    pub fn payload_len(&self) -> Option<usize> {
        let missing = self.facts.record_len - self.facts.record.as_ref().map_or(0, Bytes::len);
        self.readable().map(|record| record.payload.len() + missing)
    }

    /// Its payload. `None` once it is finished, and in lists: [`Queue::job`](super::Queue::job) has it.
    pub fn payload(&self) -> Option<&Bytes> {
        let record = self.readable().filter(|_| self.is_whole);
        record.map(|record| &record.payload)
    }

    /// How many bytes its result has, if it is finished and has one.
    pub fn result_len(&self) -> Option<usize> {
        let finished = self.state.is_final() && self.state != JobState::Dead;
        let len = finished.then(|| self.facts.result_len.saturating_sub(1));
        len.filter(|len| *len > 0)
    }

    /// Its result, if it is finished and has one. `None` in lists: [`Queue::job`](super::Queue::job) has it.
    pub fn result(&self) -> Option<Bytes> {
        self.result_len().filter(|_| self.is_whole)?;
        self.facts.result.as_ref().map(|result| result.slice(1..))
    }

    /// Why the job as it is stored can't be read, if it can't: a newer version has written it, or not seawall. Its
    /// state and its errors are known all the same.
    pub fn unreadable(&self) -> Option<String> {
        match &self.record {
            Some(Err(unreadable)) => Some(unreadable.to_string()),
            _ => None,
        }
    }

    pub(super) fn failures(&self) -> &[u8] {
        self.facts.failures.as_deref().unwrap_or_default()
    }

    fn readable(&self) -> Option<&Record> {
        self.record.as_ref()?.as_ref().ok()
    }

    fn of_record(&self, ms: impl FnOnce(&Record) -> u64) -> Option<SystemTime> {
        self.readable().map(ms).and_then(time)
    }
}

impl fmt::Debug for JobInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobInfo")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("attempts", &self.attempts())
            .field("error_type", &self.error().map(TaskError::error_type))
            .field("bytes", &self.payload_len())
            .finish_non_exhaustive()
    }
}

/// Milliseconds since 1970; 0 is no time.
pub(super) fn time(ms: u64) -> Option<SystemTime> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    at.filter(|_| ms > 0)
}

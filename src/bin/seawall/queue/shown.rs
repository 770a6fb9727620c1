//! A job as it is shown.

use std::time::SystemTime;

use bytes::Bytes;
use seawall::worker::{FailedAttempt, JobInfo, JobState, TaskError};
use serde::Serialize;

use crate::{
    Out, Result,
    output::{Column, Side::Left, Side::Right, Table},
    show::Part,
    text::{age, count, moment, payload, plain, size, unix_ms},
};

#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    id: String,
    queue: &'a str,
    state: &'static str,
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries_left: Option<u32>,
    enqueued_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_until_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a str>,
    /// Their names: the values are a part of what is in it.
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failed<'a>>,
    #[serde(flatten)]
    inside: Option<Inside>,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(flatten)]
    last: Attempt<'a>,
    attempts: u32,
    retry_count: u32,
    deaths: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    requeued_ms: Option<u64>,
    /// The oldest first.
    history: Vec<Attempt<'a>>,
}

#[derive(Clone, Serialize)]
struct Attempt<'a> {
    attempt: u32,
    error_type: &'a str,
    message: &'a str,
    started_ms: u64,
    failed_ms: u64,
    worker: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// What is shown only if it is asked for.
#[derive(Serialize)]
struct Inside {
    header_values: Vec<Part>,
    payload: Option<Part>,
    result: Option<Part>,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(queue: &'a str, job: &'a JobInfo, inside: bool) -> Self {
        let ms = |at: Option<SystemTime>| at.map(unix_ms);
        let names = job.headers().iter().map(|(name, _)| payload(name));
        Self {
            id: job.id().to_string(),
            queue,
            state: job.state().as_str(),
            attempts: job.attempts(),
            retries_left: job.retries_left(),
            enqueued_ms: ms(job.enqueued_at()),
            due_ms: ms(job.due_at()),
            expires_ms: ms(job.expires_at()),
            kept_until_ms: ms(job.kept_until()),
            worker: job.worker(),
            headers: names.collect(),
            bytes: job.payload_len(),
            result_bytes: job.result_len(),
            unreadable: job.unreadable(),
            error: job.error().map(Failed::of),
            inside: inside.then(|| Inside::of(job)),
        }
    }

    /// All of it, for people.
    pub(crate) fn lines(&self, out: &mut Out) -> Result<()> {
        let now = unix_ms(SystemTime::now());
        let mut row = |name: &str, value: String| out.line(format_args!("{name:<12} {value}"));
        row("id", self.id.clone())?;
        row("queue", plain(self.queue))?;
        row("state", self.state.to_owned())?;
        if let Some(attempts) = self.attempts {
            let left = self
                .retries_left
                .map(|left| format!(", {left} retries left"));
            let left = left.unwrap_or_default();
            row("attempts", format!("{}{left}", count(attempts.into())))?;
        }
        let times = [
            ("enqueued", self.enqueued_ms),
            ("due", self.due_ms),
            ("expires", self.expires_ms),
            ("kept until", self.kept_until_ms),
        ];
        for (name, at) in times {
            if let Some(at) = at {
                row(name, when(at, now))?;
            }
        }
        if let Some(worker) = self.worker {
            row("worker", plain(worker))?;
        }
        if let Some(unreadable) = &self.unreadable {
            row("unreadable", plain(unreadable))?;
        }
        if let Some(bytes) = self.bytes {
            row("payload", size(bytes as u64))?;
        }
        if let Some(bytes) = self.result_bytes {
            row("result", size(bytes as u64))?;
        }
        if !self.headers.is_empty() && self.inside.is_none() {
            row("headers", self.headers.join(", "))?;
        }
        if let Some(inside) = &self.inside {
            for (name, value) in self.headers.iter().zip(&inside.header_values) {
                row("header", format!("{name}: {}", value.text()))?;
            }
            if let Some(payload) = &inside.payload {
                row("", payload.text())?;
            }
            if let Some(result) = &inside.result {
                row("", result.text())?;
            }
        }
        let Some(error) = &self.error else {
            return Ok(());
        };
        row(
            "error",
            format!(
                "{}: {}",
                plain(error.last.error_type),
                plain(error.last.message)
            ),
        )?;
        if let Some(reason) = error.last.reason {
            row("reason", reason.to_owned())?;
        }
        if let Some(at) = error.requeued_ms {
            row("requeued", when(at, now))?;
        }
        if error.deaths > 0 {
            row(
                "deaths",
                format!("{} workers died in it", count(error.deaths.into())),
            )?;
        }
        out.line("")?;
        let mut table = Table::new(HISTORY).indented();
        for attempt in &error.history {
            table.push(vec![
                count(attempt.attempt.into()),
                moment(attempt.failed_ms),
                plain(attempt.error_type),
                plain(attempt.message),
                plain(attempt.worker),
            ]);
        }
        table.write(out)
    }
}

const HISTORY: &[Column] = &[
    ("ATTEMPT", Right),
    ("FAILED", Left),
    ("ERROR", Left),
    ("MESSAGE", Left),
    ("WORKER", Left),
];

/// A time, and how far it is away.
fn when(at: u64, now: u64) -> String {
    if at > now {
        format!("{} (in {})", moment(at), age(now, at))
    } else {
        format!("{} ({} ago)", moment(at), age(at, now))
    }
}

impl<'a> Failed<'a> {
    fn of(error: &'a TaskError) -> Self {
        let history: Vec<_> = error.history().iter().map(Attempt::of).collect();
        let last = history.last().cloned().unwrap_or(Attempt {
            attempt: error.attempts(),
            error_type: error.error_type(),
            message: error.message(),
            started_ms: unix_ms(error.started_at()),
            failed_ms: unix_ms(error.failed_at()),
            worker: error.worker(),
            reason: None,
        });
        Self {
            last,
            attempts: error.attempts(),
            retry_count: error.retry_count(),
            deaths: error.deaths(),
            requeued_ms: error.requeued_at().map(unix_ms),
            history,
        }
    }
}

impl<'a> Attempt<'a> {
    fn of(attempt: &'a FailedAttempt) -> Self {
        Self {
            attempt: attempt.attempt(),
            error_type: attempt.error_type(),
            message: attempt.message(),
            started_ms: unix_ms(attempt.started_at()),
            failed_ms: unix_ms(attempt.failed_at()),
            worker: attempt.worker(),
            reason: attempt.reason().map(|reason| reason.as_str()),
        }
    }
}

impl Inside {
    fn of(job: &JobInfo) -> Self {
        let part = |bytes: &Bytes| Part::of(bytes);
        Self {
            header_values: job.headers().iter().map(|(_, value)| part(value)).collect(),
            payload: job.payload().map(part),
            result: job.result().as_ref().map(part),
        }
    }
}

/// Jobs, one a line.
pub(crate) struct Rows(Table);

impl Rows {
    pub(crate) fn new() -> Self {
        Self(Table::new(COLUMNS))
    }

    pub(crate) fn push(&mut self, queue: &str, job: &JobInfo, out: &mut Out) -> Result<()> {
        if out.is_json() {
            return out.record(&Shown::of(queue, job, false));
        }
        let at = |at: Option<SystemTime>| at.map_or("-".to_owned(), |at| moment(unix_ms(at)));
        let number = |number: Option<u64>| number.map_or("-".to_owned(), count);
        let until = match job.state() {
            JobState::Scheduled | JobState::Failed => job.due_at(),
            _ => job.kept_until(),
        };
        let error = match (job.unreadable(), job.error()) {
            (Some(_), _) => "unreadable".to_owned(),
            (None, Some(error)) => plain(error.error_type()),
            (None, None) => "-".to_owned(),
        };
        self.0.push(vec![
            job.id().to_string(),
            job.state().to_string(),
            number(job.attempts().map(u64::from)),
            at(job.enqueued_at()),
            at(until),
            job.payload_len()
                .map_or("-".to_owned(), |bytes| size(bytes as u64)),
            error,
        ]);
        self.0.spill(out)
    }

    pub(crate) fn end(mut self, out: &mut Out) -> Result<()> {
        match out.is_json() {
            true => Ok(()),
            false => self.0.write(out),
        }
    }
}

const COLUMNS: &[Column] = &[
    ("ID", Left),
    ("STATE", Left),
    ("ATTEMPTS", Right),
    ("ENQUEUED", Left),
    // It is due, or is forgotten.
    ("UNTIL", Left),
    ("BYTES", Right),
    ("ERROR", Left),
];

//! What went wrong with a job so far: [`TaskError`].

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    decision::DeadReason,
    failure::{Failure, LONGEST_MESSAGE, LONGEST_TYPE, cut},
};

/// The record of a job's failures: the last one in full, and those before it as far as they are kept.
///
/// It stays with the job while that waits for its next execution and while it is among the dead letters. The ten
/// latest failures are kept, or fewer if their messages are long: 16 KiB in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    tries: u32,
    deaths: u32,
    requeue: Option<Requeue>,
    /// Oldest first. Empty only if what was stored could not be read.
    history: Vec<FailedAttempt>,
}

/// Somebody gave a dead letter another chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Requeue {
    /// How many executions had failed by then.
    tries: u32,
    /// Milliseconds since 1970.
    at: u64,
}

/// One execution of a job that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    attempt: u32,
    error_type: String,
    message: String,
    /// Milliseconds since 1970.
    started: u64,
    failed: u64,
    worker: String,
    reason: Option<DeadReason>,
}

impl TaskError {
    /// What kind of failure the last one was: see [`Failure`].
    pub fn error_type(&self) -> &str {
        self.latest().map_or(UNREADABLE, FailedAttempt::error_type)
    }

    /// What happened the last time.
    pub fn message(&self) -> &str {
        self.latest().map_or("", FailedAttempt::message)
    }

    /// How many retries had been made when it failed last: 0 after the first execution. If it was requeued by hand,
    /// those since then.
    pub fn retry_count(&self) -> u32 {
        let since = self.tries.saturating_sub(self.attempts_before_requeue());
        since.saturating_sub(1)
    }

    /// When somebody last gave the job another chance, after it had been dead: see
    /// [`Queue::requeue`](super::Queue::requeue).
    pub fn requeued_at(&self) -> Option<SystemTime> {
        self.requeued_ms().map(moment)
    }

    pub(super) fn requeued_ms(&self) -> Option<u64> {
        self.requeue.map(|requeue| requeue.at)
    }

    /// How many executions had failed when somebody last gave the job another chance; they do not count against its
    /// retries.
    pub fn attempts_before_requeue(&self) -> u32 {
        self.requeue.map_or(0, |requeue| requeue.tries)
    }

    /// How many executions have failed, those included whose worker died.
    pub fn attempts(&self) -> u32 {
        self.tries
    }

    /// In how many of them the worker died. If it was requeued by hand, since then.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// When the last execution started.
    pub fn started_at(&self) -> SystemTime {
        self.latest().map_or(UNIX_EPOCH, FailedAttempt::started_at)
    }

    /// When it failed last.
    pub fn failed_at(&self) -> SystemTime {
        self.latest().map_or(UNIX_EPOCH, FailedAttempt::failed_at)
    }

    /// Which worker it failed on last.
    pub fn worker(&self) -> &str {
        self.latest().map_or("", FailedAttempt::worker)
    }

    /// Why it is not tried again; `None` while it is.
    pub fn reason(&self) -> Option<DeadReason> {
        self.latest().and_then(FailedAttempt::reason)
    }

    /// The failures that are kept, the oldest first and the last one last.
    pub fn history(&self) -> &[FailedAttempt] {
        &self.history
    }

    fn latest(&self) -> Option<&FailedAttempt> {
        self.history.last()
    }

    /// The record after one more failure. `died` says that its worker did.
    pub(super) fn after(earlier: Option<Self>, failed: FailedAttempt, died: bool) -> Self {
        let mut record = earlier.unwrap_or(Self {
            tries: 0,
            deaths: 0,
            requeue: None,
            history: Vec::new(),
        });
        record.tries = record.tries.max(failed.attempt);
        record.deaths = record.deaths.saturating_add(died.into());
        record.history.push(failed);
        record.forget();
        record
    }

    /// Says of the last failure why it is not tried again.
    pub(super) fn with_reason(mut self, reason: DeadReason) -> Self {
        if let Some(latest) = self.history.last_mut() {
            latest.reason = Some(reason);
        }
        self
    }

    /// The record of a dead letter that is given another chance at `now`, in milliseconds since 1970. The number of
    /// failed executions goes on: what an execution of before says late must not pass for one of now.
    pub(super) fn requeued(earlier: Option<Self>, now: u64) -> Self {
        let (tries, history) =
            earlier.map_or((0, Vec::new()), |earlier| (earlier.tries, earlier.history));
        Self {
            tries,
            deaths: 0,
            requeue: Some(Requeue { tries, at: now }),
            history,
        }
    }

    /// What Redis keeps of it: the number of failed executions and of deaths, and of the former at a requeue with its
    /// time, if there was one; then a line of JSON for each failure.
    pub(super) fn to_stored(&self) -> String {
        let lines: Vec<_> = self.history.iter().map(FailedAttempt::to_line).collect();
        let mut head = format!("{} {}", self.tries, self.deaths);
        if let Some(Requeue { tries, at }) = self.requeue {
            head += &format!(" {tries} {at}");
        }
        head.push('\n');
        let mut room = LONGEST_STORED - head.len();
        let kept = lines.iter().rev().take_while(|line| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        });
        let first = lines.len() - kept.count();
        let mut stored = head;
        for line in &lines[first..] {
            stored.push_str(line);
            stored.push('\n');
        }
        stored
    }

    /// Reads what is stored, as far as it can be read; `None` if nothing is.
    pub(super) fn parse(stored: &[u8]) -> Option<Self> {
        if stored.is_empty() {
            return None;
        }
        let mut lines = stored.split(|byte| *byte == b'\n');
        let mut counts = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let mut number = || leading_number(counts.next());
        let (tries, deaths) = (clamped(number()), clamped(number()));
        let requeue = Requeue {
            tries: clamped(number()),
            at: number(),
        };
        let mut record = Self {
            tries,
            deaths,
            requeue: Some(requeue).filter(|requeue| requeue.at > 0),
            history: lines.filter_map(FailedAttempt::from_line).collect(),
        };
        record.forget();
        Some(record)
    }

    fn forget(&mut self) {
        let surplus = self.history.len().saturating_sub(MOST_KEPT);
        self.history.drain(..surplus);
    }
}

impl FailedAttempt {
    /// Times are milliseconds since 1970.
    pub(super) fn new(
        attempt: u32,
        failure: &Failure,
        started: u64,
        failed: u64,
        worker: &str,
    ) -> Self {
        Self {
            attempt,
            error_type: failure.error_type().to_owned(),
            message: failure.message().to_owned(),
            started,
            failed,
            worker: cut(worker.to_owned(), LONGEST_WORKER),
            reason: None,
        }
    }

    /// Which execution of the job it was; 1 is the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What kind of failure it was: see [`Failure`].
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When the execution started. If its worker died: when that was last heard of, or the same as
    /// [`failed_at`](Self::failed_at).
    pub fn started_at(&self) -> SystemTime {
        moment(self.started)
    }

    /// When it failed. If its worker died: when another one noticed.
    pub fn failed_at(&self) -> SystemTime {
        moment(self.failed)
    }

    /// Which worker it failed on.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Why it was the last; `None` if it was not.
    pub fn reason(&self) -> Option<DeadReason> {
        self.reason
    }

    fn to_line(&self) -> String {
        let line = Line {
            attempt: self.attempt,
            error_type: (&self.error_type).into(),
            message: (&self.message).into(),
            started: self.started,
            failed: self.failed,
            worker: (&self.worker).into(),
            dead: self.reason.map(|reason| reason.as_str().into()),
        };
        serde_json::to_string(&line).expect("numbers and texts can always be written as JSON")
    }

    fn from_line(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        Some(Self {
            attempt: line.attempt,
            error_type: cut(line.error_type.into_owned(), LONGEST_TYPE),
            message: cut(line.message.into_owned(), LONGEST_MESSAGE),
            started: line.started,
            failed: line.failed,
            worker: cut(line.worker.into_owned(), LONGEST_WORKER),
            reason: line.dead.as_deref().and_then(DeadReason::named),
        })
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type(), self.message())
    }
}

/// What is stored of a [`FailedAttempt`]; fields of a newer version are passed over.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    attempt: u32,
    #[serde(rename = "type")]
    error_type: Cow<'a, str>,
    #[serde(default)]
    message: Cow<'a, str>,
    #[serde(default)]
    started: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    worker: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead: Option<Cow<'a, str>>,
}

const MOST_KEPT: usize = 10;
const LONGEST_WORKER: usize = 256;

/// The longest single line fits in, also when JSON makes six bytes of each.
const LONGEST_STORED: usize = 16 * 1024;
const _: () = assert!(6 * (LONGEST_TYPE + LONGEST_MESSAGE + LONGEST_WORKER) + 256 < LONGEST_STORED);

/// Of a record that nothing else is left of.
const UNREADABLE: &str = "unknown";

/// As Lua's `^%d+` reads it; 0 if there is none.
fn leading_number(text: Option<&[u8]>) -> u64 {
    let digits = text.unwrap_or_default().iter();
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number
            .saturating_mul(10)
            .saturating_add((digit - b'0').into())
    })
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn moment(ms: u64) -> SystemTime {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    moment.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;

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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(attempt: u32) -> FailedAttempt {
        let failure = Failure::new("http_503", format!("failure {attempt}"));
        let started = 1_700_000_000_000 + u64::from(attempt) * 1_000;
        FailedAttempt::new(attempt, &failure, started, started + 250, "web-1:4242")
    }

    fn after(attempts: u32) -> TaskError {
        let record = (1..=attempts).fold(None, |earlier, attempt| {
            Some(TaskError::after(earlier, failed(attempt), false))
        });
        record.expect("it failed at least once")
    }

    #[test]
    fn the_last_failure_is_the_one_that_is_told() {
        let error = after(3);
        assert_eq!(error.error_type(), "http_503");
        assert_eq!(error.message(), "failure 3");
        assert_eq!((error.attempts(), error.retry_count()), (3, 2));
        assert_eq!(error.worker(), "web-1:4242");
        assert_eq!(error.reason(), None);
        let took = error.failed_at().duration_since(error.started_at());
        assert_eq!(took.unwrap(), Duration::from_millis(250));
        assert_eq!(error.to_string(), "http_503: failure 3");
    }

    #[test]
    fn ten_failures_are_remembered_and_all_are_counted() {
        let error = after(25);
        let attempts = error.history().iter().map(FailedAttempt::attempt);
        assert_eq!(attempts.collect::<Vec<_>>(), (16..=25).collect::<Vec<_>>());
        assert_eq!(error.attempts(), 25);
    }

    #[test]
    fn deaths_are_counted_apart() {
        let error = TaskError::after(Some(after(1)), failed(2), true);
        assert_eq!((error.attempts(), error.deaths()), (2, 1));
    }

    #[test]
    fn after_a_requeue_executions_are_counted_on_and_retries_and_deaths_anew() {
        let dead = TaskError::after(Some(after(3)), failed(4), true);
        let requeued = TaskError::requeued(Some(dead), 1_700_000_000_000);
        assert!(requeued.to_stored().starts_with("4 0 4 1700000000000\n{"));
        let read = TaskError::parse(requeued.to_stored().as_bytes());
        assert_eq!(read.as_ref(), Some(&requeued));
        assert_eq!((requeued.attempts(), requeued.retry_count()), (4, 0));
        let error = TaskError::after(read, failed(5), false);
        assert_eq!((error.attempts(), error.retry_count()), (5, 0));
        let error = TaskError::after(Some(error), failed(6), false);
        assert_eq!((error.attempts(), error.retry_count()), (6, 1));
        assert_eq!((error.deaths(), error.attempts_before_requeue()), (0, 4));
        assert_eq!(error.history().len(), 6);
    }

    /// Jobs that wait in Redis are read by the next version, and the count in front by a script.
    #[test]
    fn the_stored_form_stays_readable() {
        let error = TaskError::after(None, failed(1), true).with_reason(DeadReason::Poison);
        let stored = "1 1\n{\"attempt\":1,\"type\":\"http_503\",\"message\":\"failure 1\",\
            \"started\":1700000001000,\"failed\":1700000001250,\"worker\":\"web-1:4242\",\
            \"dead\":\"poison\"}\n";
        assert_eq!(error.to_stored(), stored);
        assert_eq!(TaskError::parse(stored.as_bytes()), Some(error));

        let newer = b"7 2 9\n{\"attempt\":7,\"type\":\"x\",\"colour\":1,\"dead\":\"bored\"}\n";
        let newer = TaskError::parse(newer).unwrap();
        assert_eq!((newer.attempts(), newer.deaths()), (7, 2));
        assert_eq!((newer.error_type(), newer.reason()), ("x", None));
    }

    #[test]
    fn nothing_stored_is_no_failure_and_garbage_is_one_of_an_unknown_type() {
        assert_eq!(TaskError::parse(b""), None);
        let garbage = TaskError::parse(b"garbage\n{").unwrap();
        assert_eq!((garbage.attempts(), garbage.error_type()), (0, "unknown"));
        let counted = TaskError::parse(b"4294967296").unwrap();
        assert_eq!(counted.attempts(), u32::MAX);
    }

    #[test]
    fn a_record_keeps_to_its_size_and_always_has_the_last_failure() {
        let worst = "\u{1}".repeat(LONGEST_MESSAGE);
        let mut record = None;
        for attempt in 1..=12 {
            let failure = Failure::new("\u{1}".repeat(LONGEST_TYPE), worst.clone());
            let worker = "\u{1}".repeat(LONGEST_WORKER);
            let failed = FailedAttempt::new(attempt, &failure, u64::MAX, u64::MAX, &worker);
            let error = TaskError::after(record, failed, true).with_reason(DeadReason::Exhausted);
            let stored = error.to_stored();
            assert!(stored.len() <= LONGEST_STORED, "{}", stored.len());
            let read = TaskError::parse(stored.as_bytes()).unwrap();
            assert_eq!(
                read.history(),
                &error.history()[error.history().len() - 1..]
            );
            record = Some(error);
        }
    }

    fn failures() -> impl Strategy<Value = FailedAttempt> {
        (
            any::<u32>(),
            ("\\PC{0,40}", "(?s).{0,1500}", "\\PC{0,40}"),
            any::<(u64, u64)>(),
        )
            .prop_map(
                |(attempt, (error_type, message, worker), (started, failed))| {
                    let failure = Failure::new(error_type, message);
                    FailedAttempt::new(attempt, &failure, started, failed, &worker)
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(
            failures in proptest::collection::vec((failures(), any::<bool>()), 1..15),
        ) {
            let record = failures.iter().cloned().fold(None, |earlier, (failed, died)| {
                Some(TaskError::after(earlier, failed, died))
            });
            let error = record.unwrap();
            let stored = error.to_stored();
            prop_assert!(stored.len() <= LONGEST_STORED);
            let read = TaskError::parse(stored.as_bytes()).unwrap();
            prop_assert_eq!((read.attempts(), read.deaths()), (error.attempts(), error.deaths()));
            prop_assert!(!read.history().is_empty());
            prop_assert!(error.history().ends_with(read.history()));
            if error.history().iter().map(|kept| kept.to_line().len() + 1).sum::<usize>() < 16_000 {
                prop_assert_eq!(&read, &error);
            }
            let _ = (read.started_at(), read.failed_at());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "[0-9]{0,12} ?[0-9]{0,12}\n?(\\{\"attempt\":[0-9]{1,12},\"type\":\"[a-z\\\\\"]{0,9}\"\\}\n){0,3}",
            at in any::<prop::sample::Index>(),
        ) {
            let mut mixed = text.clone().into_bytes();
            mixed.splice(at.index(text.len() + 1).., bytes.iter().copied());
            for stored in [bytes.as_slice(), text.as_bytes(), &mixed] {
                if let Some(read) = TaskError::parse(stored) {
                    let again = TaskError::parse(read.to_stored().as_bytes());
                    prop_assert_eq!(again, Some(read));
                }
            }
        }
    }
}

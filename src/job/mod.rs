//! A [`Job`], and how it is written to Redis.
//!
//! A job is a payload for a queue. Its [`Destination`] says what it becomes there, so that consumers
//! that exist already find what they expect: an element of a list, an entry of a stream, a member of a
//! sorted set with its due time, a group of commands of your own; or a job for seawall's own
//! [workers](crate::worker).
//!
//! Its id is a UUIDv7 made with the job. Executions of a job are at least once in any queue on Redis: the
//! id is there to be idempotent by. A stream entry carries it; a list element is the raw payload, so put
//! it in there yourself if the consumer needs it.
//!
//! # Default
//!
//! The raw payload, appended to the list that is named like the queue:
//!
//! ```
//! use seawall::Job;
//!
//! let job = Job::new("emails", "hello");
//! println!("{}", job.id());
//! # let _ = job;
//! ```
//!
//! # Customised
//!
//! ```
//! use std::time::Duration;
//! use seawall::job::{Destination, Job};
//!
//! #[derive(serde::Serialize)]
//! struct Email { to: String }
//!
//! let job = Job::json("emails", &Email { to: "ann@example.org".into() })?
//!     .with_destination(Destination::stream("app:{emails}").with_max_len(100_000))
//!     .with_header("traceparent", "00-4bf9..-01")
//!     .expires_in(Duration::from_secs(3600)); // a login code nobody wants tomorrow
//! # let _ = job;
//! # Ok::<(), seawall::Error>(())
//! ```
//!
//! A job for a [worker](crate::worker), with rules of its own for when it fails:
//!
//! ```
//! use std::time::Duration;
//! use seawall::job::{Destination, Handling, Job, Retries};
//!
//! let secs = Duration::from_secs;
//! let handling = Handling::new()
//!     .with_retries(Retries::delays([secs(10), secs(30), secs(60)]).ignore_on(["InvalidAddress"]))
//!     .with_timeout(secs(20))
//!     .with_result_ttl(secs(600));
//! let job = Job::new("emails", "hello")
//!     .with_destination(Destination::worker(handling))
//!     .delayed(secs(90));
//! # let _ = job;
//! ```

mod destination;
pub(crate) mod task;

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

pub use self::{
    destination::Destination,
    task::{Handling, PROCEDURE, Retries, Step},
};
use crate::{error::Error, sequence::Write};

/// A payload for a queue. See the [module docs](self) for examples.
#[derive(Clone)]
#[must_use = "a job does nothing until it is enqueued"]
pub struct Job {
    id: JobId,
    queue: Arc<str>,
    payload: Bytes,
    destination: Option<Destination>,
    headers: Vec<(Bytes, Bytes)>,
    due: Option<SystemTime>,
    expires_at: Option<SystemTime>,
}

impl Job {
    /// A job with these bytes.
    ///
    /// A handful of queues, not one per user or key: each is a task and a set of metrics.
    pub fn new(queue: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            id: JobId(Uuid::now_v7()),
            queue: queue.into(),
            payload: payload.into(),
            destination: None,
            headers: Vec::new(),
            due: None,
            expires_at: None,
        }
    }

    /// A job with `payload` as JSON.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::error::ErrorKind::Invalid) if it can't be written as JSON: a map with keys that
    /// are no strings, for example.
    pub fn json(queue: impl Into<Arc<str>>, payload: &impl Serialize) -> Result<Self, Error> {
        // serde_json's own message may quote the payload.
        let bytes = serde_json::to_vec(payload)
            .map_err(|_| Error::invalid("the payload can't be written as JSON"))?;
        Ok(Self::new(queue, bytes))
    }

    /// What it becomes in Redis.
    ///
    /// Default: an element at the end of the list that is named like the queue.
    pub fn with_destination(mut self, destination: Destination) -> Self {
        self.destination = Some(destination);
        self
    }

    /// Is for the [workers](crate::worker) of its queue, who handle it as they do by default:
    /// [`Destination::worker`] with [`Handling::new`].
    pub fn for_worker(self) -> Self {
        self.with_destination(Destination::worker(Handling::new()))
    }

    /// Has this id, and not one of its own: for jobs that are to be there once, however often they are enqueued.
    ///
    /// Only a queue of [workers](crate::worker) looks at it: it adds a job only if it has none of the same id that
    /// waits, runs or is a dead letter. The receipt is the same either way.
    pub fn with_id(mut self, id: JobId) -> Self {
        self.id = id;
        self
    }

    /// Adds a field beside the payload: only stream entries and jobs for [workers](crate::worker) have any, and
    /// these at most 65,535. A worker takes `traceparent` (W3C Trace Context) into its span.
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Is due `delay` from now: a job for [workers](crate::worker), or a member of a
    /// [sorted set](Destination::sorted_set). Others can't be held until then.
    pub fn delayed(self, delay: Duration) -> Self {
        self.due_at(from_now(delay))
    }

    /// Is due at `at`: see [`delayed`](Self::delayed).
    pub fn due_at(mut self, at: SystemTime) -> Self {
        self.due = Some(at);
        self
    }

    /// Is not worth delivering once `after` has passed: see [`expires_at`](Self::expires_at).
    pub fn expires_in(self, after: Duration) -> Self {
        self.expires_at(from_now(after))
    }

    /// Is not worth delivering from `at` on.
    ///
    /// A job that waits on disk for longer is not delivered late: it is counted in
    /// `seawall_expired_total`. A caller that still waits gets
    /// [`Expired`](crate::error::ErrorKind::Expired).
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Its id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Its queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// What it does to Redis.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::error::ErrorKind::Invalid) if its parts do not fit together; the message says
    /// what to change.
    pub fn into_write(self) -> Result<Write, Error> {
        if self.headers.len() > usize::from(u16::MAX) {
            return Err(Error::invalid("a job has at most 65,535 headers"));
        }
        if self.queue.is_empty() || self.queue.len() > LONGEST_QUEUE {
            return Err(Error::invalid(format!(
                "a queue's name has 1 to {LONGEST_QUEUE} bytes, this one has {}",
                self.queue.len()
            )));
        }
        let expires_at = self.expires_at;
        let destination = self
            .destination
            .clone()
            .unwrap_or_else(Destination::queue_list);
        let write = destination.write(self)?;
        Ok(match expires_at {
            Some(at) => write.with_expiry(at),
            None => write,
        })
    }
}

impl TryFrom<Job> for Write {
    type Error = Error;

    fn try_from(job: Job) -> Result<Self, Error> {
        job.into_write()
    }
}

/// Shows its shape, never its payload.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A moment that is too far away to be told is a thousand years from now.
fn from_now(time: Duration) -> SystemTime {
    const MILLENNIUM: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);
    SystemTime::now() + time.min(MILLENNIUM)
}

/// Longer names would take the room of records in each chunk on disk.
const LONGEST_QUEUE: usize = 1024;

/// Names one job, everywhere and for ever: a UUIDv7, so later ones compare greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// The id that has these 16 bytes: a part of a hash of what makes a job unique, for example.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// Reads what `Display` shows.
impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        text.parse().map(Self).map_err(|_| InvalidJobId(()))
    }
}

/// A text is no [`JobId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job's id looks like 0193a5b2-7c4e-7f00-8a1b-2c3d4e5f6071")]
pub struct InvalidJobId(());

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refusal(job: Job) -> String {
        let error = job.into_write().expect_err("it does not fit together");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.reason()
    }

    #[test]
    fn a_delay_that_nothing_would_keep_is_refused() {
        let job = Job::new("emails", "x").delayed(Duration::from_secs(60));
        assert!(refusal(job.clone()).contains("sorted_set"));
        let held = job.with_destination(Destination::sorted_set("later"));
        assert!(held.into_write().is_ok());
    }

    #[test]
    fn a_header_that_would_be_dropped_is_refused() {
        let job = Job::new("emails", "x").with_header("a", "b");
        assert!(refusal(job.clone()).contains("stream"));
        assert!(
            job.with_destination(Destination::stream("emails"))
                .into_write()
                .is_ok()
        );
    }

    #[test]
    fn a_group_that_no_script_could_run_is_refused() {
        use crate::sequence::Command;
        let group = |commands| Job::new("q", "").with_destination(Destination::commands(commands));
        assert!(refusal(group(vec![])).contains("no command"));
        let long = (0..5000).fold(Command::new("SADD"), |cmd, n: u32| cmd.arg(n.to_string()));
        assert!(refusal(group(vec![long])).contains("arguments"));
    }

    #[test]
    fn a_queue_without_a_name_is_refused() {
        assert!(refusal(Job::new("", "x")).contains("name"));
        assert!(refusal(Job::new("q".repeat(2000), "x")).contains("name"));
    }

    #[test]
    fn no_output_shows_the_payload() {
        let job = Job::new("emails", "p4yload").with_header("h", "s3cret");
        let write = job
            .clone()
            .with_destination(Destination::stream("s"))
            .into_write()
            .unwrap();
        let shown = format!("{job:?} {write:?}");
        assert!(
            !shown.contains("p4yload") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}

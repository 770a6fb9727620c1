//! A queue of workers, looked at from outside: [`Queue`].

mod change;
mod facts;
mod info;
mod list;
mod names;
mod page;
mod script;
mod stat;
mod state;
mod workers;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::FromRedisValue;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use self::{
    facts::Facts,
    info::time,
    script::{FACTS, STAT, Script},
};
pub use self::{
    info::JobInfo,
    names::queues,
    page::{JobPage, Page},
    stat::{QueueCounters, QueueStat},
    state::{InvalidJobState, JobState},
    workers::{WorkerCounters, WorkerInfo, WorkerState},
};
use crate::{
    call::{RedisCall, Reply},
    error::Error,
    job::{
        JobId,
        task::{Keys, Record},
    },
};

/// A queue of [workers](crate::worker), to be looked at and put right: what is in it, who works, and its dead letters.
///
/// Made by [`Seawall::queue`](crate::Seawall::queue). Cheap to clone. It asks Redis at each call, and keeps nothing;
/// what is still on a producer's disk is not in it.
///
/// # States
///
/// A job is looked up by its id in one step, so its [state](JobState) is that of one moment. A list is read in several:
/// each job in it is as it was at one moment, and not all at the same.
///
/// # Errors
///
/// Those of the line: [`BreakerOpen`](crate::error::ErrorKind::BreakerOpen),
/// [`Connect`](crate::error::ErrorKind::Connect) or [`Timeout`](crate::error::ErrorKind::Timeout) while Redis is away.
/// No call takes longer than the [timeout](Self::with_timeout) for each step. If somebody else uses a key of the queue
/// for something of another type, the error ([permanent](Error::is_permanent)) says which.
///
/// What changes something can be done twice without harm, and is tried again when an answer is lost. Its count may
/// be too low then: what the first try had done is not counted by the second.
///
/// # Cancel safety
///
/// A dropped call may or may not be carried out; one that goes through many jobs stops behind some of them.
///
/// # Default
///
/// ```no_run
/// use seawall::worker::{JobState, Page};
///
/// # async fn run(seawall: seawall::Seawall) -> Result<(), seawall::Error> {
/// let queue = seawall.queue("emails");
/// println!("{} wait, {} are dead", queue.stat().await?.ready, queue.stat().await?.dead);
/// for job in queue.jobs(JobState::Dead, Page::first()).await?.jobs {
///     println!("{} {:?} {:?}", job.id(), job.attempts(), job.error().map(|error| error.error_type()));
/// }
/// queue.requeue_all().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Customised
///
/// All of them, page by page, over a connection of your own:
///
/// ```no_run
/// use std::time::Duration;
/// use seawall::{connect::{ConnectOptions, Connection}, retry::RetryLayer};
/// use seawall::worker::{JobState, Page, Queue};
/// use tower::ServiceBuilder;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = Connection::open(ConnectOptions::from_url("redis://localhost")?)?;
/// let line = ServiceBuilder::new().layer(RetryLayer::default()).service(connection);
/// let queue = Queue::new("emails", line).with_timeout(Duration::from_millis(500));
/// let mut page = Some(Page::first().with_size(1_000));
/// while let Some(wanted) = page {
///     let found = queue.jobs(JobState::Queued, wanted).await?;
///     println!("{} more", found.jobs.len());
///     page = found.next;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queue {
    name: Arc<str>,
    keys: Arc<Keys>,
    line: BoxCloneSyncService<RedisCall, Reply, Error>,
    timeout: Duration,
}

impl Queue {
    /// The queue of this name, asked over `line`.
    pub fn new<S>(name: impl Into<Arc<str>>, line: S) -> Self
    where
        S: Service<RedisCall, Response = Reply, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let name = name.into();
        Self {
            keys: Arc::new(Keys::of(&name)),
            name,
            line: BoxCloneSyncService::new(line),
            timeout: TIMEOUT,
        }
    }

    /// Gives each step so long, all attempts included. Default: 5 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much there is of everything. It takes the same time whatever is in the queue.
    pub async fn stat(&self) -> Result<QueueStat, Error> {
        type Answer = (
            u64,
            (u64, u64, u64, u64, u64, u64, u64),
            (Option<f64>, Option<Vec<u8>>),
            Vec<(String, String)>,
        );
        let answer: Answer = self.ask(&STAT, [Record::TIMES.to_string()]).await?;
        let (now_ms, numbers, (next_due, front), counters) = answer;
        let (ready, later, running, failed, dead, done, workers) = numbers;
        Ok(QueueStat {
            ready,
            later,
            running,
            retrying: failed.saturating_sub(dead),
            dead,
            done,
            workers,
            oldest_ready: front.and_then(|record| waiting_since(&record)),
            next_due: next_due.and_then(|due| time(due as u64)),
            counters: QueueCounters::of(counters),
            at: time(now_ms).unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// All that there is to know of a job. `None` if the queue has none of this id, or has forgotten how it ended.
    pub async fn job(&self, id: JobId) -> Result<Option<JobInfo>, Error> {
        let found = self.look_up(&[id], WHOLE).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// What there is of each of these.
    async fn look_up(&self, ids: &[JobId], most: usize) -> Result<Vec<Option<JobInfo>>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let whole = most == WHOLE;
        let head = [most.to_string().into_bytes(), vec![b'0' + u8::from(whole)]];
        let ids_of = ids.iter().map(|id| id.as_bytes().to_vec());
        let arguments = head.into_iter().chain(ids_of);
        let (now_ms, facts): (u64, Vec<Facts>) = self.ask(&FACTS, arguments).await?;
        let facts = ids.iter().zip(facts);
        let jobs = facts.map(|(id, facts)| JobInfo::of(*id, facts, now_ms, whole));
        Ok(jobs.collect())
    }

    async fn ask<T: FromRedisValue, A: AsRef<[u8]>>(
        &self,
        script: &Script,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<T, Error> {
        let call = script
            .call(&self.keys, arguments)
            .with_timeout(self.timeout);
        let reply = self.line.clone().oneshot(call).await?;
        script.read(&self.keys, reply)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// As many bytes as any record has.
const WHOLE: usize = u32::MAX as usize;

/// From the beginning of a record.
fn waiting_since(record: &[u8]) -> Option<SystemTime> {
    let (enqueued_ms, due_ms) = Record::times(record)?;
    time(enqueued_ms.max(due_ms))
}

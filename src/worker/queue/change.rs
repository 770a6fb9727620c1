//! What can be done about jobs by hand: requeue, purge, delete.

use std::time::SystemTime;

use bytes::Bytes;

use super::{
    JobInfo, JobState, Page, Queue,
    page::Place,
    script::{REMOVE, REQUEUE},
};
use crate::{
    error::Error,
    job::{JobId, task::millis},
    worker::TaskError,
};

/// Each job is changed in one atomic step, and only if it is still what it was taken for: of two who requeue the same
/// job, or of one who requeues it and one who purges it, one does.
impl Queue {
    /// Lets a dead letter wait in the queue again, behind the others, and says whether it was one.
    ///
    /// It gets as many attempts as a new job. Those it has had still count in [`attempts`](JobInfo::attempts), and in the
    /// number of the next, and its errors stay in its history: it is the same job, with a second chance. A job that
    /// has [expired](JobInfo::expires_at) meanwhile is not run.
    pub async fn requeue(&self, id: JobId) -> Result<bool, Error> {
        let Some(job) = self.job(id).await? else {
            return Ok(false);
        };
        if job.state() != JobState::Dead {
            return Ok(false);
        }
        self.requeue_these(&[job]).await.map(|moved| moved > 0)
    }

    /// Lets all dead letters wait in the queue again, those that will be forgotten first in front, and says how many
    /// those were: see [`requeue`](Self::requeue).
    ///
    /// In steps, so an error or an outage in the middle leaves some requeued, and it can be done again. Letters that
    /// come while it runs are left alone, as far as they come to the end.
    pub async fn requeue_all(&self) -> Result<u64, Error> {
        self.requeue_if(|_| true).await
    }

    /// Lets those dead letters wait in the queue again whose last error was of this type: see
    /// [`requeue_all`](Self::requeue_all).
    pub async fn requeue_all_of(&self, error_type: &str) -> Result<u64, Error> {
        self.requeue_if(|job| is_of(job, error_type)).await
    }

    /// Removes all dead letters, and says how many those were. In steps, as [`requeue_all`](Self::requeue_all).
    pub async fn purge(&self) -> Result<u64, Error> {
        let mut left = self.stat().await?.dead;
        let (mut purged, mut place) = (0, Place::default());
        while left > 0 {
            let entries = self.ids(JobState::Dead, &place, STEP).await?.entries;
            let Some(last) = entries.last() else {
                break;
            };
            place = last.place();
            left = left.saturating_sub(entries.len() as u64);
            // Not by what they are: what is no job goes, too.
            let ids = entries.into_iter().map(|entry| entry.id);
            purged += self.remove("dead", ids).await?;
        }
        Ok(purged)
    }

    /// Removes those dead letters whose last error was of this type: see [`purge`](Self::purge).
    pub async fn purge_all_of(&self, error_type: &str) -> Result<u64, Error> {
        let mut purged = 0;
        let mut letters = self.letters().await?;
        while let Some(page) = letters.next(self).await? {
            let meant = page.iter().filter(|job| is_of(job, error_type));
            purged += self.remove("dead", meant.map(|job| raw(job.id()))).await?;
        }
        Ok(purged)
    }

    /// Removes a dead letter, and says whether it was one.
    pub async fn purge_one(&self, id: JobId) -> Result<bool, Error> {
        let purged = self.remove("dead", std::iter::once(raw(id))).await?;
        Ok(purged > 0)
    }

    /// Removes a job that no worker has: one that is queued, scheduled, failed or dead. Says whether it was there and
    /// could be.
    pub async fn delete(&self, id: JobId) -> Result<bool, Error> {
        let deleted = self.remove("any", std::iter::once(raw(id))).await?;
        Ok(deleted > 0)
    }

    async fn requeue_if(&self, meant: impl Fn(&JobInfo) -> bool) -> Result<u64, Error> {
        let mut moved = 0;
        let mut letters = self.letters().await?;
        while let Some(mut page) = letters.next(self).await? {
            page.retain(&meant);
            moved += self.requeue_these(&page).await?;
        }
        Ok(moved)
    }

    async fn requeue_these(&self, letters: &[JobInfo]) -> Result<u64, Error> {
        if letters.is_empty() {
            return Ok(0);
        }
        let now = SystemTime::now();
        let known = |job: &JobInfo| Bytes::copy_from_slice(job.failures());
        let arguments = letters
            .iter()
            .flat_map(|job| [raw(job.id()), known(job), requeued(job, now)]);
        self.ask(&REQUEUE, arguments).await
    }

    async fn remove(
        &self,
        which: &'static str,
        ids: impl Iterator<Item = Bytes>,
    ) -> Result<u64, Error> {
        let which = Bytes::from_static(which.as_bytes());
        let arguments: Vec<_> = std::iter::once(which).chain(ids).collect();
        if arguments.len() < 2 {
            return Ok(0);
        }
        self.ask(&REMOVE, arguments).await
    }

    async fn letters(&self) -> Result<Letters, Error> {
        Ok(Letters {
            left: self.stat().await?.dead,
            page: Some(Page::first().with_size(STEP)),
        })
    }
}

/// How many are changed at once.
const STEP: usize = 200;

/// The dead letters, page by page: no more than there were at the beginning, or a queue whose jobs all fail would never
/// come to an end.
struct Letters {
    left: u64,
    page: Option<Page>,
}

impl Letters {
    async fn next(&mut self, queue: &Queue) -> Result<Option<Vec<JobInfo>>, Error> {
        let Some(page) = self.page.take().filter(|_| self.left > 0) else {
            return Ok(None);
        };
        let found = queue.jobs(JobState::Dead, page).await?;
        self.page = found.next;
        let mut jobs = found.jobs;
        jobs.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= jobs.len() as u64;
        Ok(Some(jobs))
    }
}

fn raw(id: JobId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn is_of(job: &JobInfo, error_type: &str) -> bool {
    job.error()
        .is_some_and(|error| error.error_type() == error_type)
}

/// What is known of the failures of a dead letter from now on.
fn requeued(job: &JobInfo, now: SystemTime) -> Bytes {
    let record = TaskError::requeued(job.error().cloned(), millis(now));
    record.to_stored().into()
}

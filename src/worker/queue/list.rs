//! Lists of jobs: by their state, and by how often they have failed.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value, from_redis_value};

use super::{
    JobInfo, JobPage, JobState, Page, Queue,
    page::Place,
    script::{IDS, TRIES},
};
use crate::{error::Error, job::JobId};

/// Lists go on at a place that moves as little as possible while the queue does. A job that stays where it is throughout
/// is in one of the pages. One that changes its state meanwhile may be missed, and one that others are put in front of
/// or taken from around it may come twice.
impl Queue {
    /// The jobs that are in a state, a page of them.
    ///
    /// | state | order |
    /// |---|---|
    /// | `Queued` | as they will be taken |
    /// | `Scheduled`, `Failed` | by when they are due |
    /// | `Dead`, `Succeeded`, `Expired`, `Discarded` | by when they will be forgotten |
    /// | `Running` | none; a page may have more than was asked for, and a job may come twice |
    ///
    /// Some states share a list. So that no call takes long, at most 10,000 jobs are looked at for a page: one that is
    /// not full, or empty, is not the last, unless there is no [`next`](JobPage::next).
    ///
    /// # Errors
    ///
    /// Those of the [queue](Self#errors), and [`Invalid`](crate::error::ErrorKind::Invalid) if the page's size is.
    pub async fn jobs(&self, state: JobState, page: Page) -> Result<JobPage, Error> {
        let size = page.size()?;
        let is_scan = state == JobState::Running;
        let mut place = page.from.clone();
        let mut jobs = Vec::new();
        let mut step = size.clamp(SHORT_STEP, STEP);
        for _ in 0..MOST_STEPS {
            let found = self.ids(state, &place, step).await?;
            let is_end = found.scan.is_none() && (is_scan || found.entries.len() < step);
            step = STEP;
            let (ids, places): (Vec<_>, Vec<_>) =
                found.entries.iter().filter_map(Entry::read).unzip();
            let listed = self.listed(&ids).await?;
            let mut listed = listed.into_iter().zip(places).peekable();
            while let Some((job, at)) = listed.next() {
                jobs.extend(job.filter(|job| job.state() == state));
                if jobs.len() >= size && !is_scan {
                    let is_last = is_end && listed.peek().is_none();
                    let next = (!is_last).then(|| page.at(at));
                    return Ok(JobPage { jobs, next });
                }
            }
            if is_end {
                return Ok(JobPage { jobs, next: None });
            }
            if let Some(step) = found.scan {
                place.mark = step;
            } else if let Some(last) = found.entries.last() {
                place = last.place();
            }
            if jobs.len() >= size {
                break;
            }
        }
        let next = Some(page.at(place));
        Ok(JobPage { jobs, next })
    }

    /// The jobs that have failed most often and are not finished, at most `most` of them and 1,000, the worst first.
    ///
    /// It looks through all that have failed: in small steps, but in many if those are many. It stops after a million.
    pub async fn frequent_retriers(&self, most: usize) -> Result<Vec<JobInfo>, Error> {
        let most = most.min(MOST_RETRIERS);
        let mut worst = BTreeSet::new();
        let mut step = Bytes::from_static(b"0");
        for _ in 0..MOST_RETRY_STEPS {
            let wanted = Bytes::from(RETRY_STEP.to_string());
            let (next, found): (Vec<u8>, Vec<(u32, Vec<u8>)>) =
                self.ask(&TRIES, [step, wanted]).await?;
            for (tries, id) in found {
                if let Ok(id) = <[u8; 16]>::try_from(id) {
                    worst.insert((tries, JobId::from_bytes(id)));
                }
                if worst.len() > most {
                    worst.pop_first();
                }
            }
            step = next.into();
            if step == "0" {
                break;
            }
        }
        // A scan may meet one twice, and it may have failed once more meanwhile.
        let mut seen = HashSet::new();
        let ids = worst.into_iter().rev().map(|(_, id)| id);
        let ids: Vec<_> = ids.filter(|id| seen.insert(*id)).collect();
        let found = self.listed(&ids).await?.into_iter().flatten();
        Ok(found.filter(|job| !job.state().is_final()).collect())
    }

    /// A step of a walk through the list that jobs of this state are in.
    pub(super) async fn ids(
        &self,
        state: JobState,
        from: &Place,
        count: usize,
    ) -> Result<Found, Error> {
        let arguments = [
            Bytes::from(list_of(state).to_string()),
            Bytes::from(count.to_string()),
            from.mark.clone(),
            from.last.clone(),
        ];
        self.ask(&IDS, arguments).await
    }

    /// These, without what is in them.
    async fn listed(&self, ids: &[JobId]) -> Result<Vec<Option<JobInfo>>, Error> {
        let mut jobs = self.look_up(ids, LISTED).await?;
        for job in jobs.iter_mut().flatten().filter(|job| job.is_cut_short()) {
            if let Some(whole) = self.job(job.id()).await? {
                *job = whole.without_content();
            }
        }
        Ok(jobs)
    }
}

const MOST_RETRIERS: usize = 1_000;

/// How many jobs a step looks at: their answer is 2 MB at most, apart from their errors.
const STEP: usize = 500;
const SHORT_STEP: usize = 50;
const MOST_STEPS: usize = 20;
const RETRY_STEP: usize = 1_000;
const MOST_RETRY_STEPS: usize = 1_000;

/// How much of a record a list needs: all before the payload, as a rule.
const LISTED: usize = 4096;

/// The number of the key, as the script counts them.
fn list_of(state: JobState) -> u8 {
    match state {
        JobState::Queued => 2,
        JobState::Scheduled | JobState::Failed => 3,
        JobState::Running => 4,
        JobState::Dead => 6,
        JobState::Succeeded | JobState::Expired | JobState::Discarded => 7,
    }
}

/// What `ids.lua` answers.
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    scan: Option<Bytes>,
}

pub(super) struct Entry {
    mark: Bytes,
    /// Whatever somebody has put there.
    pub(super) id: Bytes,
}

impl Entry {
    /// Nothing, if it is no job's.
    fn read(&self) -> Option<(JobId, Place)> {
        let id = <[u8; 16]>::try_from(&self.id[..]).ok()?;
        Some((JobId::from_bytes(id), self.place()))
    }

    pub(super) fn place(&self) -> Place {
        Place {
            mark: self.mark.clone(),
            last: self.id.clone(),
        }
    }
}

impl FromRedisValue for Found {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        type Answer = (Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>);
        let (entries, scan): Answer = from_redis_value(value)?;
        let entries = entries.into_iter().map(|(mark, id)| Entry {
            mark: mark.into(),
            id: id.into(),
        });
        Ok(Self {
            entries: entries.collect(),
            scan: scan.map(Bytes::from),
        })
    }
}

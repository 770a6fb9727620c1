//! What can be done with parked records: listed, shown, sent again, deleted.
//!
//! A parked record is one that Redis refused for good; see [`Parked`]. Sending again moves it, in one step
//! on disk, to a fresh lane of its queue: a crash leaves it in the one place or in the other, and its new
//! number there makes it come to Redis once.

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc, time::SystemTime};

use super::{
    LaneId, Parked, Spool, Spoolable,
    chunk::{Chunk, Writer},
    disk_failed,
    queue::unix_ms,
    replay::Older,
    shared::{Shared, closed},
};
use crate::error::Error;

/// Which of the parked records is meant: its lane, and its number there.
///
/// As text it is `LANE/NUMBER`, and can be read back from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkedId {
    lane: LaneId,
    number: u64,
}

impl ParkedId {
    /// The record with this number in this lane.
    #[must_use]
    pub const fn new(lane: LaneId, number: u64) -> Self {
        Self { lane, number }
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// The number in the lane.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for ParkedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lane, self.number)
    }
}

impl FromStr for ParkedId {
    type Err = InvalidParkedId;

    fn from_str(text: &str) -> Result<Self, InvalidParkedId> {
        let (lane, number) = text.split_once('/').ok_or(InvalidParkedId)?;
        let lane = lane.parse().map_err(|_| InvalidParkedId)?;
        let number = number.parse().map_err(|_| InvalidParkedId)?;
        Ok(Self::new(lane, number))
    }
}

/// The text is not the id of a parked record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a parked record: that is LANE/NUMBER, as it is listed")]
#[allow(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct InvalidParkedId;

/// Which of the parked records are meant: all, those of a queue, or one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct ParkedFilter(Which);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Which {
    All,
    Queue(String),
    One(ParkedId),
}

impl ParkedFilter {
    /// All of them.
    pub const fn all() -> Self {
        Self(Which::All)
    }

    /// Those of a queue.
    pub fn queue(name: impl Into<String>) -> Self {
        Self(Which::Queue(name.into()))
    }

    /// This one.
    pub const fn one(id: ParkedId) -> Self {
        Self(Which::One(id))
    }

    fn holds(&self, parked: &Parked) -> bool {
        match &self.0 {
            Which::All => true,
            Which::Queue(name) => *name == parked.queue,
            Which::One(id) => *id == parked.id(),
        }
    }

    /// No record up to this one is meant.
    fn begins_after(&self) -> Option<ParkedId> {
        match self.0 {
            // Numbers begin with 1.
            Which::One(id) => Some(ParkedId::new(id.lane, id.number.saturating_sub(1))),
            _ => None,
        }
    }

    fn ends_with(&self, id: ParkedId) -> bool {
        matches!(self.0, Which::One(one) if one <= id)
    }
}

impl From<ParkedId> for ParkedFilter {
    fn from(id: ParkedId) -> Self {
        Self::one(id)
    }
}

impl Parked {
    /// Which one it is.
    pub fn id(&self) -> ParkedId {
        ParkedId::new(self.lane, self.number)
    }
}

impl<T: Spoolable> Spool<T> {
    /// The first `limit` parked records, with their reasons, the oldest lane first.
    ///
    /// With a large `limit` and large records it takes as much memory as these have.
    /// [`parked_page`](Self::parked_page) is bounded.
    ///
    /// # Errors
    ///
    /// The disk failed, or the spool has been shut down.
    pub async fn parked(&self, limit: usize) -> Result<Vec<Parked>, Error> {
        let disk = &self.owner.shared.disk;
        let parked = disk.parked(None, limit, usize::MAX).await;
        parked.map_err(|error| disk_failed(&error))
    }

    /// The parked records of `which` that follow `after`, by lane and number: up to `limit`, and no more
    /// than some 4 MiB, but at least one. None at all is the end.
    ///
    /// ```no_run
    /// # use seawall::{Error, sequence::Write, spool::{ParkedFilter, Spool}};
    /// # async fn list(spool: &Spool<Write>) -> Result<(), Error> {
    /// let mut after = None;
    /// loop {
    ///     let page = spool.parked_page(&ParkedFilter::queue("emails"), after, 100).await?;
    ///     let Some(last) = page.last() else { break };
    ///     after = Some(last.id());
    ///     for parked in &page {
    ///         println!("{} {}", parked.id(), parked.reason());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The disk failed, or the spool has been shut down.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed by it.
    pub async fn parked_page(
        &self,
        which: &ParkedFilter,
        after: Option<ParkedId>,
        limit: usize,
    ) -> Result<Vec<Parked>, Error> {
        let shared = &self.owner.shared;
        let mut after = after.max(which.begins_after());
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < limit && bytes < PAGE_BYTES {
            let room = limit - found.len();
            let most = match which.0 {
                // Those of other queues may be many.
                Which::Queue(_) => PAGE_RECORDS,
                _ => PAGE_RECORDS.min(room),
            };
            let page = page(shared, after, most).await?;
            let Some(last) = page.last().map(Parked::id) else {
                break;
            };
            after = Some(last);
            let chosen = page.into_iter().filter(|parked| which.holds(parked));
            for parked in chosen.take(room) {
                bytes += parked.record.len();
                found.push(parked);
            }
            if which.ends_with(last) {
                break;
            }
        }
        Ok(found)
    }

    /// Sends parked records again, and says how many those are.
    ///
    /// They leave the parked ones and wait for Redis again, in the order in which they are listed, before
    /// what else waits in their queue. Those that Redis refuses again are parked again, under a new id and
    /// with one more [attempt](Parked::attempts). It works while Redis is out, too.
    ///
    /// Each goes to Redis once, also when the process dies meanwhile: in one atomic step on disk it leaves
    /// the parked ones and gets a number in a fresh lane of its queue.
    ///
    /// # Errors
    ///
    /// The disk failed, or the spool has been shut down. Some may have been sent again by then; the others
    /// are parked as before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop what it has begun: a task of the spool's does it to the end, or to
    /// the spool's.
    pub async fn unpark(&self, which: impl Into<ParkedFilter>) -> Result<u64, Error> {
        self.take_out(which.into(), Fate::Resent).await
    }

    /// Deletes parked records, and says how many those were.
    ///
    /// # Errors
    ///
    /// The disk failed, or the spool has been shut down. Some may be deleted by then.
    ///
    /// # Cancel safety
    ///
    /// That of [`unpark`](Self::unpark).
    pub async fn delete_parked(&self, which: impl Into<ParkedFilter>) -> Result<u64, Error> {
        self.take_out(which.into(), Fate::Deleted).await
    }

    async fn take_out(&self, which: ParkedFilter, fate: Fate) -> Result<u64, Error> {
        let shared = self.owner.shared.clone();
        let stopped = shared.stopped().clone().cancelled_owned();
        let runtime = shared.runtime().clone();
        // In a task, since half of it must not be left undone by who does not wait for it.
        let task = runtime.spawn(async move {
            tokio::select! {
                () = stopped => Err(closed()),
                done = TakeOut::new(shared, fate).all(&which) => done,
            }
        });
        task.await.unwrap_or_else(|_| Err(closed()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Resent,
    Deleted,
}

/// Takes parked records out, page by page, one page of a queue's in one step.
struct TakeOut<T> {
    shared: Arc<Shared<T>>,
    fate: Fate,
    /// Where those that are sent again have gone. What is parked again is there, and left alone.
    lanes: HashSet<LaneId>,
    count: u64,
}

impl<T: Spoolable> TakeOut<T> {
    fn new(shared: Arc<Shared<T>>, fate: Fate) -> Self {
        Self {
            shared,
            fate,
            lanes: HashSet::new(),
            count: 0,
        }
    }

    async fn all(mut self, which: &ParkedFilter) -> Result<u64, Error> {
        let shared = self.shared.clone();
        // Two at a time could both take the same record.
        let _alone = shared.unparking.acquire().await.map_err(|_| closed())?;
        // Others may be parked meanwhile, and for ever.
        let mut at_most = shared.usage.parked();
        let mut after = which.begins_after();
        while at_most > 0 && !shared.is_closed() {
            let mut page = page(&shared, after, PAGE_RECORDS).await?;
            let Some(last) = page.last().map(Parked::id) else {
                return Ok(self.count);
            };
            after = Some(last);
            page.retain(|parked| !self.lanes.contains(&parked.lane));
            at_most = at_most.saturating_sub(page.len() as u64);
            page.retain(|parked| which.holds(parked));
            for same in runs(page) {
                self.take_out(&same).await?;
            }
            if which.ends_with(last) {
                return Ok(self.count);
            }
        }
        if shared.is_closed() {
            return Err(closed());
        }
        Ok(self.count)
    }

    /// Records of one queue that have been refused equally often.
    async fn take_out(&mut self, parked: &[Parked]) -> Result<(), Error> {
        let Some(first) = parked.first() else {
            return Ok(());
        };
        let (queue, shared) = (&*first.queue, &self.shared);
        let (records, bytes) = (parked.len() as u64, parked.iter().map(Parked::bytes).sum());
        let lane = LaneId::fresh();
        let overhead = shared.disk.overhead();
        let put = match self.fate {
            Fate::Resent => waiting(lane, queue, parked, overhead),
            Fate::Deleted => Vec::new(),
        };
        let added = put.iter().map(Chunk::bytes).sum::<u64>() + (put.len() * overhead) as u64;
        let which = parked.iter().map(Parked::id).collect();
        let taken = shared.disk.unpark(which, put).await;
        taken.map_err(|error| disk_failed(&error))?;
        self.count += records;
        let metrics = shared.options.metrics.queue(queue);
        match self.fate {
            Fate::Resent => {
                shared.usage.unpark(records, bytes, added);
                metrics.resent.inc_by(records);
                tracing::info!(queue, %lane, records, "parked records are sent again");
                self.lanes.insert(lane);
                let older = Older {
                    lane,
                    front: 1,
                    last: records,
                    acknowledged: 0,
                    refused: first.attempts,
                    records,
                    bytes: added,
                };
                shared.adopt(queue, older).await;
            }
            Fate::Deleted => {
                shared.usage.delete_parked(records, bytes);
                metrics.deleted.inc_by(records);
                tracing::warn!(queue, records, "parked records deleted");
            }
        }
        Ok(())
    }
}

async fn page<T>(
    shared: &Shared<T>,
    after: Option<ParkedId>,
    most: usize,
) -> Result<Vec<Parked>, Error> {
    let page = shared.disk.parked(after, most, PAGE_BYTES).await;
    page.map_err(|error| disk_failed(&error))
}

/// What is asked of the disk at once; replay and others wait for as long as it takes.
const PAGE_RECORDS: usize = 1024;
const PAGE_BYTES: usize = 4 << 20;

/// Splits them into those of one queue that have been refused equally often, each in their order. Such as
/// are of one lane are.
fn runs(parked: Vec<Parked>) -> Vec<Vec<Parked>> {
    let mut runs: Vec<Vec<Parked>> = Vec::new();
    for parked in parked {
        let of_queue = runs
            .iter_mut()
            .rev()
            .find(|run| run[0].queue == parked.queue);
        match of_queue {
            Some(run) if run[0].attempts == parked.attempts => run.push(parked),
            _ => runs.push(vec![parked]),
        }
    }
    runs
}

/// The records of `parked` as the first ones of a lane.
fn waiting(lane: LaneId, queue: &str, parked: &[Parked], overhead: usize) -> Vec<Chunk> {
    let refused = parked.first().map_or(0, |parked| parked.attempts);
    let writer = Writer::new(lane, queue, 1, 0, unix_ms(SystemTime::now()), overhead);
    let mut writer = writer.with_refused(refused);
    for parked in parked {
        // They leave more room than they take: a parked record has a chunk of its own.
        writer.push_if(|record| record.extend_from_slice(&parked.record), |_| true);
    }
    writer.finish()
}

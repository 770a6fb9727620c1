//! What goes into the spool, and what comes out of it: [`Spoolable`], [`Batch`] and [`Receipt`].

use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

#[cfg(doc)]
use super::Applied;
use super::LaneId;
use crate::call::{Repeat, Request};

/// A record that the spool can keep on disk: a [`Write`](crate::sequence::Write), or a type of your
/// own.
pub trait Spoolable: Send + Sync + Sized + 'static {
    /// The queue whose order it keeps. A handful of names, not one per user or key: each is a task
    /// and a set of metrics.
    fn queue(&self) -> &str;

    /// About how many bytes it holds, for the bounds on memory and on the size of a record.
    fn size(&self) -> usize;

    /// Appends its bytes.
    fn encode(&self, into: &mut Vec<u8>);

    /// Reads back what [`encode`](Self::encode) wrote, now or by an older version of the program.
    ///
    /// # Errors
    ///
    /// [`Undecodable`], and the queue is blocked, loudly, with its records kept: the program that can
    /// read them may be started next.
    fn decode(queue: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable>;

    /// When it is not worth delivering any more.
    ///
    /// Default: never.
    fn expires_at(&self) -> Option<SystemTime> {
        None
    }
}

/// The bytes on disk are not a record of this type.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot read the record back: {0}")]
pub struct Undecodable(pub(crate) &'static str);

impl Undecodable {
    /// Because of `why`: a constant, it is shown to operators.
    pub const fn new(why: &'static str) -> Self {
        Self(why)
    }
}

/// Consecutive records of one lane, on their way out.
///
/// An `Arc` inside: cloning it for another try copies nothing.
pub struct Batch<T> {
    lane: LaneId,
    queue: Arc<str>,
    /// The number of the first record of `records`, whether it is still in `range` or not.
    origin: u64,
    records: Arc<Vec<T>>,
    range: Range<usize>,
    /// Places in `records` whose number is spent without delivering them, in order.
    spent: Arc<[usize]>,
    after: u64,
    lifetime: Duration,
    deadline: Option<Instant>,
    generation: Option<u64>,
    asks: Asks,
}

/// What a [`Batch`] asks of the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asks {
    /// To apply its records.
    Apply,
    /// The last number that it has of the lane, 0 if it has none: [`Applied::reached`]. The batch holds no
    /// records.
    Reached,
    /// How far it has the lane, and on how many replicas that is: [`Applied::confirmed`]. It is to wait until
    /// those are `replicas`, for `timeout` at most. The batch holds no records.
    Confirm {
        /// How many are wanted.
        replicas: u32,
        /// How long they have.
        timeout: Duration,
        /// They, and the far end itself, are to have it on disk.
        on_disk: bool,
    },
    /// To forget the lane, which is done with. The batch holds no records.
    End,
}

impl<T> Batch<T> {
    /// The records, not none, of which the first has number `first`.
    pub(super) fn new(lane: LaneId, queue: Arc<str>, first: u64, records: Vec<T>) -> Self {
        let range = 0..records.len();
        Self {
            lane,
            queue,
            origin: first,
            records: Arc::new(records),
            range,
            spent: Arc::from([]),
            after: 0,
            lifetime: Duration::ZERO,
            deadline: None,
            generation: None,
            asks: Asks::Apply,
        }
    }

    /// A question about a lane, or the last word to it. Holds no records.
    pub(super) fn question(lane: LaneId, queue: Arc<str>, asks: Asks) -> Self {
        Self {
            asks,
            ..Self::new(lane, queue, 1, Vec::new())
        }
    }

    pub(super) fn with_spent(mut self, spent: Vec<usize>) -> Self {
        if !spent.is_empty() {
            self.spent = spent.into();
        }
        self
    }

    pub(super) fn with_after(mut self, after: u64) -> Self {
        self.after = after;
        self
    }

    pub(super) fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    pub(super) fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Only for the server that is reached over this connection.
    pub(super) fn with_generation(mut self, generation: Option<u64>) -> Self {
        self.generation = generation;
        self
    }

    /// Whether nobody else holds its records, so that they can be [taken out](Self::into_records).
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.records) == 1 && self.range == (0..self.records.len())
    }

    /// Its records, if it [is alone](Self::is_alone).
    pub(super) fn into_records(self) -> Option<Vec<T>> {
        Arc::into_inner(self.records)
    }

    /// What there is up to `number`, which is in it.
    pub(super) fn until(mut self, number: u64) -> Self {
        let done = (number + 1).saturating_sub(self.origin) as usize;
        self.range.end = self.range.end.min(done);
        self
    }

    /// What is left after `number`, if anything.
    pub(super) fn rest(mut self, number: u64) -> Option<Self> {
        let done = (number + 1).saturating_sub(self.origin) as usize;
        self.range.start = self.range.start.max(done);
        (!self.range.is_empty()).then_some(self)
    }

    /// The lane, which Redis knows by the last number it applied.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    pub(super) fn queue_name(&self) -> Arc<str> {
        self.queue.clone()
    }

    /// The queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The number of the first record. The others follow without a hole.
    pub fn first(&self) -> u64 {
        self.origin + self.range.start as u64
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.origin + self.range.end as u64 - 1
    }

    /// What the far end is to do. One that is not [`Asks::Apply`] holds no records.
    pub fn asks(&self) -> Asks {
        self.asks
    }

    /// Whether this is the last word of a lane that is done with: the far end may forget it.
    pub fn ends_lane(&self) -> bool {
        self.asks == Asks::End
    }

    /// How many records, those to be skipped included. 0 only if it [asks](Self::asks) something else.
    #[allow(
        clippy::len_without_is_empty,
        reason = "asks says what an empty one is for"
    )]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// The records with their numbers, in order. `None` stands for a number to be spent on nothing:
    /// its record has expired.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Option<&T>)> {
        let mut spent = self
            .spent
            .iter()
            .copied()
            .skip_while(|at| *at < self.range.start)
            .peekable();
        self.range.clone().map(move |at| {
            let live = spent.next_if_eq(&at).is_none();
            (self.origin + at as u64, live.then(|| &self.records[at]))
        })
    }

    /// The record with this number; `None` if it has expired, or is of another batch.
    pub fn record(&self, number: u64) -> Option<&T> {
        let at = usize::try_from(number.checked_sub(self.origin)?).ok()?;
        let live = self.range.contains(&at) && !self.is_spent(number);
        live.then(|| &self.records[at])
    }

    /// Whether some numbers are to be spent on nothing.
    pub fn has_spent(&self) -> bool {
        !self.spent.is_empty()
    }

    /// The last number of this lane that was acknowledged, or 0. If the far end has less than that,
    /// it has lost writes, and the answer is [`Applied::gap`].
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The number of the connection that it is for alone, if there is one: see
    /// [`RedisCall::with_generation`](crate::RedisCall::with_generation).
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// How long Redis is to remember the lane's last number from now on.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The records themselves, expired or not.
    pub(super) fn records(&self) -> &[T] {
        &self.records[self.range.clone()]
    }

    /// The places, among all records it was made of, of those left for which `is` holds.
    pub(super) fn places(&self, is: impl Fn(&T) -> bool) -> Vec<usize> {
        self.range
            .clone()
            .filter(|at| is(&self.records[*at]))
            .collect()
    }

    pub(super) fn is_spent(&self, number: u64) -> bool {
        let at = (number - self.origin) as usize;
        self.spent.binary_search(&at).is_ok()
    }
}

impl<T> Clone for Batch<T> {
    fn clone(&self) -> Self {
        Self {
            lane: self.lane,
            queue: self.queue.clone(),
            origin: self.origin,
            records: self.records.clone(),
            range: self.range.clone(),
            spent: self.spent.clone(),
            after: self.after,
            lifetime: self.lifetime,
            deadline: self.deadline,
            generation: self.generation,
            asks: self.asks,
        }
    }
}

/// Shows numbers, not records.
impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("lane", &self.lane)
            .field("first", &self.first())
            .field("last", &self.last())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// Its numbers make a batch safe to send again; a leaf that ignores them says so to its callers.
impl<T> Request for Batch<T> {
    fn name(&self) -> &'static str {
        "batch"
    }

    fn repeat(&self) -> Repeat {
        Repeat::Safe
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Says what became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Receipt {
    pub(super) place: Place,
    pub(super) lane: LaneId,
    pub(super) number: u64,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// In Redis.
    Delivered,
    /// On the local disk. It is delivered, once and in order, when Redis is back.
    Spooled,
    /// Nowhere: there was no room, and the queue's overflow is
    /// [`DropNewest`](super::Overflow::DropNewest). It is not delivered, unless Redis got an earlier
    /// try of it whose answer was lost.
    Dropped,
}

impl Receipt {
    /// Where the record is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// It is in Redis.
    pub fn is_delivered(&self) -> bool {
        self.place == Place::Delivered
    }

    /// It is on the local disk.
    pub fn is_spooled(&self) -> bool {
        self.place == Place::Spooled
    }

    /// It was dropped for want of room, as was asked for.
    pub fn is_dropped(&self) -> bool {
        self.place == Place::Dropped
    }

    /// The lane it is in, for the logs.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Its number in the lane.
    pub fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_batch_keeps_its_numbers_and_its_spent_ones() {
        let batch = Batch::new(LaneId::fresh(), "q".into(), 10, vec!['a', 'b', 'c', 'd'])
            .with_spent(vec![0, 2]);
        let shown = |batch: &Batch<char>| {
            batch
                .iter()
                .map(|(number, record)| (number, record.copied()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&batch),
            [(10, None), (11, Some('b')), (12, None), (13, Some('d'))]
        );
        let rest = batch.clone().rest(11).unwrap();
        assert_eq!(shown(&rest), [(12, None), (13, Some('d'))]);
        assert_eq!((rest.first(), rest.last(), rest.len()), (12, 13, 2));
        assert!(batch.rest(13).is_none());
    }
}

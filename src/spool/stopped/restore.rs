//! Puts records back where they were, and none of them twice.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use super::{
    KnownAs, Lane, LaneId, PAGE_BYTES, PAGE_RECORDS, Parked, ParkedId, Record, disk_failed,
};
use crate::{
    error::Error,
    spool::{
        chunk::{Chunk, LONGEST_QUEUE, Writer},
        commit::{Disk, Done},
        queue::unix_ms,
        tail::{Piece, queue_of, tail_of},
    },
};

/// What became of records that were to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// So many were written.
    pub written: u64,
    /// So many were there already, or had been there and are done with.
    pub present: u64,
}

/// Why records can't be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unrestorable {
    /// A record is none that a spool can have held.
    #[error("record {number} of lane {lane} cannot be restored: {why}")]
    #[non_exhaustive]
    Invalid {
        /// The record's lane.
        lane: LaneId,
        /// The record's number.
        number: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk failed, or what is on it is damaged.
    #[error("the records cannot be written")]
    Disk(#[from] Error),
}

/// Which numbers are there, read lane by lane as they are asked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    lanes: HashMap<LaneId, Known>,
    /// `None` until it has been read.
    parked: Option<HashSet<ParkedId>>,
}

#[derive(Debug)]
struct Known {
    queue: String,
    tail: bool,
    waiting: Ranges,
}

impl Index {
    pub(super) async fn restore(
        &mut self,
        disk: &Disk,
        left: &[Lane],
        done_with: &BTreeMap<LaneId, u64>,
        records: Vec<Record>,
    ) -> Result<Restored, Unrestorable> {
        let mut done = Restored::default();
        for record in &records {
            let invalid = |why| Unrestorable::Invalid {
                lane: record.lane,
                number: record.number,
                why,
            };
            check(record).map_err(invalid)?;
            let known = self.lane(disk, left, record).await?;
            if known.queue != record.queue || known.tail != record.known_as.is_some() {
                return Err(invalid("its lane belongs to another queue"));
            }
        }
        // Out of here until it is known to be true again: whoever fails or is dropped while writing leaves
        // what is anybody's guess, and it is read anew.
        let Self { mut lanes, parked } = std::mem::take(self);
        let mut parked = match parked {
            Some(parked) => parked,
            None => parked_ids(disk).await?,
        };
        let overhead = disk.overhead();
        let (mut waiting, mut refused) = (Vec::new(), Vec::new());
        for record in records {
            let at = ParkedId::new(record.lane, record.number);
            // A parked one may wait as well, until the chunk that it came in is done with.
            let known = lanes.get_mut(&record.lane);
            let is_new = if record.refusal.is_some() {
                parked.insert(at)
            } else {
                let through = done_with.get(&record.lane).copied().unwrap_or(0);
                record.number > through
                    && !parked.contains(&at)
                    && known.is_some_and(|known| known.waiting.insert(record.number))
            };
            if !is_new {
                done.present += 1;
                continue;
            }
            done.written += 1;
            if record.refusal.is_some() {
                refused.extend(as_parked(record, overhead));
            } else {
                waiting.push(record);
            }
        }
        refused.sort_by_key(Parked::id);
        for run in refused.chunk_by(|one, next| {
            next.lane == one.lane && next.number == one.number.saturating_add(1)
        }) {
            let nothing = Done {
                lane: run[0].lane,
                through: 0,
                records: 0,
            };
            let kept = disk.park(run.to_vec(), nothing).await;
            kept.map_err(|error| disk_failed(&error))?;
        }
        if !waiting.is_empty() {
            let kept = disk.append(chunks(waiting, overhead)).await;
            kept.map_err(|error| disk_failed(&error))?;
        }
        self.lanes = lanes;
        self.parked = Some(parked);
        Ok(done)
    }

    /// What is known of the lane of `record`: read from disk if it was there at opening, or else begun.
    async fn lane(&mut self, disk: &Disk, left: &[Lane], record: &Record) -> Result<&Known, Error> {
        match self.lanes.entry(record.lane) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let there = left.iter().find(|lane| lane.id == record.lane);
                Ok(unknown.insert(Known {
                    queue: there.map_or(&record.queue, |lane| &lane.queue).clone(),
                    tail: there.map_or(record.known_as.is_some(), |lane| lane.tail),
                    waiting: waiting_numbers(disk, record.lane).await?,
                }))
            }
        }
    }
}

fn check(record: &Record) -> Result<(), &'static str> {
    if record.number == 0 || record.number > LAST_NUMBER || record.acknowledged > LAST_NUMBER {
        return Err("its number is none that a lane can have");
    }
    if record.queue.len() > LONGEST_QUEUE {
        return Err("its queue's name is longer than 1,024 bytes");
    }
    if queue_of(&record.queue).is_some() {
        return Err("its queue's name begins as that of a tail on disk does");
    }
    if let Some(known_as) = record.known_as {
        if known_as.number == 0 || known_as.number > LAST_NUMBER {
            return Err("Redis can't know it by that number");
        }
        if tail_of(&record.queue).is_none() {
            return Err("its queue's name is too long for one with a tail on disk");
        }
        if record.refusal.is_some() {
            return Err("it is parked, and no record of a tail is");
        }
    }
    if u32::try_from(record.bytes.len()).is_err() {
        return Err("it is larger than 4 GiB");
    }
    if record
        .refusal
        .as_ref()
        .is_some_and(|refusal| refusal.reason.len() > LONGEST_REASON)
    {
        return Err("its reason is longer than 64 KiB");
    }
    Ok(())
}

/// The largest that a script in Redis can tell from its neighbours.
const LAST_NUMBER: u64 = 1 << 53;
const LONGEST_REASON: usize = 64 << 10;

fn as_parked(record: Record, overhead: usize) -> Option<Parked> {
    let refusal = record.refusal?;
    Some(Parked {
        lane: record.lane,
        number: record.number,
        queue: record.queue,
        reason: refusal.reason,
        parked_ms: unix_ms(record.written),
        attempts: refusal.attempts,
        record: record.bytes,
        overhead,
    })
}

/// Neighbours that were written together are together again.
fn chunks(mut records: Vec<Record>, overhead: usize) -> Vec<Chunk> {
    records.sort_by_key(|record| (record.lane, record.number));
    let mut chunks = Vec::new();
    for run in records.chunk_by(|one, next| {
        next.lane == one.lane
            && next.number == one.number + 1
            && next.written == one.written
            && next.acknowledged == one.acknowledged
    }) {
        let [first, ..] = run else { continue };
        let tail = first.known_as.and_then(|_| tail_of(&first.queue));
        let mut writer = Writer::new(
            first.lane,
            tail.as_deref().unwrap_or(&first.queue),
            first.number,
            first.acknowledged,
            unix_ms(first.written),
            overhead,
        );
        for record in run {
            let write = |into: &mut Vec<u8>| {
                if let Some(KnownAs { lane, number }) = record.known_as {
                    Piece::begin(lane, number, into);
                }
                into.extend_from_slice(&record.bytes);
            };
            writer.push_if(write, |_| true);
        }
        chunks.extend(writer.finish());
    }
    chunks
}

async fn waiting_numbers(disk: &Disk, lane: LaneId) -> Result<Ranges, Error> {
    let mut found = Ranges::default();
    let mut from = 0;
    loop {
        let page = disk.read(lane, from, PAGE_RECORDS, PAGE_BYTES).await;
        let page = page.map_err(|error| disk_failed(&error))?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        from = last.end();
        for chunk in &page {
            found.add(chunk.first, chunk.end());
        }
    }
}

async fn parked_ids(disk: &Disk) -> Result<HashSet<ParkedId>, Error> {
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let page = disk.parked(after, PAGE_RECORDS, PAGE_BYTES).await;
        let page = page.map_err(|error| disk_failed(&error))?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = Some(last.id());
        found.extend(page.iter().map(Parked::id));
    }
}

/// A set of numbers, most of which are neighbours: from each start, up to its end, not included.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn contains(&self, number: u64) -> bool {
        let begun = self.0.range(..=number).next_back();
        begun.is_some_and(|(_, end)| number < *end)
    }

    /// Whether it was not there before.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let new = !self.contains(number);
        if new {
            self.add(number, number + 1);
        }
        new
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        // Whatever it touches becomes one with it.
        while let Some((&s, &e)) = self
            .0
            .range(..=end)
            .next_back()
            .filter(|(_, e)| **e >= start)
        {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }
}

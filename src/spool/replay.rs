//! What waits on disk, on its way back: reads ahead, makes batches, and removes what is delivered.
//!
//! The front of the disk is either another lane's, one after the other, or this run's own lane.

mod dropping;
mod portion;

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};

use self::portion::{Gone, Pieces, Portion};
use super::{
    Batch, LaneId, Spoolable,
    chunk::{Held, Parked},
    commit::{Done, Replaced},
    error::StoreError,
    lane::Lane,
    shared::Shared,
    usage::Slot,
};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

/// A lane on disk that is not this run's own: an earlier run left it, or it was parked and is to be sent
/// again. It keeps its id and its numbers.
#[derive(Debug)]
pub(super) struct Older {
    pub(super) lane: LaneId,
    pub(super) front: u64,
    pub(super) last: u64,
    pub(super) acknowledged: u64,
    /// How often its records have been refused and parked before.
    pub(super) refused: u32,
    /// How many records it has, and their bytes.
    pub(super) records: u64,
    pub(super) bytes: u64,
}

pub(super) struct Replay<T> {
    queue: Arc<str>,
    own: LaneId,
    slot: Slot,
    /// In the order of their age.
    older: VecDeque<Older>,
    /// Older ones as soon as no batch from disk is on its way.
    adopted: VecDeque<Older>,
    /// Read, and not yet sent.
    ahead: VecDeque<Portion<T>>,
    /// Where the read under way began, or else where the next one begins; `None` at the front.
    read_from: Option<u64>,
    reading: Option<BoxFuture<'static, Result<Vec<Held>, StoreError>>>,
    parking: Option<Parking>,
    finished: Option<Finished>,
    front_written_ms: Option<u64>,
    shown_written_ms: Option<u64>,
    /// How many bytes of the chunk at the front have been given back.
    partly: u64,
    /// The same of the own lane, while another one is at the front.
    own_partly: u64,
    in_flight: bool,
}

/// A batch from disk that is on its way.
pub(super) struct Sent {
    lane: LaneId,
    older: bool,
    refused: u32,
    pieces: Pieces,
}

impl Sent {
    pub(super) fn is_older(&self) -> bool {
        self.older
    }

    /// How often its records have been refused and parked before.
    pub(super) fn refused(&self) -> u32 {
        self.refused
    }
}

struct Parking {
    /// What waits no more once it is parked.
    records: u64,
    bytes: u64,
    parked_bytes: u64,
    older: bool,
    through: u64,
    /// What `partly` was before.
    partly: u64,
    answer: BoxFuture<'static, Result<Replaced, StoreError>>,
}

enum Finished {
    Read(Result<Vec<Held>, StoreError>),
    Parked(Result<Replaced, StoreError>, Parking),
}

impl<T: Spoolable> Replay<T> {
    pub(super) fn new(queue: Arc<str>, own: LaneId, slot: Slot, older: VecDeque<Older>) -> Self {
        Self {
            queue,
            own,
            slot,
            older,
            adopted: VecDeque::new(),
            ahead: VecDeque::new(),
            read_from: None,
            reading: None,
            parking: None,
            finished: None,
            front_written_ms: None,
            shown_written_ms: None,
            partly: 0,
            own_partly: 0,
            in_flight: false,
        }
    }

    /// This run's lane has another id from now on. Only while nothing of it is on disk.
    pub(super) fn renew(&mut self, own: LaneId) {
        self.own = own;
    }

    /// Sends another lane's records before this run's own.
    pub(super) fn adopt(&mut self, lane: Older) {
        self.adopted.push_back(lane);
    }

    /// Puts what was [adopted](Self::adopt) in line, once that mixes nothing up. Says whether it did.
    pub(super) fn promote(&mut self) -> bool {
        if self.adopted.is_empty() || self.in_flight || self.parking.is_some() {
            return false;
        }
        if self.older.is_empty() {
            // What has been read ahead is the own lane's.
            self.rewind();
            self.own_partly = std::mem::take(&mut self.partly);
        }
        self.older.append(&mut self.adopted);
        true
    }

    pub(super) fn is_parking(&self) -> bool {
        self.parking.is_some()
    }

    /// Whether all that waits on disk is in the one request that is on its way.
    pub(super) fn is_last_in_flight(&self, lane: &Lane) -> bool {
        self.in_flight
            && self.older.is_empty()
            && self.ahead.is_empty()
            && lane
                .back()
                .is_some_and(|back| self.read_from.is_some_and(|from| from > back))
    }

    /// Reads on, if there is more to read and little has been read ahead.
    pub(super) fn start_read(&mut self, shared: &Arc<Shared<T>>, lane: &Lane) {
        if self.reading.is_some() || self.parking.is_some() || self.finished.is_some() {
            return;
        }
        let options = &shared.options;
        let ahead: usize = self.ahead.iter().map(Portion::len).sum();
        if ahead >= options.max_batch_records {
            return;
        }
        let (source, front, last) = match self.older.front() {
            Some(older) => (older.lane, older.front, older.last),
            None => match (lane.front(), lane.back()) {
                (Some(front), Some(back)) => {
                    (self.own, front, back.min(lane.barrier().saturating_sub(1)))
                }
                _ => return,
            },
        };
        let from = self.read_from.unwrap_or(front);
        if from > last {
            return;
        }
        // Noted now: the front may move before the read is done.
        self.read_from = Some(from);
        let disk = shared.disk.clone();
        let (records, bytes) = (options.max_batch_records, options.max_batch_bytes);
        self.reading = Some(async move { disk.read(source, from, records, bytes).await }.boxed());
    }

    /// The next batch, of up to `most` records and about `bytes` bytes, if one has been read.
    ///
    /// # Errors
    ///
    /// The front is nothing that this program can read. It is read again.
    pub(super) fn next(
        &mut self,
        lane: &Lane,
        most: usize,
        bytes: usize,
    ) -> Result<Option<(Batch<T>, Sent)>, Error> {
        if self.parking.is_some() {
            return Ok(None);
        }
        let Some(front) = self.ahead.front() else {
            return Ok(None);
        };
        if let Some(undecodable) = front.is_undecodable() {
            self.rewind();
            let verdict = Verdict::new(Class::Permanent, Landed::No);
            return Err(Error::new(ErrorKind::Spool, verdict).with_source(undecodable));
        }
        let first = front.next;
        self.front_written_ms = Some(front.whole.written_ms);
        let (mut records, mut room) = (Vec::new(), bytes);
        let mut pieces = Pieces::default();
        while let Some(portion) = self.ahead.front_mut() {
            let holds_next = portion.next == first + records.len() as u64;
            if !holds_next || records.len() >= most || (room == 0 && !records.is_empty()) {
                break;
            }
            while records.len() < most
                && let Some(record) = portion.take(&mut pieces)
            {
                room = room.saturating_sub(record.size());
                records.push(record);
                if room == 0 {
                    break;
                }
            }
            if portion.len() > 0 {
                break;
            }
            self.ahead.pop_front();
        }
        let (source, after) = match self.older.front() {
            Some(older) => (older.lane, older.acknowledged),
            None => (self.own, lane.acknowledged()),
        };
        let sent = Sent {
            lane: source,
            older: !self.older.is_empty(),
            refused: self.older.front().map_or(0, |older| older.refused),
            pieces,
        };
        self.in_flight = true;
        // What has been acknowledged in front of it: a lane that an earlier run has left may begin before that.
        let batch =
            Batch::new(source, self.queue.clone(), first, records).with_after(after.min(first - 1));
        Ok(Some((batch, sent)))
    }

    /// The records up to `through` are in Redis, and leave what waits. Gives what is to be noted on disk of
    /// that, so that their chunks can go.
    pub(super) fn remove(
        &mut self,
        sent: &mut Sent,
        through: u64,
        shared: &Shared<T>,
        lane: &mut Lane,
    ) -> Done {
        self.in_flight = false;
        let gone = sent.pieces.split(through, &mut self.partly);
        shared.usage.free(self.slot, gone.records, gone.bytes);
        self.advance(sent.older, through, lane);
        gone.done(sent.lane, through)
    }

    /// Puts `parked` aside, the last of which has number `through`. There is room
    /// [reserved](super::usage::Usage::reserve_parked) for them.
    pub(super) fn park(
        &mut self,
        parked: Vec<Parked>,
        through: u64,
        mut sent: Sent,
        shared: &Shared<T>,
    ) {
        self.rewind();
        let disk = shared.disk.clone();
        let partly = self.partly;
        let gone = sent.pieces.split(through, &mut self.partly);
        self.parking = Some(Parking {
            records: gone.records,
            bytes: gone.bytes,
            parked_bytes: parked.iter().map(Parked::bytes).sum(),
            older: sent.older,
            through,
            partly,
            answer: {
                let done = gone.done(sent.lane, through);
                async move { disk.park(parked, done).await }.boxed()
            },
        });
    }

    /// What has been read ahead is read again, from the front.
    pub(super) fn rewind(&mut self) {
        self.in_flight = false;
        self.ahead.clear();
        self.reading = None;
        self.read_from = None;
    }

    /// Numbers from `first` on have come to disk.
    pub(super) fn appended(&mut self, first: u64) {
        if self.older.is_empty() && self.read_from.is_some_and(|from| from > first) {
            self.rewind();
        }
    }

    pub(super) fn older_acknowledged(&mut self, through: u64) {
        if let Some(older) = self.older.front_mut() {
            older.acknowledged = older.acknowledged.max(through);
        }
    }

    /// Redis knows this lane of an earlier run only up to `last`. Says how many records it has lost.
    pub(super) fn older_lost_after(&mut self, lane: LaneId, last: u64) -> u64 {
        let mut older = self.older.iter_mut().chain(&mut self.adopted);
        let Some(older) = older.find(|older| older.lane == lane) else {
            return 0;
        };
        let lost = older.acknowledged.saturating_sub(last);
        older.acknowledged = older.acknowledged.min(last);
        lost
    }

    /// Ready when [`settle`](Self::settle) has something to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reading) = &mut self.reading
            && let Poll::Ready(read) = reading.as_mut().poll(cx)
        {
            self.reading = None;
            self.finished = Some(Finished::Read(read));
            return Poll::Ready(());
        }
        if let Some(parking) = &mut self.parking
            && let Poll::Ready(answer) = parking.answer.as_mut().poll(cx)
        {
            let parking = self.parking.take();
            self.finished = parking.map(|parking| Finished::Parked(answer, parking));
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Takes note of what [`poll`](Self::poll) has found. Says how many records are parked now.
    ///
    /// # Errors
    ///
    /// The disk failed. It is tried again from the front.
    pub(super) fn settle(&mut self, shared: &Shared<T>, lane: &mut Lane) -> Result<u64, Error> {
        match self.finished.take() {
            None => Ok(0),
            Some(Finished::Read(Ok(chunks))) => {
                self.take_in(chunks, lane);
                Ok(0)
            }
            Some(Finished::Read(Err(error))) => Err(self.failed(&error)),
            Some(Finished::Parked(Err(error), parking)) => {
                self.partly = parking.partly;
                shared.usage.release_parked(parking.records);
                Err(self.failed(&error))
            }
            Some(Finished::Parked(Ok(replaced), parking)) => {
                let (waited, parked) = (
                    (parking.records, parking.bytes),
                    (parking.records, parking.parked_bytes),
                );
                shared.usage.park(self.slot, waited, parked, replaced);
                self.advance(parking.older, parking.through, lane);
                Ok(parking.records - replaced.records)
            }
        }
    }

    fn failed(&mut self, error: &StoreError) -> Error {
        self.rewind();
        Error::new(ErrorKind::Spool, Verdict::new(Class::Outage, Landed::No))
            .with_cause(error.to_string())
    }

    fn take_in(&mut self, chunks: Vec<Held>, lane: &mut Lane) {
        let (front, last, barrier) = match self.older.front() {
            Some(older) => (older.front, older.last, u64::MAX),
            None => match (lane.front(), lane.back()) {
                (Some(front), Some(back)) => (front, back, lane.barrier()),
                _ => return,
            },
        };
        let from = self.read_from.unwrap_or(front);
        if chunks.is_empty() {
            // Numbers that were never written, or refused, may be all that is left.
            let older = !self.older.is_empty();
            self.read_from = Some(last + 1);
            if self.ahead.is_empty() && !self.in_flight {
                self.advance(older, last, lane);
            }
            return;
        }
        for chunk in chunks {
            let chunk_last = chunk.end() - 1;
            if chunk.first >= barrier {
                // There is nothing between.
                self.read_from = Some(barrier.max(from));
                break;
            }
            self.read_from = Some(chunk_last + 1);
            if chunk_last < from {
                continue;
            }
            if self.ahead.is_empty() && !self.in_flight {
                self.front_written_ms = Some(chunk.written_ms);
            }
            let decode = |bytes| T::decode(&self.queue, bytes);
            self.ahead.push_back(Portion::new(chunk, from, decode));
        }
    }

    /// Everything up to `through` is done with.
    fn advance(&mut self, is_older: bool, through: u64, lane: &mut Lane) {
        if !is_older {
            lane.removed(through);
            if lane.front().is_none() {
                self.read_from = None;
                self.front_written_ms = None;
            }
            return;
        }
        let Some(older) = self.older.front_mut() else {
            return;
        };
        older.front = older.front.max(through + 1);
        if older.front > older.last {
            self.older.pop_front();
            self.partly = 0;
            self.rewind();
            self.front_written_ms = None;
            if self.older.is_empty() {
                self.partly = std::mem::take(&mut self.own_partly);
                lane.older_drained();
            }
        }
    }

    /// Tells the gauge since when the front waits.
    pub(super) fn show_oldest(&mut self, shared: &Shared<T>, lane: &Lane) {
        let oldest = if lane.is_drained() {
            None
        } else {
            self.front_written_ms
        };
        if oldest != self.shown_written_ms {
            self.shown_written_ms = oldest;
            shared.show_oldest(&self.queue, oldest);
        }
    }
}

impl Gone {
    fn done(self, lane: LaneId, through: u64) -> Done {
        Done {
            lane,
            through,
            records: self.records,
        }
    }
}

#[cfg(test)]
mod tests;

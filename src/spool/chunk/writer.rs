//! Packs the records of a batch into chunks.

use super::{Chunk, FIXED, Header, Kind, LONGEST, LaneId};

/// Takes the records of one lane in the order of their numbers, and makes chunks of them.
pub(in crate::spool) struct Writer {
    lane: LaneId,
    queue: Box<str>,
    now_ms: u64,
    /// The number of the next record.
    next: u64,
    /// The chunk that is being filled; empty if none is.
    open: Vec<u8>,
    /// How many records it has.
    count: u32,
    /// Where a record is written first: what a caller's code does to the buffer it is given can
    /// spoil its own record, but no other.
    record: Vec<u8>,
    done: Vec<Chunk>,
}

impl Writer {
    /// A writer of records `first`, `first` + 1, and so on.
    ///
    /// `queue` is at most [`LONGEST_QUEUE`](super::LONGEST_QUEUE) bytes.
    pub(in crate::spool) fn new(lane: LaneId, queue: &str, first: u64, now_ms: u64) -> Self {
        Self {
            lane,
            queue: queue.into(),
            now_ms,
            next: first,
            open: Vec::new(),
            count: 0,
            record: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Adds a record: the bytes that `write` puts into the empty buffer it is given.
    pub(in crate::spool) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.record.clear();
        write(&mut self.record);
        let length = u32::try_from(self.record.len())
            .expect("a record's size is bounded where it is taken in")
            .to_le_bytes();
        let header = FIXED + self.queue.len();
        let needed = length.len() + self.record.len();
        if self.open.len() + needed > LONGEST {
            self.close();
        }
        if header + needed > LONGEST {
            let body = [&length, &*self.record].concat();
            let parts = self.header().parts(self.next, &body);
            self.done.extend(parts);
        } else {
            if self.open.is_empty() {
                // What follows a full chunk will likely fill one too.
                let room = if self.done.is_empty() {
                    needed
                } else {
                    LONGEST - header
                };
                self.open = self.header().begin(room);
            }
            self.open.extend_from_slice(&length);
            self.open.extend_from_slice(&self.record);
            self.count += 1;
        }
        self.next += 1;
    }

    /// The chunks, in the order of their keys; none if there was no record.
    pub(in crate::spool) fn finish(mut self) -> Vec<Chunk> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.count > 0 {
            let value = std::mem::take(&mut self.open);
            let count = std::mem::take(&mut self.count);
            let first = self.next - u64::from(count);
            let chunk = self.header().seal(value, first, count, 0, 1);
            self.done.push(chunk);
        }
    }

    fn header(&self) -> Header<'_> {
        Header {
            kind: Kind::Waiting,
            lane: self.lane,
            queue: &self.queue,
            written_ms: self.now_ms,
        }
    }
}

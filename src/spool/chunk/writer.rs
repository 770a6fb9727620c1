//! Packs the records of a batch into chunks.

use super::{Chunk, FIXED, Header, Key, Kind, LONGEST, LaneId};

/// Takes the records of one lane in the order of their numbers, and makes chunks of them.
pub(in crate::spool) struct Writer {
    lane: LaneId,
    queue: Box<str>,
    now_ms: u64,
    /// The last number of the lane that Redis had acknowledged by then.
    acknowledged: u64,
    /// How often Redis has refused these records.
    refused: u32,
    /// What encryption will add to each chunk, in bytes.
    overhead: usize,
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
    /// `queue` is at most [`LONGEST_QUEUE`](super::LONGEST_QUEUE) bytes. Each chunk leaves `overhead` bytes
    /// free, for what encryption will add.
    pub(in crate::spool) fn new(
        lane: LaneId,
        queue: &str,
        first: u64,
        acknowledged: u64,
        now_ms: u64,
        overhead: usize,
    ) -> Self {
        Self {
            lane,
            queue: queue.into(),
            now_ms,
            next: first,
            acknowledged,
            refused: 0,
            overhead,
            open: Vec::new(),
            count: 0,
            record: Vec::new(),
            done: Vec::new(),
        }
    }

    /// These records have been refused so many times.
    pub(in crate::spool) fn with_refused(mut self, refused: u32) -> Self {
        self.refused = refused;
        self
    }

    /// Adds a record, the bytes that `write` puts into the empty buffer it is given, if `fits` says so of
    /// what they add on disk, the key and the header of a chunk they begin included.
    pub(in crate::spool) fn push_if(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        fits: impl FnOnce(u64) -> bool,
    ) -> bool {
        self.record.clear();
        write(&mut self.record);
        let length = u32::try_from(self.record.len())
            .expect("a record's size is bounded where it is taken in")
            .to_le_bytes();
        let needed = length.len() + self.record.len();
        let header = FIXED + self.queue.len();
        let longest = LONGEST - self.overhead;
        let begun = if self.open.is_empty() || self.open.len() + needed > longest {
            needed.div_ceil(longest - header)
        } else {
            0
        };
        if !fits((needed + begun * (Key::LEN + header + self.overhead)) as u64) {
            return false;
        }
        if self.open.len() + needed > longest {
            self.close();
        }
        if header + needed > longest {
            let body = [&length, &*self.record].concat();
            let parts = self.header().parts(self.next, &body, self.overhead);
            self.done.extend(parts);
        } else {
            if self.open.is_empty() {
                // What follows a full chunk will likely fill one too.
                let room = if self.done.is_empty() {
                    needed
                } else {
                    longest - header
                };
                self.open = self.header().begin(room + self.overhead);
            }
            self.open.extend_from_slice(&length);
            self.open.extend_from_slice(&self.record);
            self.count += 1;
        }
        self.next += 1;
        true
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
            acknowledged: self.acknowledged,
            refused: self.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_record_is_said_to_add_is_what_it_adds(
            queue in "[a-z]{1,40}",
            sizes in proptest::collection::vec(
                prop_oneof![0..200_usize, 30_000..40_000_usize, LONGEST - 200..LONGEST, 200_000..300_000_usize],
                0..20,
            ),
            refused in proptest::collection::vec(any::<bool>(), 20),
            overhead in prop_oneof![Just(0), Just(40)],
        ) {
            let mut writer = Writer::new(LaneId::fresh(), &queue, 1, 0, 0, overhead);
            let mut said = 0;
            for (size, refused) in sizes.into_iter().zip(refused) {
                writer.push_if(
                    |record| record.resize(size, b'x'),
                    |more| {
                        said += if refused { 0 } else { more };
                        !refused
                    },
                );
            }
            let chunks = writer.finish();
            prop_assert!(chunks.iter().all(|chunk| chunk.value.len() + overhead <= LONGEST));
            let bytes = chunks.iter().map(|chunk| chunk.bytes() + overhead as u64).sum::<u64>();
            prop_assert_eq!(said, bytes);
        }
    }
}

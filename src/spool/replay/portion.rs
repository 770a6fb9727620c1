//! What has been read of a chunk, and which part of it is done with.
//!
//! A chunk goes as a whole, but its room is given back record by record: each is worth the bytes that
//! were booked for it, and the last one of a chunk whatever is left, so that the sum is exact.

use std::collections::VecDeque;

use crate::spool::{Undecodable, chunk::Held};

/// One chunk's records, or what is left of them.
pub(super) struct Portion<T> {
    /// The number of the first of them.
    pub(super) next: u64,
    records: std::vec::IntoIter<Waiting<T>>,
    pub(super) whole: Whole,
}

/// A record that waits, if it can be read, and its length.
struct Waiting<T> {
    length: u32,
    record: Result<T, Undecodable>,
}

/// A chunk.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    last: u64,
    bytes: u64,
    pub(super) written_ms: u64,
}

/// Some consecutive records of one chunk.
struct Piece {
    whole: Whole,
    first: u64,
    lengths: VecDeque<u32>,
}

/// Consecutive records that leave the disk together, or are on their way.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Piece>);

/// What is done with.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl<T> Portion<T> {
    /// The records of `chunk` from number `from` on, which is in it.
    pub(super) fn new(
        chunk: Held,
        from: u64,
        decode: impl Fn(bytes::Bytes) -> Result<T, Undecodable>,
    ) -> Self {
        let next = chunk.first.max(from);
        let whole = Whole {
            last: chunk.first + chunk.records.len() as u64 - 1,
            bytes: chunk.bytes,
            written_ms: chunk.written_ms,
        };
        let left = chunk
            .records
            .into_iter()
            .skip((next - chunk.first) as usize);
        let records: Vec<_> = left
            .map(|bytes| Waiting {
                length: bytes.len() as u32,
                record: decode(bytes),
            })
            .collect();
        Self {
            next,
            records: records.into_iter(),
            whole,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the next record can't be read; `None` if there is no next one.
    pub(super) fn is_undecodable(&self) -> Option<Undecodable> {
        self.records
            .as_slice()
            .first()?
            .record
            .as_ref()
            .err()
            .cloned()
    }

    /// The next record, if there is one and it can be read; `piece` takes note of it.
    pub(super) fn take(&mut self, piece: &mut Pieces) -> Option<T> {
        if self.is_undecodable().is_some() {
            return None;
        }
        let waiting = self.records.next()?;
        piece.push(&self.whole, self.next, waiting.length);
        self.next += 1;
        waiting.record.ok()
    }

    /// Drops the next `count` records.
    pub(super) fn skip(&mut self, count: usize, pieces: &mut Pieces) {
        for waiting in self.records.by_ref().take(count) {
            pieces.push(&self.whole, self.next, waiting.length);
            self.next += 1;
        }
    }

    /// What each of its records is worth, if `partly` bytes of the chunk have been given back.
    pub(super) fn shares(&self, partly: u64) -> impl Iterator<Item = u64> {
        let mut left = self.whole.bytes.saturating_sub(partly);
        let count = self.records.len();
        let lengths = self.records.as_slice().iter().map(|waiting| waiting.length);
        lengths.enumerate().map(move |(at, length)| {
            let share = if at + 1 == count { left } else { share(length) };
            left = left.saturating_sub(share);
            share
        })
    }
}

impl Pieces {
    fn push(&mut self, whole: &Whole, number: u64, length: u32) {
        match self
            .0
            .back_mut()
            .filter(|piece| piece.whole.last == whole.last)
        {
            Some(piece) => piece.lengths.push_back(length),
            None => self.0.push_back(Piece {
                whole: *whole,
                first: number,
                lengths: [length].into(),
            }),
        }
    }

    /// Takes out the records up to `through`. `partly` says how many bytes of the first chunk had been
    /// given back before, and then, how many of the one that is first now.
    pub(super) fn split(&mut self, through: u64, partly: &mut u64) -> Gone {
        let mut gone = Gone::default();
        while let Some(piece) = self.0.front_mut().filter(|piece| piece.first <= through) {
            let count = (through - piece.first + 1).min(piece.lengths.len() as u64);
            gone.records += count;
            if through >= piece.whole.last {
                gone.bytes += piece.whole.bytes.saturating_sub(*partly);
                *partly = 0;
                self.0.pop_front();
                continue;
            }
            let bytes = piece
                .lengths
                .drain(..count as usize)
                .map(share)
                .sum::<u64>();
            piece.first += count;
            gone.bytes += bytes;
            *partly += bytes;
            break;
        }
        gone
    }
}

/// What is booked for a record of `length` bytes in a chunk that has others: see
/// [`Writer`](crate::spool::chunk::Writer).
fn share(length: u32) -> u64 {
    u64::from(length) + 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::LaneId;

    fn held(first: u64, lengths: &[usize], header: u64) -> Held {
        let body: u64 = lengths.iter().map(|length| *length as u64 + 4).sum();
        Held {
            lane: LaneId::from_bytes([7; 16]),
            refused: 0,
            first,
            records: lengths
                .iter()
                .map(|length| vec![0; *length].into())
                .collect(),
            queue: "notes".to_owned(),
            written_ms: 0,
            bytes: header + body,
        }
    }

    proptest! {
        /// However the records of a chunk go: some delivered, some dropped, read anew in between.
        #[test]
        fn the_shares_of_a_chunks_records_add_up_to_its_bytes(
            lengths in proptest::collection::vec(0usize..300, 1..30),
            steps in proptest::collection::vec((any::<bool>(), 1usize..9, 0usize..9), 1..40),
            begun in 0usize..5,
        ) {
            let begun = begun.min(lengths.len() - 1) as u64;
            let last = lengths.len() as u64;
            let (mut partly, mut next) = (0, 1 + begun);
            let mut freed = Gone::default();
            for (drops, count, lost) in steps {
                if next > last {
                    break;
                }
                let mut portion = Portion::new(held(1, &lengths, 99), next, Ok);
                let expected: Vec<u64> = portion.shares(partly).take(count).collect();
                let mut pieces = Pieces::default();
                let through = if drops {
                    portion.skip(count, &mut pieces);
                    portion.next - 1
                } else {
                    let taken = (0..count).filter(|_| portion.take(&mut pieces).is_some()).count();
                    // Not all of them get through.
                    (portion.next - 1).saturating_sub(lost.min(taken) as u64)
                };
                let gone = pieces.split(through, &mut partly);
                let count = (through + 1).saturating_sub(next);
                prop_assert_eq!(gone.records, count);
                prop_assert_eq!(gone.bytes, expected.iter().take(count as usize).sum::<u64>());
                freed.records += gone.records;
                freed.bytes += gone.bytes;
                next += count;
            }
            let chunk = held(1, &lengths, 99);
            if next > last {
                prop_assert_eq!(freed.bytes, chunk.bytes);
                prop_assert_eq!(partly, 0);
            } else {
                prop_assert_eq!(freed.bytes, partly);
            }
        }
    }
}

//! How records stand on disk: in checksummed chunks that tell by themselves what they are.
//!
//! A [`Writer`] packs the records of one batch into chunks, [`Frame::parse`] reads one chunk back, and
//! a [`Gather`] puts the parts of a long record together again. `docs/spool-format.md` draws the format
//! byte by byte. No file and no clock is touched here.

mod gather;
mod key;
mod parked;
#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;

pub(super) use self::{
    gather::{Gather, Held, Whole},
    key::{Key, Kind},
    writer::Writer,
};
pub use self::{key::LaneId, parked::Parked};

/// The name of a queue is part of every chunk, and has to leave room for records.
pub(super) const LONGEST_QUEUE: usize = 1024;

/// One value for the store, and its key.
pub(super) struct Chunk {
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
    /// How many records begin in it: none in the later parts of a long one.
    pub(super) records: u32,
}

impl Chunk {
    /// What it costs on disk, the store's own overhead aside.
    pub(super) fn bytes(&self) -> u64 {
        (Key::LEN + self.value.len()) as u64
    }
}

/// A value that is not, or not any more, what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) &'static str);

/// One chunk, read back and found sound.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) key: Key,
    pub(super) count: u32,
    pub(super) parts: u16,
    pub(super) written_ms: u64,
    /// The last number of the lane that Redis had acknowledged when this was written.
    pub(super) acknowledged: u64,
    pub(super) bytes: u64,
    queue: Bytes,
    body: Bytes,
}

impl Frame {
    /// Checks every bit of `value`, and that it is the one that was written under `key`.
    pub(super) fn parse(key: Key, value: &Bytes) -> Result<Self, Damaged> {
        let (head, after) = value
            .split_first_chunk::<FIXED>()
            .ok_or(Damaged("shorter than a chunk's header"))?;
        let (queue, frame) = Self::header(key, head)?;
        let header = u16_at(head, HEADER) as usize;
        if header < FIXED + queue || value.len() != header + u32_at(head, BODY) as usize {
            return Err(Damaged("cut off, or longer than it was written"));
        }
        if checksum(head, after) != u32_at(head, CHECKSUM) {
            return Err(Damaged("its checksum does not match"));
        }
        let queue = value.slice(FIXED..FIXED + queue);
        if std::str::from_utf8(&queue).is_err() {
            return Err(Damaged("its queue's name is not UTF-8"));
        }
        Ok(Self {
            queue,
            body: value.slice(header..),
            bytes: (Key::LEN + value.len()) as u64,
            ..frame
        })
    }

    /// The fields of fixed size, and the length of the queue's name.
    fn header(key: Key, head: &[u8; FIXED]) -> Result<(usize, Self), Damaged> {
        if head[..VERSION] != MAGIC {
            return Err(Damaged("not a chunk"));
        }
        if head[VERSION] != KNOWN || u16_at(head, FLAGS) != 0 {
            return Err(Damaged("written by a newer seawall"));
        }
        let lane = LaneId::from_bytes(array_at(head, LANE));
        let kind = Kind::from_byte(head[KIND]).ok_or(Damaged("of an unknown kind"))?;
        let part = u16_at(head, PART);
        if Key::new(kind, lane, u64_at(head, FIRST), part) != key {
            return Err(Damaged("not the chunk that was written under its key"));
        }
        let (parts, count) = (u16_at(head, PARTS), u32_at(head, COUNT));
        let records = match (part, parts) {
            (0, 1) => count > 0,
            (0, _) => count == 1,
            _ => count == 0,
        };
        if part >= parts || !records {
            return Err(Damaged("its parts do not add up"));
        }
        let frame = Self {
            key,
            count,
            parts,
            written_ms: u64_at(head, WRITTEN),
            acknowledged: u64_at(head, ACKNOWLEDGED),
            bytes: 0,
            queue: Bytes::new(),
            body: Bytes::new(),
        };
        Ok((u16_at(head, QUEUE).into(), frame))
    }

    /// The queue its records belong to.
    pub(super) fn queue(&self) -> &str {
        std::str::from_utf8(&self.queue).expect("the name was checked by parse")
    }
}

/// What the header of a chunk says besides its key, its size and its checksum.
#[derive(Clone, Copy)]
struct Header<'a> {
    kind: Kind,
    lane: LaneId,
    queue: &'a str,
    written_ms: u64,
    acknowledged: u64,
}

impl Header<'_> {
    /// Begins a value with room for a body: the header, with zeros where only [`seal`](Self::seal)
    /// knows.
    fn begin(&self, room: usize) -> Vec<u8> {
        let queue = self.queue.as_bytes();
        assert!(
            queue.len() <= LONGEST_QUEUE,
            "a queue's name is measured where the queue is opened"
        );
        let mut value = Vec::with_capacity(FIXED + queue.len() + room);
        value.resize(FIXED, 0);
        value[..VERSION].copy_from_slice(&MAGIC);
        value[VERSION] = KNOWN;
        value[KIND] = self.kind as u8;
        put(
            &mut value,
            HEADER,
            ((FIXED + queue.len()) as u16).to_le_bytes(),
        );
        put(&mut value, QUEUE, (queue.len() as u16).to_le_bytes());
        put(&mut value, LANE, self.lane.to_bytes());
        put(&mut value, WRITTEN, self.written_ms.to_le_bytes());
        put(&mut value, ACKNOWLEDGED, self.acknowledged.to_le_bytes());
        value.extend_from_slice(queue);
        value
    }

    /// Ends a value that [`begin`](Self::begin) has begun and that now has its body.
    fn seal(&self, mut value: Vec<u8>, first: u64, count: u32, part: u16, parts: u16) -> Chunk {
        let body = value.len() - FIXED - self.queue.len();
        put(&mut value, PART, part.to_le_bytes());
        put(&mut value, PARTS, parts.to_le_bytes());
        put(&mut value, COUNT, count.to_le_bytes());
        put(&mut value, BODY, (body as u32).to_le_bytes());
        put(&mut value, FIRST, first.to_le_bytes());
        let sum = {
            let (head, after) = value
                .split_first_chunk::<FIXED>()
                .expect("a value begins with its header");
            checksum(head, after)
        };
        put(&mut value, CHECKSUM, sum.to_le_bytes());
        Chunk {
            key: Key::new(self.kind, self.lane, first, part),
            value,
            records: count,
        }
    }

    /// A body of any length, as one chunk or in as many parts as it takes.
    fn parts(&self, number: u64, body: &[u8]) -> Vec<Chunk> {
        let room = LONGEST - FIXED - self.queue.len();
        let parts = u16::try_from(body.len().div_ceil(room))
            .expect("a record's length fits 32 bits, so its parts fit 16");
        let pieces = (0..parts).zip(body.chunks(room));
        pieces
            .map(|(part, piece)| {
                let mut value = self.begin(piece.len());
                value.extend_from_slice(piece);
                self.seal(value, number, u32::from(part == 0), part, parts)
            })
            .collect()
    }
}

/// The longest value. The store keeps up to 16 of them on a page, and some 256 pages in memory
/// however small its cache is: this is what bounds the spool's memory. It also keeps a page far below
/// the 2 MiB at which the store would put it into a file of its own that it never syncs.
const LONGEST: usize = 32 * 1024;

/// The first byte is no text, so that a payload that quotes this file is not taken for a chunk.
const MAGIC: [u8; 8] = *b"\x89seawall";
const KNOWN: u8 = 1;

// Where the fields are.
const VERSION: usize = 8;
const KIND: usize = 9;
const FLAGS: usize = 10;
const HEADER: usize = 12;
const QUEUE: usize = 14;
const PART: usize = 16;
const PARTS: usize = 18;
const COUNT: usize = 20;
const BODY: usize = 24;
const CHECKSUM: usize = 28;
const LANE: usize = 32;
const FIRST: usize = 48;
const WRITTEN: usize = 56;
const ACKNOWLEDGED: usize = 64;
const FIXED: usize = 72;

/// Over all of the value but the checksum itself. The key needs none: all of it is in the header.
fn checksum(head: &[u8; FIXED], after: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[..CHECKSUM]);
    sum.update(&head[LANE..]);
    sum.update(after);
    sum.finalize()
}

fn put<const N: usize>(value: &mut [u8], at: usize, bytes: [u8; N]) {
    value[at..at + N].copy_from_slice(&bytes);
}

fn array_at<const N: usize>(head: &[u8; FIXED], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

fn u16_at(head: &[u8; FIXED], at: usize) -> u16 {
    u16::from_le_bytes(array_at(head, at))
}

fn u32_at(head: &[u8; FIXED], at: usize) -> u32 {
    u32::from_le_bytes(array_at(head, at))
}

fn u64_at(head: &[u8; FIXED], at: usize) -> u64 {
    u64::from_le_bytes(array_at(head, at))
}

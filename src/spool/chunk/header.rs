//! The header of a chunk: where its fields are, the [`Stamp`], and the checksum.

use std::fmt;

use rand::RngCore as _;

use super::{Chunk, Damaged, Key, Kind, LONGEST_QUEUE, LaneId};

/// Which spool a chunk is part of: so that a payload which quotes another spool's file is not taken for
/// a chunk of this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::spool) struct SpoolId([u8; 8]);

impl SpoolId {
    pub(in crate::spool) fn fresh() -> Self {
        let mut bytes = [0; 8];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    pub(in crate::spool) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl std::str::FromStr for SpoolId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Debug for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a chunk says about the spool as a whole, as of the commit that wrote it. After a crash it tells
/// how much there must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Stamp {
    /// The number of the commit. They are dense.
    pub(in crate::spool) commit: u64,
    /// How many chunks were written by it, in total.
    pub(in crate::spool) chunks: u32,
    /// How many records waited in the spool after it.
    pub(in crate::spool) waiting: u64,
    /// How many records were parked in the spool after it.
    pub(in crate::spool) parked: u64,
    /// How many records of the chunk's lane waited after it.
    pub(in crate::spool) lane_waiting: u64,
    /// The lane is done with all numbers up to this one.
    pub(in crate::spool) done: u64,
}

impl Stamp {
    pub(super) fn read(head: &[u8; FIXED]) -> Self {
        Self {
            commit: field::COMMIT.u64(head),
            chunks: field::CHUNKS.u32(head),
            waiting: field::WAITING.u64(head),
            parked: field::PARKED.u64(head),
            lane_waiting: field::LANE_WAITING.u64(head),
            done: field::DONE.u64(head),
        }
    }
}

/// Completes a value. Its checksum holds from here on.
pub(super) fn stamp(value: &mut [u8], spool: SpoolId, stamp: &Stamp) {
    field::SPOOL.put(value, spool.0);
    field::COMMIT.put(value, stamp.commit.to_le_bytes());
    field::CHUNKS.put(value, stamp.chunks.to_le_bytes());
    field::WAITING.put(value, stamp.waiting.to_le_bytes());
    field::PARKED.put(value, stamp.parked.to_le_bytes());
    field::LANE_WAITING.put(value, stamp.lane_waiting.to_le_bytes());
    field::DONE.put(value, stamp.done.to_le_bytes());
    let (head, after) = value
        .split_first_chunk::<FIXED>()
        .expect("a value begins with its header");
    let sum = checksum(head, after);
    field::CHECKSUM.put(value, sum.to_le_bytes());
}

/// What the header of a chunk says besides its key, its size, its stamp and its checksum.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) kind: Kind,
    pub(super) lane: LaneId,
    pub(super) queue: &'a str,
    pub(super) written_ms: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u32,
}

impl Header<'_> {
    /// Begins a value with room for a body: the header, with zeros where only [`seal`](Self::seal)
    /// and [`stamp`] know.
    pub(super) fn begin(&self, room: usize) -> Vec<u8> {
        let queue = self.queue.as_bytes();
        assert!(
            queue.len() <= LONGEST_QUEUE,
            "a queue's name is measured where the queue is opened"
        );
        let mut value = Vec::with_capacity(FIXED + queue.len() + room);
        value.resize(FIXED, 0);
        value[..MAGIC.len()].copy_from_slice(&MAGIC);
        value[field::VERSION] = KNOWN;
        value[field::KIND] = self.kind as u8;
        field::HEADER.put(&mut value, ((FIXED + queue.len()) as u16).to_le_bytes());
        field::QUEUE.put(&mut value, (queue.len() as u16).to_le_bytes());
        field::LANE.put(&mut value, self.lane.to_bytes());
        field::WRITTEN.put(&mut value, self.written_ms.to_le_bytes());
        field::ACKNOWLEDGED.put(&mut value, self.acknowledged.to_le_bytes());
        field::REFUSED.put(&mut value, self.refused.to_le_bytes());
        value.extend_from_slice(queue);
        value
    }

    /// Ends a value that [`begin`](Self::begin) has begun and that now has its body.
    pub(super) fn seal(
        &self,
        mut value: Vec<u8>,
        first: u64,
        count: u32,
        part: u16,
        parts: u16,
    ) -> Chunk {
        let body = value.len() - FIXED - self.queue.len();
        field::PART.put(&mut value, part.to_le_bytes());
        field::PARTS.put(&mut value, parts.to_le_bytes());
        field::COUNT.put(&mut value, count.to_le_bytes());
        field::BODY.put(&mut value, (body as u32).to_le_bytes());
        field::FIRST.put(&mut value, first.to_le_bytes());
        Chunk {
            key: Key::new(self.kind, self.lane, first, part),
            value,
            records: count,
        }
    }

    /// A body of any length, as one chunk or in as many parts as it takes.
    ///
    /// Each leaves `overhead` bytes free, for what encryption will add.
    pub(super) fn parts(&self, number: u64, body: &[u8], overhead: usize) -> Vec<Chunk> {
        let room = LONGEST - FIXED - self.queue.len() - overhead;
        let parts = u16::try_from(body.len().div_ceil(room).max(1))
            .expect("a record's length fits 32 bits, so its parts fit 16");
        (0..parts)
            .map(|part| {
                let begin = usize::from(part) * room;
                let piece = &body[begin..body.len().min(begin + room)];
                let mut value = self.begin(piece.len() + overhead);
                value.extend_from_slice(piece);
                self.seal(value, number, u32::from(part == 0), part, parts)
            })
            .collect()
    }
}

/// How long the value is that begins with `head`, if it begins one: checked before anything is read.
pub(in crate::spool) fn whole_length(head: &[u8; FIXED]) -> Result<usize, Damaged> {
    if head[..MAGIC.len()] != MAGIC {
        return Err(Damaged("not a chunk"));
    }
    if head[field::VERSION] != KNOWN {
        return Err(Damaged("written by a newer seawall"));
    }
    let (begin, queue) = (
        field::HEADER.u16(head) as usize,
        field::QUEUE.u16(head) as usize,
    );
    let length = begin + field::BODY.u32(head) as usize;
    if begin < FIXED + queue || length > LONGEST {
        return Err(Damaged("its lengths do not add up"));
    }
    Ok(length)
}

/// The queue's name in a value that [`Header::begin`] has begun.
pub(super) fn queue(value: &[u8]) -> &str {
    std::str::from_utf8(name(value)).expect("the name was a str")
}

/// The bytes of the queue's name.
pub(super) fn name(value: &[u8]) -> &[u8] {
    &value[FIXED..FIXED + short(value, &field::QUEUE)]
}

/// Where the body begins.
pub(super) fn body(value: &[u8]) -> usize {
    short(value, &field::HEADER)
}

/// The key that the body is encrypted with, if it is.
pub(super) fn encrypted_with(head: &[u8; FIXED]) -> Option<u32> {
    let is_encrypted = field::FLAGS.u16(head) & ENCRYPTED != 0;
    is_encrypted.then(|| field::KEY.u32(head))
}

fn short(value: &[u8], field: &field::Field) -> usize {
    u16::from_le_bytes([value[field.0], value[field.0 + 1]]).into()
}

pub(super) fn set_flag(value: &mut [u8], flag: u16) {
    let flags = short(value, &field::FLAGS) as u16;
    field::FLAGS.put(value, (flags | flag).to_le_bytes());
}

/// Over all of the value but the checksum itself. The key needs none: all of it is in the header.
pub(super) fn checksum(head: &[u8; FIXED], after: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[..field::CHECKSUM.0]);
    sum.update(&head[field::CHECKSUM.0 + 4..]);
    sum.update(after);
    sum.finalize()
}

/// The longest value. The store keeps up to 16 of them on a page, and some 256 pages in memory
/// however small its cache is: this is what bounds the spool's memory. It also keeps a page below the
/// quarter of a segment at which the store would put it into a file of its own that it never syncs.
pub(in crate::spool) const LONGEST: usize = 32 * 1024;

/// The first byte is no text, so that a payload that quotes this file is not taken for a chunk.
pub(in crate::spool) const MAGIC: [u8; 8] = *b"\x89seawall";
const KNOWN: u8 = 1;

/// The flag of a chunk that counts only if everything of its commit is there.
pub(super) const ALL_OR_NOTHING: u16 = 1;

/// The flag of a chunk whose body is encrypted.
pub(super) const ENCRYPTED: u16 = 2;

/// The length of the header, the queue's name aside.
pub(in crate::spool) const FIXED: usize = 132;

/// Where the fields are.
pub(super) mod field {
    use super::FIXED;

    /// A field, by where it begins.
    pub(in super::super) struct Field(pub(in super::super) usize);

    pub(in super::super) const VERSION: usize = 8;
    pub(in super::super) const KIND: usize = 9;
    pub(in super::super) const FLAGS: Field = Field(10);
    pub(in super::super) const HEADER: Field = Field(12);
    pub(in super::super) const QUEUE: Field = Field(14);
    pub(in super::super) const PART: Field = Field(16);
    pub(in super::super) const PARTS: Field = Field(18);
    pub(in super::super) const COUNT: Field = Field(20);
    pub(in super::super) const BODY: Field = Field(24);
    pub(in super::super) const CHECKSUM: Field = Field(28);
    pub(in super::super) const LANE: Field = Field(32);
    pub(in super::super) const FIRST: Field = Field(48);
    pub(in super::super) const WRITTEN: Field = Field(56);
    pub(in super::super) const ACKNOWLEDGED: Field = Field(64);
    pub(in super::super) const SPOOL: Field = Field(72);
    pub(in super::super) const REFUSED: Field = Field(80);
    /// Of the key; 0 if the body is not encrypted.
    pub(in super::super) const KEY: Field = Field(84);
    pub(in super::super) const COMMIT: Field = Field(88);
    pub(in super::super) const WAITING: Field = Field(96);
    pub(in super::super) const PARKED: Field = Field(104);
    pub(in super::super) const LANE_WAITING: Field = Field(112);
    pub(in super::super) const DONE: Field = Field(120);
    pub(in super::super) const CHUNKS: Field = Field(128);

    impl Field {
        pub(in super::super) fn put<const N: usize>(&self, value: &mut [u8], bytes: [u8; N]) {
            value[self.0..self.0 + N].copy_from_slice(&bytes);
        }

        pub(in super::super) fn bytes<const N: usize>(&self, head: &[u8; FIXED]) -> [u8; N] {
            let mut bytes = [0; N];
            bytes.copy_from_slice(&head[self.0..self.0 + N]);
            bytes
        }

        pub(in super::super) fn u16(&self, head: &[u8; FIXED]) -> u16 {
            u16::from_le_bytes(self.bytes(head))
        }

        pub(in super::super) fn u32(&self, head: &[u8; FIXED]) -> u32 {
            u32::from_le_bytes(self.bytes(head))
        }

        pub(in super::super) fn u64(&self, head: &[u8; FIXED]) -> u64 {
            u64::from_le_bytes(self.bytes(head))
        }
    }
}

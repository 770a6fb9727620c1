//! A record that can be told from any other, whole from torn, and found in the bytes of a file.

use std::sync::Arc;

use bytes::Bytes;
use seawall::spool::{Spoolable, Undecodable};

/// One record. Its bytes follow from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) id: u64,
    /// Which of the queues it is for.
    queue: u64,
    length: usize,
    /// What was read back is what was written.
    pub(crate) intact: bool,
}

/// Which life of the worker a record is of: the records of one life and queue are one stream.
pub(crate) const fn life(id: u64) -> u64 {
    id / LIFE
}

/// The first record of a life.
pub(crate) const LIFE: u64 = 1_000_000;

const QUEUES: u64 = 2;
const NAMES: [&str; QUEUES as usize] = ["letters", "parcels"];
/// Begins each record, and nothing else.
pub(crate) const MAGIC: [u8; 8] = *b"\xf0NOTE\x0d\x0a\xf1";
const HEADER: usize = 20;

impl Note {
    pub(crate) fn new(id: u64, length: usize) -> Self {
        Self {
            id,
            queue: id % QUEUES,
            length: length.max(HEADER),
            intact: true,
        }
    }

    /// Mostly small, now and then one that is larger than a page, or than a chunk of the spool.
    pub(crate) fn usual(id: u64) -> Self {
        let roll = scramble(id);
        let length = match roll % 64 {
            0 => 70_000,
            1..4 => 5_000,
            _ => 20 + roll as usize / 64 % 300,
        };
        Self::new(id, length)
    }

    /// The stream whose order holds.
    pub(crate) fn stream(&self) -> (u64, u64) {
        (life(self.id), self.queue)
    }

    /// The records that begin in `bytes`.
    pub(crate) fn ids_in(bytes: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while let Some(at) = memchr(rest) {
            rest = &rest[at..];
            if let (true, Some(id)) = (rest.starts_with(&MAGIC), rest.get(8..16)) {
                found.push(u64::from_le_bytes(id.try_into().expect("eight bytes")));
            }
            rest = &rest[1..];
        }
        found
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == MAGIC[0])
}

impl Spoolable for Note {
    fn queue(&self) -> &str {
        NAMES[self.queue as usize % NAMES.len()]
    }

    fn size(&self) -> usize {
        self.length
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend(MAGIC);
        into.extend(self.id.to_le_bytes());
        into.extend((self.length as u32).to_le_bytes());
        fill(self.id, self.length - HEADER, into);
    }

    /// Whatever the bytes are it is a note, so that it is seen to come.
    fn decode(queue: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let id = bytes.get(8..16).map_or(0, |id| {
            u64::from_le_bytes(id.try_into().expect("eight bytes"))
        });
        let mut note = Self::new(id, bytes.len());
        let mut written = Vec::new();
        note.encode(&mut written);
        note.intact = written == bytes && note.queue() == &**queue;
        Ok(note)
    }
}

/// Appends so many bytes that are of this note alone. Never the magic: none is above 0x7f.
fn fill(id: u64, length: usize, into: &mut Vec<u8>) {
    let end = into.len() + length;
    into.reserve(length + 8);
    let mut state = scramble(id) | 1;
    while into.len() < end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        into.extend_from_slice(&(state & 0x7f7f_7f7f_7f7f_7f7f).to_le_bytes());
    }
    into.truncate(end);
}

fn scramble(id: u64) -> u64 {
    id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
}

//! A reader of spools made from `docs/spool-format.md` and nothing else: it says what is still whole in a
//! directory, and the spool has to find exactly that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use seawall::spool::LaneId;
use uuid::Uuid;

/// A sound chunk, and where it is in its file.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) kind: u8,
    pub(crate) lane: LaneId,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) part: u16,
    pub(crate) parts: u16,
    pub(crate) commit: u64,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// What is whole, and what is not.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    /// The records that wait or were delivered, by lane and number.
    pub(crate) records: BTreeSet<(LaneId, u64)>,
    pub(crate) parked: BTreeSet<(LaneId, u64)>,
}

pub(crate) const WAITING: u8 = 1;
const PARKED: u8 = 2;
const MAGIC: &[u8] = b"\x89seawall";
const FIXED: usize = 132;

/// All that is whole in the generations of a spool.
pub(crate) fn carve(dir: &Path) -> Whole {
    let mut groups = BTreeMap::<_, (BTreeSet<u16>, Chunk)>::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let numbered = name
            .strip_prefix("gen-")
            .and_then(|n| n.parse::<u64>().ok());
        if numbered.is_none() {
            continue;
        }
        let bytes = fs::read(path.join("db")).unwrap_or_default();
        for chunk in chunks(&bytes) {
            let key = (chunk.kind, chunk.lane, chunk.first, chunk.commit);
            let group = groups.entry(key);
            let (parts, _) = group.or_insert_with(|| (BTreeSet::new(), chunk.clone()));
            parts.insert(chunk.part);
        }
    }
    let mut whole = Whole::default();
    for ((kind, lane, first, _), (parts, chunk)) in groups {
        if parts.len() != usize::from(chunk.parts) {
            continue;
        }
        match kind {
            WAITING => {
                let numbers = first..first + u64::from(chunk.count.max(1));
                whole.records.extend(numbers.map(|number| (lane, number)));
            }
            PARKED => {
                whole.parked.insert((lane, first));
            }
            _ => {}
        }
    }
    whole
}

/// The sound chunks of a file, in the order in which they are there.
pub(crate) fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let mut found = Vec::new();
    let mut at = 0;
    for begin in memchr::memmem::find_iter(bytes, MAGIC) {
        if begin < at {
            continue;
        }
        if let Some(chunk) = chunk(bytes, begin) {
            at = chunk.end;
            found.push(chunk);
        }
    }
    found
}

fn chunk(bytes: &[u8], begin: usize) -> Option<Chunk> {
    let head = bytes.get(begin..begin + FIXED)?;
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let length = usize::from(u16_at(12)) + u32_at(24) as usize;
    let value = bytes.get(begin..begin + length)?;
    if length < FIXED {
        return None;
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&value[..28]);
    sum.update(&value[32..]);
    if sum.finalize() != u32_at(28) {
        return None;
    }
    let lane: [u8; 16] = head[32..48].try_into().unwrap();
    Some(Chunk {
        kind: head[9],
        lane: Uuid::from_bytes(lane).to_string().parse().unwrap(),
        first: u64_at(48),
        count: u32_at(20),
        part: u16_at(16),
        parts: u16_at(18),
        commit: u64_at(88),
        begin,
        end: begin + length,
    })
}

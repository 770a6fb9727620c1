//! How records stand on disk: in checksummed chunks that tell by themselves what they are.
//!
//! A [`Writer`] packs the records of one batch into chunks, [`Frame::parse`] reads one chunk back, and
//! a [`Gather`] puts the parts of a long record together again. `docs/spool-format.md` draws the format
//! byte by byte. No file and no clock is touched here.
//!
//! The queues make chunks; the [`Stamp`] is put on each by the one thread that commits them.

mod crypt;
mod gather;
mod header;
mod key;
mod mark;
mod parked;
#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;

use self::header::{Header, checksum, field};
pub(super) use self::{
    gather::{Gather, Held, Whole},
    header::{FIXED, LONGEST, MAGIC, SpoolId, Stamp, whole_length},
    key::{Key, Kind},
    mark::{Void, Voids, gone, mark},
    writer::Writer,
};
pub use self::{key::LaneId, parked::Parked};
use super::crypt::OVERHEAD;

/// The name of a queue is part of every chunk, and has to leave room for records.
pub(super) const LONGEST_QUEUE: usize = 1024;

/// One value for the store, and its key.
pub(super) struct Chunk {
    pub(super) key: Key,
    /// Not to be read back before it is stamped.
    pub(super) value: Vec<u8>,
    /// How many records begin in it: none in the later parts of a long one.
    pub(super) records: u32,
}

impl Chunk {
    /// What it costs on disk, the store's own overhead aside.
    pub(super) fn bytes(&self) -> u64 {
        (Key::LEN + self.value.len()) as u64
    }

    /// The queue its records belong to.
    pub(super) fn queue(&self) -> &str {
        header::queue(&self.value)
    }

    /// Says which spool it is part of, what stands behind it, and that it is whole.
    pub(super) fn stamp(&mut self, spool: SpoolId, stamp: &Stamp) {
        header::stamp(&mut self.value, spool, stamp);
    }

    /// It counts only if everything of its commit is there.
    pub(super) fn all_or_nothing(mut self) -> Self {
        header::set_flag(&mut self.value, header::ALL_OR_NOTHING);
        self
    }
}

/// A value that is not, or not any more, what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) &'static str);

/// One chunk, read back and found sound.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) key: Key,
    pub(super) count: u32,
    pub(super) parts: u16,
    pub(super) written_ms: u64,
    /// The last number of the lane that Redis had acknowledged when this was written.
    pub(super) acknowledged: u64,
    /// How often Redis had refused its records before.
    pub(super) refused: u32,
    pub(super) spool: SpoolId,
    pub(super) stamp: Stamp,
    pub(super) all_or_nothing: bool,
    pub(super) bytes: u64,
    /// The key of the body, if that is still encrypted.
    encrypted_with: Option<u32>,
    /// What encryption has added to the body.
    overhead: usize,
    /// With the queue's name.
    head: Bytes,
    body: Bytes,
}

impl Frame {
    /// Checks every bit of `value`, and that it is the one that was written under `key`.
    pub(super) fn parse(key: Key, value: &Bytes) -> Result<Self, Damaged> {
        let frame = Self::find(value)?;
        if frame.key != key {
            return Err(Damaged("not the chunk that was written under its key"));
        }
        Ok(frame)
    }

    /// Checks every bit of `value`, whose key its header tells.
    pub(super) fn find(value: &Bytes) -> Result<Self, Damaged> {
        let (head, after) = value
            .split_first_chunk::<FIXED>()
            .ok_or(Damaged("shorter than a chunk's header"))?;
        if whole_length(head)? != value.len() {
            return Err(Damaged("cut off, or longer than it was written"));
        }
        if checksum(head, after) != field::CHECKSUM.u32(head) {
            return Err(Damaged("its checksum does not match"));
        }
        let flags = field::FLAGS.u16(head);
        if flags & !(header::ALL_OR_NOTHING | header::ENCRYPTED) != 0 {
            return Err(Damaged("written by a newer seawall"));
        }
        let kind = Kind::from_byte(head[field::KIND]).ok_or(Damaged("of an unknown kind"))?;
        let (part, parts) = (field::PART.u16(head), field::PARTS.u16(head));
        let count = field::COUNT.u32(head);
        if !kind.adds_up(part, parts, count) {
            return Err(Damaged("its parts do not add up"));
        }
        let encrypted_with = header::encrypted_with(head);
        if encrypted_with.is_some() && matches!(kind, Kind::Mark | Kind::Gone) {
            return Err(Damaged("encrypted, and of a kind that never is"));
        }
        let begin = header::body(value);
        if std::str::from_utf8(header::name(value)).is_err() {
            return Err(Damaged("its queue's name is not UTF-8"));
        }
        let lane = LaneId::from_bytes(field::LANE.bytes(head));
        Ok(Self {
            key: Key::new(kind, lane, field::FIRST.u64(head), part),
            count,
            parts,
            written_ms: field::WRITTEN.u64(head),
            acknowledged: field::ACKNOWLEDGED.u64(head),
            refused: field::REFUSED.u32(head),
            spool: SpoolId::from_bytes(field::SPOOL.bytes(head)),
            stamp: Stamp::read(head),
            all_or_nothing: flags & header::ALL_OR_NOTHING != 0,
            bytes: (Key::LEN + value.len()) as u64,
            encrypted_with,
            overhead: encrypted_with.map_or(0, |_| OVERHEAD),
            head: value.slice(..begin),
            body: value.slice(begin..),
        })
    }

    /// The queue its records belong to.
    pub(super) fn queue(&self) -> &str {
        std::str::from_utf8(header::name(&self.head)).expect("the name was checked by find")
    }

    /// The number of its last record; of a later part of a long one, that record's.
    pub(super) fn last(&self) -> u64 {
        let more = u64::from(self.count.max(1)) - 1;
        self.key.number().saturating_add(more)
    }

    /// The key of the body, if that is still encrypted.
    pub(super) fn encrypted_with(&self) -> Option<u32> {
        self.encrypted_with
    }
}

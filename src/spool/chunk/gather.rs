//! Puts together what was written in parts.

use bytes::{Buf, Bytes, BytesMut};

use super::{Damaged, Frame, Key, LaneId};

/// Records that wait: those of one chunk, or the one that took several.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spool) struct Held {
    pub(in crate::spool) lane: LaneId,
    /// The number of the first; the others follow without a gap.
    pub(in crate::spool) first: u64,
    /// Slices of one buffer.
    pub(in crate::spool) records: Vec<Bytes>,
    pub(in crate::spool) queue: String,
    /// When they were written to disk, in milliseconds since 1970.
    pub(in crate::spool) written_ms: u64,
    /// How often Redis had refused them before.
    pub(in crate::spool) refused: u32,
    /// What they cost on disk.
    pub(in crate::spool) bytes: u64,
}

impl Held {
    pub(in crate::spool) fn of(whole: Whole) -> Result<Self, Damaged> {
        let records = split(whole.body, whole.head.count)?;
        Ok(Self {
            records,
            first: whole.head.key.number(),
            queue: whole.head.queue().to_owned(),
            written_ms: whole.head.written_ms,
            refused: whole.head.refused,
            lane: whole.head.key.lane(),
            bytes: whole.bytes,
        })
    }

    /// The number after the last.
    pub(in crate::spool) fn end(&self) -> u64 {
        self.first.saturating_add(self.records.len() as u64)
    }
}

/// A body with all its parts.
#[derive(Debug)]
pub(in crate::spool) struct Whole {
    /// The first part.
    pub(super) head: Frame,
    pub(super) body: Bytes,
    bytes: u64,
}

/// Takes chunks in the order of their keys and gives whole bodies.
#[derive(Debug, Default)]
pub(in crate::spool) struct Gather(Vec<Frame>);

impl Gather {
    /// The next chunk; `None` while parts of it are still to come.
    pub(in crate::spool) fn push(&mut self, frame: Frame) -> Result<Option<Whole>, Damaged> {
        let follows = match self.0.first() {
            None => frame.key.part() == 0,
            Some(head) => {
                let next = Key::new(
                    frame.key.kind(),
                    head.key.lane(),
                    head.key.number(),
                    self.0.len() as u16,
                );
                frame.key == next && frame.parts == head.parts
            }
        };
        if !follows {
            return Err(MISSING);
        }
        let complete = frame.key.part() + 1 == frame.parts;
        self.0.push(frame);
        Ok(complete.then(|| whole(std::mem::take(&mut self.0))))
    }

    /// Nothing is half here.
    pub(in crate::spool) fn finish(self) -> Result<(), Damaged> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(MISSING)
        }
    }
}

const MISSING: Damaged = Damaged("a part of a long record is missing");

fn whole(mut parts: Vec<Frame>) -> Whole {
    let bytes = parts.iter().map(|part| part.bytes).sum();
    let body = if let [only] = &*parts {
        only.body.clone()
    } else {
        let mut body = BytesMut::with_capacity(parts.iter().map(|part| part.body.len()).sum());
        for part in &parts {
            body.extend_from_slice(&part.body);
        }
        body.freeze()
    };
    let head = parts.swap_remove(0);
    Whole { head, body, bytes }
}

fn split(mut body: Bytes, count: u32) -> Result<Vec<Bytes>, Damaged> {
    const TORN: Damaged = Damaged("its records do not add up");
    // Each takes four bytes at least, so that no header can make us ask for more than there is.
    let mut records = Vec::with_capacity((count as usize).min(body.len() / 4));
    while body.has_remaining() {
        let length = body.try_get_u32_le().map_err(|_| TORN)? as usize;
        if length > body.len() {
            return Err(TORN);
        }
        records.push(body.split_to(length));
    }
    if records.len() == count as usize {
        Ok(records)
    } else {
        Err(TORN)
    }
}

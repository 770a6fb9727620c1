//! Chunks that hold no records: what is said about other chunks.

use bytes::Buf;

use super::{Chunk, Frame, Header, Key, Kind, LaneId};

/// Says how far a lane is done with (in its stamp), and which commits before it do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Mark {
    /// From this commit up to the mark's own, that one not included, nothing counts but the records that
    /// were written; 0 if all do.
    pub(in crate::spool) void_from: u64,
    /// Those records do not count either: their callers were told that they failed.
    pub(in crate::spool) withdrawn: bool,
}

impl Mark {
    /// Its key has the number of the commit, so that no mark ever replaces another.
    pub(in crate::spool) fn encode(self, lane: LaneId, queue: &str, commit: u64) -> Chunk {
        let header = header(Kind::Mark, lane, queue);
        let mut value = header.begin(9);
        value.extend_from_slice(&self.void_from.to_le_bytes());
        value.push(u8::from(self.withdrawn));
        header.seal(value, commit, 0, 0, 1)
    }

    /// `None` if `frame` is no mark.
    pub(in crate::spool) fn of(frame: &Frame) -> Option<Self> {
        if frame.key.kind() != Kind::Mark {
            return None;
        }
        let mut body = frame.body.clone();
        Some(Self {
            void_from: body.try_get_u64_le().unwrap_or(0),
            withdrawn: body.try_get_u8().is_ok_and(|byte| byte != 0),
        })
    }
}

/// Says that a chunk, with all its parts, is gone, although its lane is not done with it: a parked record
/// that was sent again or deleted.
pub(in crate::spool) fn gone(chunk: Key) -> Chunk {
    let header = header(Kind::Gone, chunk.lane(), "");
    header.seal(header.begin(0), chunk.number(), 0, 0, 1)
}

fn header(kind: Kind, lane: LaneId, queue: &str) -> Header<'_> {
    Header {
        kind,
        lane,
        queue,
        written_ms: 0,
        acknowledged: 0,
        refused: 0,
    }
}

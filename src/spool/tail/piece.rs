//! How a tail's records are written: each with the lane and the number under which Redis knows it, in a lane
//! on disk that is the tail's own.
//!
//! The lane that they came from may be done with on disk, and a lane that is done with takes no lower numbers
//! any more.

use bytes::{Buf, Bytes};

use crate::spool::{LaneId, chunk::LONGEST_QUEUE};

/// One record of a tail.
pub(in crate::spool) struct Piece {
    pub(in crate::spool) lane: LaneId,
    pub(in crate::spool) number: u64,
    pub(in crate::spool) record: Bytes,
}

impl Piece {
    /// Begins to write a record.
    pub(in crate::spool) fn begin(lane: LaneId, number: u64, into: &mut Vec<u8>) {
        into.extend_from_slice(&lane.to_bytes());
        into.extend_from_slice(&number.to_le_bytes());
    }

    /// Reads one; `None` if it is too short to be one.
    pub(in crate::spool) fn read(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEAD {
            return None;
        }
        let mut lane = [0; 16];
        bytes.copy_to_slice(&mut lane);
        let number = bytes.get_u64_le();
        Some(Self {
            lane: LaneId::from_bytes(lane),
            number,
            record: bytes,
        })
    }
}

const HEAD: usize = 16 + 8;

/// The name under which the tail of `queue` is on disk; `None` if that would be too long.
pub(in crate::spool) fn tail_of(queue: &str) -> Option<String> {
    let name = format!("{MARK}{queue}");
    (name.len() <= LONGEST_QUEUE).then_some(name)
}

/// The queue whose tail is on disk under this name, if it is one.
pub(in crate::spool) fn queue_of(name: &str) -> Option<&str> {
    name.strip_prefix(MARK)
}

/// No queue of an application begins like this.
const MARK: &str = "\0tail of ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_lane_and_its_number() {
        let lane = LaneId::fresh();
        let mut bytes = Vec::new();
        Piece::begin(lane, 7, &mut bytes);
        bytes.extend_from_slice(b"hello");
        let piece = Piece::read(bytes.into()).unwrap();
        assert_eq!(
            (piece.lane, piece.number, &piece.record[..]),
            (lane, 7, &b"hello"[..])
        );
        assert!(Piece::read(Bytes::from_static(b"short")).is_none());
    }

    #[test]
    fn a_tail_is_told_from_a_queue_by_its_name() {
        assert_eq!(queue_of(&tail_of("emails").unwrap()), Some("emails"));
        assert_eq!(queue_of("tail of emails"), None);
        assert_eq!(tail_of(&"q".repeat(LONGEST_QUEUE)), None);
    }
}

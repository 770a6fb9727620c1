//! A record that Redis refused, kept with the reason.

use bytes::{Buf, Bytes};

use super::{Chunk, Damaged, Header, Kind, LaneId, gather::Whole};

/// A record that Redis will not take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Parked {
    pub(in crate::spool) lane: LaneId,
    pub(in crate::spool) number: u64,
    pub(in crate::spool) queue: String,
    /// What Redis said; no payload.
    pub(in crate::spool) reason: String,
    /// When it was parked, in milliseconds since 1970.
    pub(in crate::spool) parked_ms: u64,
    pub(in crate::spool) attempts: u32,
    pub(in crate::spool) record: Bytes,
}

impl Parked {
    pub(in crate::spool) fn encode(&self) -> Vec<Chunk> {
        let reason = u32::try_from(self.reason.len()).expect("a reason is some words long");
        let body = [
            &self.attempts.to_le_bytes(),
            &reason.to_le_bytes(),
            self.reason.as_bytes(),
            &self.record,
        ]
        .concat();
        let header = Header {
            kind: Kind::Parked,
            lane: self.lane,
            queue: &self.queue,
            written_ms: self.parked_ms,
        };
        header.parts(self.number, &body)
    }

    pub(in crate::spool) fn of(whole: Whole) -> Result<Self, Damaged> {
        const TORN: Damaged = Damaged("a parked record that does not add up");
        let mut body = whole.body;
        let attempts = body.try_get_u32_le().map_err(|_| TORN)?;
        let reason = body.try_get_u32_le().map_err(|_| TORN)? as usize;
        if reason > body.len() {
            return Err(TORN);
        }
        let reason = String::from_utf8(body.split_to(reason).into()).map_err(|_| TORN)?;
        Ok(Self {
            lane: whole.head.key.lane(),
            number: whole.head.key.number(),
            queue: whole.head.queue().to_owned(),
            reason,
            parked_ms: whole.head.written_ms,
            attempts,
            record: body,
        })
    }
}

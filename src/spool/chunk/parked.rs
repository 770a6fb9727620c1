//! A record that Redis refused, kept with the reason.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};

use super::{Chunk, Damaged, Header, Kind, LaneId, gather::Whole};

/// A record that Redis will never take as it is, kept on disk with the reason.
#[derive(Clone, PartialEq, Eq)]
pub struct Parked {
    pub(in crate::spool) lane: LaneId,
    pub(in crate::spool) number: u64,
    pub(in crate::spool) queue: String,
    pub(in crate::spool) reason: String,
    /// In milliseconds since 1970.
    pub(in crate::spool) parked_ms: u64,
    pub(in crate::spool) attempts: u32,
    pub(in crate::spool) record: Bytes,
    /// What encryption adds, or has added, to each of its chunks.
    pub(in crate::spool) overhead: usize,
}

impl Parked {
    /// The lane it was in.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Its number in the lane.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Why Redis refuses it. Holds no key and no payload.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When it was parked.
    pub fn parked_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.parked_ms)
    }

    /// How often it was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The record's bytes, for [`Spoolable::decode`](crate::spool::Spoolable::decode).
    pub fn record(&self) -> &Bytes {
        &self.record
    }
}

/// Shows everything but the record.
impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked")
            .field("lane", &self.lane)
            .field("number", &self.number)
            .field("queue", &self.queue)
            .field("reason", &self.reason)
            .field("parked_at", &self.parked_at())
            .field("attempts", &self.attempts)
            .field("bytes", &self.record.len())
            .finish()
    }
}

impl Parked {
    /// What it costs on disk.
    pub(in crate::spool) fn bytes(&self) -> u64 {
        let chunks = self.encode();
        let bytes: u64 = chunks.iter().map(Chunk::bytes).sum();
        bytes + (chunks.len() * self.overhead) as u64
    }

    /// As chunks, each of which has room for what encryption will add.
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
            acknowledged: 0,
            refused: 0,
        };
        header.parts(self.number, &body, self.overhead)
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
            overhead: whole.head.overhead,
        })
    }
}

//! The names of things on disk: [`LaneId`] and [`Key`].

use std::{fmt, ops::RangeInclusive, str::FromStr};

use rand::{TryRngCore as _, rngs::OsRng};
use uuid::{Builder, Uuid};

use super::Damaged;

/// Which lane a record belongs to: one process's stream of records to one queue.
///
/// A UUIDv7, so that ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(Uuid);

impl LaneId {
    /// An id that no lane has had.
    #[must_use]
    pub fn fresh() -> Self {
        let mut bytes = Uuid::now_v7().into_bytes();
        // The rest is a time and a counter. Processes that were forked off one that had made an id go on with
        // the same generator, and must not make the same one.
        let mut random = [0; 4];
        if OsRng.try_fill_bytes(&mut random).is_ok() {
            bytes[12..].copy_from_slice(&random);
        }
        Self(Uuid::from_bytes(bytes))
    }

    /// A fresh one that sorts behind `others`, whatever the clock says: an earlier run's may have been ahead.
    pub(in crate::spool) fn fresh_after(others: impl IntoIterator<Item = Self>) -> Self {
        let fresh = Self::fresh();
        match others.into_iter().max() {
            Some(last) if fresh <= last => {
                let ms = (last.0.as_u128() >> 80) as u64 + 1;
                let random = fresh.to_bytes().last_chunk().copied().unwrap_or_default();
                Self(Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
            }
            _ => fresh,
        }
    }

    /// The lane of what belongs to no lane.
    pub(in crate::spool) const NONE: Self = Self(Uuid::nil());

    pub(in crate::spool) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    pub(in crate::spool) const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl FromStr for LaneId {
    type Err = uuid::Error;

    /// Reads back what [`Display`](fmt::Display) has written.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What is kept under a key: the first byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Kind {
    /// Records that wait.
    Waiting = 1,
    /// A record that Redis refused.
    Parked = 2,
    /// No record: see [`mark`](super::mark).
    Mark = 3,
    /// No record: the parked one with this number is gone.
    Gone = 4,
}

impl Kind {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Waiting),
            2 => Some(Self::Parked),
            3 => Some(Self::Mark),
            4 => Some(Self::Gone),
            _ => None,
        }
    }

    /// Whether a chunk may be this part of so many, with so many records beginning in it.
    pub(super) const fn adds_up(self, part: u16, parts: u16, count: u32) -> bool {
        let records = match (self, part, parts) {
            (Self::Mark | Self::Gone, ..) => count == 0 && parts == 1,
            (_, 0, 1) => count > 0,
            (_, 0, _) => count == 1,
            _ => count == 0,
        };
        part < parts && records
    }
}

/// Kind, lane, number of the first record, part: big-endian, so that keys sort in that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::spool) struct Key([u8; Self::LEN]);

impl Key {
    pub(in crate::spool) const LEN: usize = 27;

    pub(in crate::spool) fn new(kind: Kind, lane: LaneId, number: u64, part: u16) -> Self {
        let mut key = [0; Self::LEN];
        key[0] = kind as u8;
        key[1..17].copy_from_slice(&lane.to_bytes());
        key[17..25].copy_from_slice(&number.to_be_bytes());
        key[25..].copy_from_slice(&part.to_be_bytes());
        Self(key)
    }

    /// The key of a store's entry.
    pub(in crate::spool) fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let key: [u8; Self::LEN] = bytes.try_into().map_err(|_| Damaged("not a key"))?;
        Kind::from_byte(key[0]).ok_or(Damaged("a key of an unknown kind"))?;
        Ok(Self(key))
    }

    /// The keys of a lane's chunks, all parts included, that begin with `first` to `last`.
    pub(in crate::spool) fn range(
        kind: Kind,
        lane: LaneId,
        first: u64,
        last: u64,
    ) -> RangeInclusive<Self> {
        Self::new(kind, lane, first, 0)..=Self::new(kind, lane, last, u16::MAX)
    }

    pub(in crate::spool) fn kind(&self) -> Kind {
        Kind::from_byte(self.0[0]).expect("a key is made with a kind")
    }

    pub(in crate::spool) fn lane(&self) -> LaneId {
        let mut lane = [0; 16];
        lane.copy_from_slice(&self.0[1..17]);
        LaneId::from_bytes(lane)
    }

    /// The number of the first record.
    pub(in crate::spool) fn number(&self) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.0[17..25]);
        u64::from_be_bytes(number)
    }

    /// The last key of all whose number is no larger.
    pub(in crate::spool) fn with_number(self, number: u64) -> Self {
        Self::new(self.kind(), self.lane(), number, u16::MAX)
    }

    /// The key of the first part.
    pub(in crate::spool) fn first_part(self) -> Self {
        Self::new(self.kind(), self.lane(), self.number(), 0)
    }

    pub(in crate::spool) fn part(&self) -> u16 {
        u16::from_be_bytes([self.0[25], self.0[26]])
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, lane, number, part) = (self.0[0], self.lane(), self.number(), self.part());
        write!(f, "{kind}/{lane}/{number}/{part}")
    }
}

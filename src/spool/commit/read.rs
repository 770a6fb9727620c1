//! What is read from the store: the records of a lane, the parked ones, and what an earlier run left.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, RangeInclusive},
};

use super::{Page, Wanted, ledger::Ledger};
use crate::spool::{
    chunk::{Damaged, Frame, Gather, Held, Kind, LaneId, Parked, Whole},
    crypt::Ring,
    error::StoreError,
    store::Store,
};

/// What an earlier run left on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Left {
    /// The lanes with records, the oldest first.
    pub(in crate::spool) lanes: Vec<LeftLane>,
    /// How far each lane that was heard of is done with.
    pub(in crate::spool) done: BTreeMap<LaneId, u64>,
    /// How many records are parked.
    pub(in crate::spool) parked: u64,
    /// What the parked ones cost on disk.
    pub(in crate::spool) parked_bytes: u64,
}

/// One lane that an earlier run left.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spool) struct LeftLane {
    pub(in crate::spool) lane: LaneId,
    pub(in crate::spool) queue: String,
    /// The numbers of its first and its last record.
    pub(in crate::spool) first: u64,
    pub(in crate::spool) last: u64,
    /// How many there are: fewer than from `first` to `last` if some are missing.
    pub(in crate::spool) records: u64,
    /// The last number that Redis had acknowledged when the last of them was written.
    pub(in crate::spool) acknowledged: u64,
    /// How often Redis had refused them before.
    pub(in crate::spool) refused: u32,
    /// What they cost on disk.
    pub(in crate::spool) bytes: u64,
    /// When the oldest of them was written, in milliseconds since 1970.
    pub(in crate::spool) oldest_ms: u64,
}

/// The records of a lane; a damaged chunk ends them, or is the error if it is the first.
pub(super) fn read(
    store: &impl Store,
    ring: &Ring,
    wanted: Wanted,
) -> Result<Vec<Held>, StoreError> {
    let mut held: Vec<Held> = Vec::new();
    let (mut records, mut bytes) = (0, 0);
    let all = wanted.from..=u64::MAX;
    let result = whole(store, ring, Kind::Waiting, wanted.lane, all, |whole| {
        let next = Held::of(whole)?;
        records += next.records.len();
        bytes += next.bytes;
        held.push(next);
        Ok(records < wanted.max_records && bytes < wanted.max_bytes as u64)
    });
    match result {
        Err(error) if held.is_empty() => Err(error),
        _ => Ok(held),
    }
}

/// The parked records; a damaged one is an error.
pub(super) fn parked(
    store: &impl Store,
    ring: &Ring,
    ledger: &Ledger,
    page: Page,
) -> Result<Vec<Parked>, StoreError> {
    let mut found = Vec::new();
    let mut room = page.max_bytes;
    for id in ledger.parked_after(page.after).take(page.max_records) {
        let number = id.number()..=id.number();
        whole(store, ring, Kind::Parked, id.lane(), number, |whole| {
            let parked = Parked::of(whole)?;
            room = room.saturating_sub(parked.record.len());
            found.push(parked);
            Ok(false)
        })?;
        if room == 0 {
            break;
        }
    }
    Ok(found)
}

/// Shows the whole bodies in clear that have some of these numbers, until `visit` says that it has enough.
fn whole(
    store: &impl Store,
    ring: &Ring,
    kind: Kind,
    lane: LaneId,
    numbers: RangeInclusive<u64>,
    mut visit: impl FnMut(Whole) -> Result<bool, Damaged>,
) -> Result<(), StoreError> {
    let mut gather = Gather::default();
    let mut found = Ok(true);
    store.scan(kind, lane, *numbers.start(), &mut |key, value| {
        if key.number() > *numbers.end() {
            return ControlFlow::Break(());
        }
        found = Frame::parse(key, &value).and_then(|frame| {
            // What is done with may be of a key that is not there any more.
            if frame.last() < *numbers.start() {
                return Ok(true);
            }
            let body = gather.push(ring.decrypt(frame)?)?;
            body.map_or(Ok(true), &mut visit)
        });
        match found {
            Ok(true) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    if found? {
        gather.finish()?;
    }
    Ok(())
}

//! What is read from the store: the records of a lane, the parked ones, and what an earlier run left.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Page, Wanted};
use crate::spool::{
    chunk::{Damaged, Frame, Gather, Held, Key, Kind, LaneId, Parked, Whole},
    error::StoreError,
    parking::ParkedId,
    store::Store,
};

/// What an earlier run left on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Left {
    /// The lanes with records, the oldest first.
    pub(in crate::spool) lanes: Vec<LeftLane>,
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
    /// What they cost on disk.
    pub(in crate::spool) bytes: u64,
    /// When the oldest of them was written, in milliseconds since 1970.
    pub(in crate::spool) oldest_ms: u64,
}

/// Checks every chunk, and counts what is in it.
pub(super) fn left(store: &impl Store) -> Result<Left, StoreError> {
    let mut found = Left::default();
    each(store, Kind::Waiting, |frame| {
        let same = found
            .lanes
            .last_mut()
            .filter(|last| last.lane == frame.key.lane());
        let first = frame.key.number();
        let last = first.saturating_add(u64::from(frame.count.max(1)) - 1);
        match same {
            Some(lane) => {
                lane.last = lane.last.max(last);
                lane.records += u64::from(frame.count);
                lane.bytes += frame.bytes;
                lane.acknowledged = lane.acknowledged.max(frame.acknowledged);
                lane.oldest_ms = lane.oldest_ms.min(frame.written_ms);
            }
            None => found.lanes.push(LeftLane {
                lane: frame.key.lane(),
                queue: frame.queue().to_owned(),
                first,
                last,
                records: frame.count.into(),
                acknowledged: frame.acknowledged,
                bytes: frame.bytes,
                oldest_ms: frame.written_ms,
            }),
        }
    })?;
    each(store, Kind::Parked, |frame| {
        found.parked += u64::from(frame.count);
        found.parked_bytes += frame.bytes;
    })?;
    Ok(found)
}

/// The records of a lane; a damaged chunk ends them, or is the error if it is the first.
pub(super) fn read(store: &impl Store, wanted: Wanted) -> Result<Vec<Held>, StoreError> {
    let key = |number, part| Key::new(Kind::Waiting, wanted.lane, number, part);
    // The chunk that has `from` is the last that begins no later, if it reaches that far.
    let begins = store
        .last(key(0, 0), key(wanted.from, u16::MAX))?
        .map_or(wanted.from, |at| at.number());
    let mut held: Vec<Held> = Vec::new();
    let (mut records, mut bytes) = (0, 0);
    let result = whole(store, key(begins, 0), key(u64::MAX, u16::MAX), |whole| {
        let next = Held::of(whole)?;
        if next.end() > wanted.from {
            records += next.records.len();
            bytes += next.bytes;
            held.push(next);
        }
        let enough = records >= wanted.max_records || bytes >= wanted.max_bytes as u64;
        Ok(!enough || held.is_empty())
    });
    match result {
        Err(error) if held.is_empty() => Err(error),
        _ => Ok(held),
    }
}

/// The parked records; a damaged one is an error.
pub(super) fn parked(store: &impl Store, page: Page) -> Result<Vec<Parked>, StoreError> {
    let mut parked: Vec<Parked> = Vec::new();
    if page.max_records == 0 {
        return Ok(parked);
    }
    let from = page.after.map_or(Key::first_of(Kind::Parked), |after| {
        Key::new(Kind::Parked, after.lane(), after.number(), u16::MAX)
    });
    let mut room = page.max_bytes;
    whole(store, from, Key::last_of(Kind::Parked), |whole| {
        let next = Parked::of(whole)?;
        room = room.saturating_sub(next.record.len());
        parked.push(next);
        Ok(parked.len() < page.max_records && room > 0)
    })?;
    Ok(parked)
}

/// The keys of all parts of parked records.
pub(super) fn parked_keys(store: &impl Store, which: &[ParkedId]) -> Result<Vec<Key>, StoreError> {
    let mut keys = Vec::with_capacity(which.len());
    for id in which {
        let key = |part| Key::new(Kind::Parked, id.lane(), id.number(), part);
        store.scan(key(0), key(u16::MAX), &mut |key, _| {
            keys.push(key);
            ControlFlow::Continue(())
        })?;
    }
    Ok(keys)
}

/// Shows whole bodies until `visit` says that it has enough.
fn whole(
    store: &impl Store,
    from: Key,
    to: Key,
    mut visit: impl FnMut(Whole) -> Result<bool, Damaged>,
) -> Result<(), StoreError> {
    let mut gather = Gather::default();
    let mut found = Ok(true);
    store.scan(from, to, &mut |key, value| {
        found = Frame::parse(key, &value)
            .and_then(|frame| gather.push(frame))
            .and_then(|body| body.map_or(Ok(true), &mut visit));
        go_on(&found)
    })?;
    if found? {
        gather.finish()?;
    }
    Ok(())
}

/// Shows all chunks of a kind.
fn each(store: &impl Store, kind: Kind, mut visit: impl FnMut(Frame)) -> Result<(), StoreError> {
    let mut found = Ok(true);
    let (from, to) = (Key::first_of(kind), Key::last_of(kind));
    store.scan(from, to, &mut |key, value: Bytes| {
        found = Frame::parse(key, &value).map(|frame| {
            visit(frame);
            true
        });
        go_on(&found)
    })?;
    found?;
    Ok(())
}

fn go_on(found: &Result<bool, Damaged>) -> ControlFlow<()> {
    match found {
        Ok(true) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

//! Where chunks are kept.
//!
//! A [`Store`] does what it is told in three steps, apply, flush and sync, because what is certain
//! after each of them is what the spool's promise hangs on; the order is the business of
//! [`commit`](super::commit). The real one is [`Generations`]: it appends to a database of sled, and reads
//! what earlier ones have left from their raw files.
//!
//! sled 0.34.7 is trusted with one thing only: that what it has flushed, and what we have then synced, is
//! in its file. Its own recovery is never used, for it takes damage for an end and overwrites what comes after.

mod active;
mod carve;
mod contents;
mod generations;
#[cfg(test)]
pub(super) mod memory;
mod merge;
mod reclaim;
mod sealed;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use bytes::Bytes;

pub(super) use self::{contents::Contents, generations::Opener, reclaim::Reclaim};
use super::{
    audit::Audit,
    chunk::{Chunk, Key, Kind, LaneId, SpoolId, Voids},
    crypt::KeyId,
    dir::{Clean, Space},
    error::{OpenError, StoreError},
};

/// An ordered map on disk, used by one thread. Nothing is ever removed from it by its key: what is done
/// with goes by generations.
pub(super) trait Store {
    /// Makes ready for writing. Until then nothing on disk is changed. What is void is not shown any more.
    fn begin(&mut self, _: &Voids) -> Result<(), OpenError> {
        Ok(())
    }

    /// Keeps all of the chunks.
    fn apply(&mut self, chunks: Vec<Chunk>) -> Result<(), StoreError>;

    /// What was applied will survive the process.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// What was flushed will survive the machine.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Shows the chunks of a lane, in the order of their numbers, until told to stop. Begins with the
    /// chunk that has number `from`, or with some before it.
    fn scan(
        &self,
        kind: Kind,
        lane: LaneId,
        from: u64,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// The size of its files.
    fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// How much room there is for more; `None` if there is no telling.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Begins a new generation if the newest has grown enough. Says whether it has.
    fn roll_over(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// What would give room back, if anything.
    fn reclaimable(&self, _: &dyn Live) -> Option<Reclaim> {
        None
    }

    /// Does what [`reclaimable`](Self::reclaimable) has said. What was to be said first is durable.
    fn reclaim(&mut self, _: &Reclaim, _: &dyn Live) -> Result<(), StoreError> {
        Ok(())
    }

    /// Something that wakes the store up if it has missed its own call, to be done from another thread.
    fn poke(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        None
    }

    /// Something is missing: keeps what was found damaged for somebody to look at. Says how many pieces.
    fn keep_damaged(&mut self) -> u64 {
        0
    }

    /// The keys that something of it is encrypted with.
    fn keys(&self) -> BTreeSet<KeyId> {
        BTreeSet::new()
    }

    /// Whether any generation has something of this lane.
    fn has(&self, lane: LaneId) -> bool;

    /// Gives up room that was set aside for a full disk.
    fn release_ballast(&self) {}

    /// Sets it aside again. Says whether it is there.
    fn take_ballast(&self) -> bool {
        true
    }

    /// Closes in order: nothing was written since what `clean` says.
    fn close(self, clean: &Clean) -> Result<(), StoreError>
    where
        Self: Sized;
}

/// A chunk as it is kept.
type Entry = (Key, Bytes);

/// Where a look at a lane begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    /// With the last chunk that begins no later than this number, if there is one.
    At(u64),
    /// Behind this chunk.
    After(Key),
}

/// Which chunks are still wanted.
pub(super) trait Live {
    /// The last number that the lane is done with.
    fn done(&self, lane: LaneId) -> u64;

    /// Whether the record is parked.
    fn is_parked(&self, lane: LaneId, number: u64) -> bool;
}

/// A store that has just been opened, and what was found in it.
pub(super) struct Opened<S> {
    pub(super) store: S,
    pub(super) audit: Audit,
    pub(super) clean: Option<Clean>,
    pub(super) id: SpoolId,
    /// How many generations could not be read, and are in quarantine.
    pub(super) set_aside: u64,
}

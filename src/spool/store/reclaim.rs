//! Which generation can go: decided from what is in them.

use super::{Contents, Live};
use crate::spool::chunk::{Key, LaneId};

/// A generation that can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Reclaim {
    pub(in crate::spool) generation: u64,
    /// Some chunks of it are wanted, so few that they are copied into the newest generation.
    pub(in crate::spool) copy: bool,
    /// What has to be said again first, since it may be said only in the generation that goes, and older
    /// ones, or the copies, need it: how far these lanes are done with,
    pub(in crate::spool) lanes: Vec<LaneId>,
    /// and which parked records are gone.
    pub(in crate::spool) gone: Vec<Key>,
}

impl Reclaim {
    /// The oldest that can go of generations with their sizes, which are not written to any more and in the
    /// order of their numbers.
    pub(in crate::spool) fn plan(
        sealed: &[(u64, u64, &Contents)],
        live: &dyn Live,
    ) -> Option<Self> {
        let share = if sealed.len() > MANY { 1 } else { COPY_SHARE };
        let wanted = sealed
            .iter()
            .map(|(.., contents)| contents.live_bytes(live));
        let (at, bytes) = wanted
            .enumerate()
            .find(|(at, bytes)| *bytes <= (sealed[*at].1 / share).min(COPY_BYTES))?;
        let older = &sealed[..at];
        // Copies have the stamps they had, and are where this is said.
        let copied = (bytes > 0).then_some(&sealed[at]);
        let need_it = older.iter().chain(copied);
        let lanes = need_it.flat_map(|(.., contents)| contents.lanes());
        let gone = older.iter().flat_map(|(.., contents)| contents.gone(live));
        Some(Self {
            generation: sealed[at].0,
            copy: bytes > 0,
            lanes: lanes.collect(),
            gone: gone.collect(),
        })
    }
}

/// A generation of which less than this part is wanted is copied,
const COPY_SHARE: u64 = 8;
/// but not more than fits into one write.
const COPY_BYTES: u64 = 8 << 20;
/// From so many on, each of which is an open file, any of that size is.
const MANY: usize = 16;

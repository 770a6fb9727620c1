//! Which generation can go: decided from what is in them.

use super::{Contents, Live};
use crate::spool::chunk::{Key, LaneId};

/// A generation that can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Reclaim {
    pub(in crate::spool) generation: u64,
    /// Some chunks of it are wanted, so few that they are copied into the newest generation.
    pub(in crate::spool) copy: bool,
    /// Others stay. What only this one may say of them has to be said again first: how much there is in
    /// all and what is void,
    pub(in crate::spool) others_stay: bool,
    /// how far these lanes are done with,
    pub(in crate::spool) lanes: Vec<LaneId>,
    /// and which parked records are gone.
    pub(in crate::spool) gone: Vec<Key>,
}

impl Reclaim {
    /// The oldest that can go of generations with their sizes, which are not written to any more and in the
    /// order of their numbers, beside the one that is. All together take up so much more than one of them. Of
    /// many, those below `small` are put together: it is well below the size at which the next one begins, or
    /// that would never end.
    pub(in crate::spool) fn plan(
        sealed: &[(u64, u64, &Contents)],
        active: Option<&Contents>,
        taken: u64,
        small: u64,
        live: &dyn Live,
    ) -> Option<Self> {
        let contents = sealed.iter().map(|(.., contents)| *contents).chain(active);
        let wanted: Vec<u64> = contents.map(|contents| contents.live_bytes(live)).collect();
        let is_too_much = taken > wanted.iter().sum::<u64>().saturating_mul(WRITTEN_TIMES);
        let is_many = sealed.len() > MANY;
        let (at, bytes) =
            sealed
                .iter()
                .zip(wanted)
                .enumerate()
                .find_map(|(at, ((_, size, _), bytes))| {
                    let is_remnant = is_too_much && bytes <= size / COPY_SHARE;
                    let is_small = is_many && *size <= small.min(2 * COPY_BYTES);
                    let is_copied = bytes <= COPY_BYTES && (is_remnant || is_small);
                    (bytes == 0 || is_copied).then_some((at, bytes))
                })?;
        let ((older, rest), copy) = (sealed.split_at(at), bytes > 0);
        let (going, younger) = rest.split_first()?;
        // What is copied has stamps of long ago, and those of younger generations may be copies, too.
        let others = || {
            let sealed = older.iter().chain(younger);
            sealed.map(|(.., contents)| *contents).chain(active)
        };
        let lanes = going.2.lanes();
        let lanes = lanes.filter(|lane| copy || others().any(|contents| contents.has(*lane)));
        let gone = older.iter().flat_map(|(.., contents)| contents.gone(live));
        Some(Self {
            generation: going.0,
            copy,
            others_stay: copy || others().any(|contents| !contents.is_empty()),
            lanes: lanes.collect(),
            gone: gone.collect(),
        })
    }
}

/// A generation of which less than this part is wanted is copied if all together keep more room than what is
/// wanted takes: what replay is about to be done with is not,
const COPY_SHARE: u64 = 8;
/// nor more than fits into one write.
const COPY_BYTES: u64 = 8 << 20;
/// sled writes a chunk two or three times.
const WRITTEN_TIMES: u64 = 3;
/// From so many on, each of which is an open file, any small one is.
const MANY: usize = 16;

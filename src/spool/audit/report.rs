//! What opening a spool has found: public, for health, logs and the command line.

use crate::spool::LaneId;

/// What was found when the spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// It had been closed in order. If not, it was killed, or the machine was.
    pub clean: bool,
    /// The last write was there only in part: nobody had an answer for it.
    pub torn: bool,
    /// Records that wait.
    pub records: u64,
    /// Records that Redis has acknowledged and its replicas may have lacked.
    pub tail: u64,
    /// Records that are parked.
    pub parked: u64,
    /// Records that must be there, and are not.
    pub lost: u64,
    /// Parked records that must be there, and are not.
    pub lost_parked: u64,
    /// Of which lanes records are lost, as far as can be told.
    pub lanes: Vec<LaneLoss>,
    /// Pieces that were found damaged, and are kept in `quarantine/`.
    pub damaged_chunks: u64,
    /// Whole generations that could not be read, and were moved to `quarantine/`. What they held is not
    /// known, and counts as lost as far as the others tell.
    pub set_aside: u64,
}

/// Records of one lane that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneLoss {
    /// The lane.
    pub lane: LaneId,
    /// Its queue.
    pub queue: String,
    /// It is the queue's tail: Redis has acknowledged its records.
    pub tail: bool,
    /// How many are lost.
    pub records: u64,
}

impl Recovery {
    /// Whether anything is lost.
    #[must_use]
    pub fn has_loss(&self) -> bool {
        self.lost > 0 || self.lost_parked > 0
    }
}

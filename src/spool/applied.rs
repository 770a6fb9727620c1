//! What the far end says became of a batch: [`Applied`].

#[cfg(doc)]
use super::{Asks, Batch};
use crate::error::Error;

/// What became of a [`Batch`].
#[derive(Debug)]
#[must_use]
pub struct Applied {
    pub(super) outcome: Outcome,
    pub(super) duplicates: u64,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// Every record is in.
    All,
    /// Those up to `through` are in; the next one met `error`, which is not its fault.
    Stopped { through: u64, error: Error },
    /// Those up to `through` are in; the far end will never take the next `count`.
    Refused {
        through: u64,
        count: u64,
        error: Error,
    },
    /// Nothing was done: the far end knows this lane only up to `last`.
    Gap { last: u64 },
    /// Answers [`Asks::Reached`].
    Reached { last: u64 },
    /// Answers [`Asks::Confirm`].
    Confirmed { last: u64, replicas: u64 },
}

impl Applied {
    /// Every record is in, or was before.
    pub fn all() -> Self {
        Self {
            outcome: Outcome::All,
            duplicates: 0,
        }
    }

    /// The records up to number `through` are in; the next one met `error`, which was not its fault,
    /// and nothing after it was tried.
    pub fn stopped(through: u64, error: Error) -> Self {
        Self {
            outcome: Outcome::Stopped { through, error },
            ..Self::all()
        }
    }

    /// The records up to number `through` are in; the next `count` will never be taken, because of
    /// `error`, and nothing after them was tried.
    ///
    /// They must not be marked as done at the far end: they are parked first, and only the batch
    /// after them moves on. A crash in between meets them again.
    pub fn refused(through: u64, count: u64, error: Error) -> Self {
        Self {
            outcome: Outcome::Refused {
                through,
                count: count.max(1),
                error,
            },
            ..Self::all()
        }
    }

    /// Nothing was done, since the far end has this lane only up to number `last`, which is less than
    /// [`Batch::after`].
    pub fn gap(last: u64) -> Self {
        Self {
            outcome: Outcome::Gap { last },
            ..Self::all()
        }
    }

    /// The far end has this lane up to number `last`; 0 if it does not know it.
    pub fn reached(last: u64) -> Self {
        Self {
            outcome: Outcome::Reached { last },
            ..Self::all()
        }
    }

    /// The far end has this lane up to number `last`, and all of that is on so many replicas.
    pub fn confirmed(last: u64, replicas: u64) -> Self {
        Self {
            outcome: Outcome::Confirmed { last, replicas },
            ..Self::all()
        }
    }

    /// How many of the records an earlier try had landed.
    pub fn with_duplicates(mut self, duplicates: u64) -> Self {
        self.duplicates = duplicates;
        self
    }
}

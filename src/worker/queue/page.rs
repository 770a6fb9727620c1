//! Lists that are read piece by piece: [`Page`] and [`JobPage`].

use bytes::Bytes;

use super::JobInfo;
use crate::error::Error;

/// Which part of a list is wanted: see [`Queue::jobs`](super::Queue::jobs).
///
/// # Default
///
/// The first 100.
#[derive(Clone, Debug)]
#[must_use]
pub struct Page {
    size: usize,
    pub(super) from: Place,
}

impl Page {
    /// The first 100.
    pub fn first() -> Self {
        Self {
            size: 100,
            from: Place::default(),
        }
    }

    /// At most so many, from 1 to 1,000.
    pub fn with_size(mut self, jobs: usize) -> Self {
        self.size = jobs;
        self
    }

    /// As large as this one, from there on.
    pub(super) fn at(&self, from: Place) -> Self {
        Self {
            size: self.size,
            from,
        }
    }

    pub(super) fn size(&self) -> Result<usize, Error> {
        match self.size {
            1..=MOST => Ok(self.size),
            size => Err(Error::invalid(format!(
                "a page has 1 to {MOST} jobs, not {size}"
            ))),
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first()
    }
}

const MOST: usize = 1_000;

/// Where a list is gone on with: behind the last that was seen, told by its place and by itself, or with a scan's next
/// step.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) mark: Bytes,
    pub(super) last: Bytes,
}

/// A part of a list of jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobInfo>,
    /// How to ask for the next ones. `None` at the end.
    pub next: Option<Page>,
}

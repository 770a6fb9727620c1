//! `CLEAN`: what there was when the spool was closed in order.

use std::{fmt::Write as _, fs, io};

use super::{Directory, failed, sealed, sync, unsealed, write_whole};
use crate::spool::{chunk::LaneId, error::OpenError};

/// What must be there, exactly, since nothing was going on when it was written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Clean {
    /// The last commit.
    pub(in crate::spool) commit: u64,
    /// Records that waited.
    pub(in crate::spool) waiting: u64,
    /// Records that were parked.
    pub(in crate::spool) parked: u64,
    /// Each lane with records, how many, and up to which number it was done.
    pub(in crate::spool) lanes: Vec<(LaneId, u64, u64)>,
}

impl Directory {
    /// What the last close has left; `None` if the spool was not closed, or the file is damaged.
    pub(in crate::spool) fn clean(&self) -> Result<Option<Clean>, OpenError> {
        let path = self.path.join(CLEAN);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(unsealed(&text).and_then(Clean::parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    pub(in crate::spool) fn write_clean(&self, clean: &Clean) -> Result<(), OpenError> {
        write_whole(&self.path, CLEAN, &sealed(&clean.to_text()))
    }

    /// From here on the spool is not closed in order any more.
    pub(in crate::spool) fn remove_clean(&self) -> Result<(), OpenError> {
        let path = self.path.join(CLEAN);
        match fs::remove_file(&path) {
            Ok(()) => sync(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }
}

const CLEAN: &str = "CLEAN";

impl Clean {
    /// How many records of the lane waited, and up to which number it was done.
    pub(in crate::spool) fn lane(&self, lane: LaneId) -> Option<(u64, u64)> {
        let found = self.lanes.iter().find(|(known, ..)| *known == lane);
        found.map(|(_, waiting, done)| (*waiting, *done))
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "commit {}\nwaiting {}\nparked {}\n",
            self.commit, self.waiting, self.parked
        );
        for (lane, waiting, done) in &self.lanes {
            let _ = writeln!(text, "lane {lane} {waiting} {done}");
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut clean = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let name = words.next()?;
            if name == "lane" {
                let lane = words.next()?.parse().ok()?;
                let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                clean.lanes.push((lane, numbers.0, numbers.1));
                continue;
            }
            let number = words.next()?.parse().ok()?;
            match name {
                "commit" => clean.commit = number,
                "waiting" => clean.waiting = number,
                "parked" => clean.parked = number,
                _ => {}
            }
        }
        Some(clean)
    }
}

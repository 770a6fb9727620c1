//! What a producer writes down while it works: its part of the books, which its own death does not take.
//!
//! One file for each producer, over all its lives: a line of JSON for each entry, each handed to the
//! kernel in one write before the thing it announces, or after the thing it reports. Only the process is
//! killed and never the machine, so nothing is synced. A line that a kill has cut short has no end, and
//! did not happen.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    ops::Range,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A life begins.
    Started,
    /// These jobs are about to be handed in.
    Attempted { queue: usize, numbers: Range<u64> },
    /// These jobs have their receipts.
    Acknowledged { queue: usize, numbers: Range<u64> },
    /// This job has an error.
    Failed {
        queue: usize,
        number: u64,
        error: String,
    },
    /// Something took longer than it may.
    Late { what: String, over_ms: u64 },
    /// The first call that succeeded after one that had not, or on another server than the last.
    Success { at_us: u64, port: u16 },
    /// Counts of this life so far: the last of a life holds.
    Counted(BTreeMap<String, u64>),
    /// The spool is empty.
    Drained,
    /// An orderly end, and how many records it has left on disk.
    Ended { left: u64 },
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<File>);

impl Journal {
    /// Goes on with the journal at `path`, and says what it holds.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let (entries, whole) = read(path)?;
        let file = File::options().create(true).append(true).open(path)?;
        file.set_len(whole)?;
        Ok((Self(Mutex::new(file)), entries))
    }

    /// Some bytes into the page cache: that holds a thread up no longer than a lock does.
    pub(crate) fn write(&self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        self.0.lock().write_all(&text)
    }
}

/// The entries of the journal at `path`, and how many bytes they are. None if there is no file.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<Entry>, u64)> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n');
    let entries = lines
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    Ok((entries, whole as u64))
}

/// Microseconds of the clock that all processes of the machine share.
pub(crate) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_micros() as u64
}

//! One process at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::failed;
use crate::spool::error::OpenError;

/// Holds the lock, which the system takes back when the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// The file stays when the lock is given back: whoever removes it could remove another's.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let name = path.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(failed("create", &name))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let mut words = holder.split_whitespace();
                return Err(OpenError::Locked {
                    path: path.into(),
                    holder: words.next().and_then(|pid| pid.parse().ok()),
                    host: words.next().map(str::to_owned).filter(|at| *at != host()),
                });
            }
            Err(error) => return Err(failed("lock", &name)(error.into())),
        }
        // Who holds it is a courtesy, and no reason to fail on a full disk.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{} {}", std::process::id(), host()));
        Ok(Self(file))
    }
}

impl Lock {
    /// Whether its file is still the one in `path`: who has made the directory anew does not know of this
    /// lock.
    pub(super) fn is_in(&self, path: &Path) -> io::Result<()> {
        let (ours, there) = (self.0.metadata()?, fs::metadata(path.join(LOCK))?);
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            return Ok(());
        }
        Err(io::Error::other(
            "it was removed, or moved, and is another one now",
        ))
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a child that another thread is just starting has it too, until
    /// it becomes another program.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

pub(super) const LOCK: &str = "LOCK";

/// In a container it tells whose process id it is.
fn host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.split_whitespace().collect()
}

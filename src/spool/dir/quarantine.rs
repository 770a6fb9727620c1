//! Where what was found damaged is kept for somebody to look at. Never deleted but for room.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Directory, GENERATION, failed, sync};
use crate::spool::error::OpenError;

impl Directory {
    /// Moves something of the directory out of the way, if it is there.
    pub(in crate::spool) fn set_aside(&self, name: &str) -> Result<(), OpenError> {
        let from = self.path.join(name);
        let to = self.quarantine()?.join(self.stamped(name));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("set aside", &from)(error)),
        }
        sync(&self.path)?;
        tracing::warn!(path = ?to, "set aside in quarantine");
        self.bound();
        Ok(())
    }

    /// Moves a whole generation out of the way.
    pub(in crate::spool) fn set_aside_generation(&self, number: u64) -> Result<(), OpenError> {
        self.set_aside(&format!("{GENERATION}{number}"))
    }

    /// Keeps a copy of damaged bytes.
    pub(in crate::spool) fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
        let to = self.quarantine()?.join(self.stamped(name));
        fs::write(&to, bytes).map_err(failed("write", &to))?;
        self.bound();
        Ok(())
    }

    fn quarantine(&self) -> Result<PathBuf, OpenError> {
        let path = self.path.join("quarantine");
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        Ok(path)
    }

    /// No name is used twice, and they sort by time.
    fn stamped(&self, name: &str) -> String {
        format!("{}-{name}", uuid::Uuid::now_v7())
    }

    /// The oldest go when there is too much.
    fn bound(&self) {
        let path = self.path.join("quarantine");
        let mut kept: Vec<(SystemTime, PathBuf, u64)> = entries(&path)
            .into_iter()
            .map(|path| {
                let since = fs::metadata(&path).and_then(|file| file.modified());
                (
                    since.unwrap_or(SystemTime::UNIX_EPOCH),
                    path.clone(),
                    size(&path),
                )
            })
            .collect();
        kept.sort();
        let mut total: u64 = kept.iter().map(|(.., size)| size).sum();
        // The newest stays, however large it is.
        kept.pop();
        for (_, path, size) in kept {
            if total <= MOST {
                break;
            }
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            if removed.is_ok() {
                total -= size;
                tracing::warn!(?path, size, "removed from quarantine to make room");
            }
        }
    }
}

const MOST: u64 = 256 << 20;

fn entries(path: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(path).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => entries(path).iter().map(|path| size(path)).sum(),
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}

//! What can be told of a spool from outside, while somebody may be at work in it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{OpenError, failed};
use crate::spool::dir::{FORMAT, Space, version};

/// What is in the directory of a spool, by its files alone: nothing is opened, locked or changed.
///
/// Blocks for as long as the file system takes to list some files.
///
/// # Errors
///
/// [`OpenError::Io`] if the directory is not there or can't be listed, [`OpenError::NotASpool`] if it is
/// not a spool's.
pub fn look(path: impl AsRef<Path>) -> Result<Look, OpenError> {
    let path = path.as_ref();
    let listed = fs::metadata(path).map_err(failed("find a spool in", path))?;
    let format = fs::read(path.join(FORMAT)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !super::is_empty(path) => {
            OpenError::NotASpool { path: path.into() }
        }
        _ => failed("find a spool in", path)(error),
    })?;
    let space = Space::of(path).map_err(failed("measure", path))?;
    let mut look = Look {
        path: path.to_owned(),
        format: version(&String::from_utf8_lossy(&format)),
        owner: listed.uid(),
        files: 0,
        disk_bytes: 0,
        free_bytes: space.free,
    };
    look.count(path).map_err(failed("list", path))?;
    Ok(look)
}

/// What [`look`] has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// The directory.
    pub path: PathBuf,
    /// The version of its format; `None` if that can't be read.
    pub format: Option<u32>,
    /// The user id of its owner, who should be the one to open it.
    pub owner: u32,
    /// How many files there are.
    pub files: u64,
    /// What they take of the disk, in bytes.
    pub disk_bytes: u64,
    /// What is free on that disk for such a user, in bytes.
    pub free_bytes: u64,
}

impl Look {
    /// Files may come and go meanwhile.
    fn count(&mut self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if !metadata.is_dir() {
                self.files += 1;
                self.disk_bytes += metadata.blocks() * BLOCK;
                continue;
            }
            match self.count(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                counted => counted?,
            }
        }
        Ok(())
    }
}

/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK: u64 = 512;

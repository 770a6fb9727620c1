//! Room that is set aside while there is some, to be given up when there is none.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::place::Space;

/// A file of no content. On a full disk even noting that a record is delivered takes room: this one's.
#[derive(Debug)]
pub(in crate::spool) struct Ballast(PathBuf);

impl Ballast {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join("BALLAST"))
    }

    /// Takes the room, if twice as much is free, or half of it and so on where a quota allows no more. Says
    /// whether it is there now.
    pub(in crate::spool) fn take(&self) -> io::Result<bool> {
        let space = Space::of(self.0.parent().unwrap_or(Path::new(".")))?;
        let mut size = (space.total / 8).clamp(LEAST, MOST);
        if fs::metadata(&self.0).is_ok_and(|file| file.len() >= size) {
            return Ok(true);
        }
        if space.free < 2 * size {
            return Ok(false);
        }
        while size >= LEAST {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&self.0)?;
            if fill(&file, size).is_ok() {
                return Ok(true);
            }
            // A file with holes holds no room.
            self.release();
            size /= 2;
        }
        Ok(false)
    }

    pub(in crate::spool) fn release(&self) {
        // It has none to give, or will be asked again.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(target_os = "linux")]
fn fill(file: &File, size: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::empty(), 0, size)?)
}

#[cfg(not(target_os = "linux"))]
fn fill(mut file: &File, size: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), size), &mut file).map(drop)
}

/// What a new generation and the marks of a full one come to.
const LEAST: u64 = 512 << 10;
const MOST: u64 = 4 << 20;

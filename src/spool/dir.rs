//! The spool's directory: who may use it, which format it has, where its files are.
//!
//! `docs/spool-format.md` lists what is in it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;

/// A directory that is ours alone until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Holds the lock, which the system takes back when the process ends in whatever way.
    lock: File,
}

impl Directory {
    /// Makes the directory if there is none, and locks it.
    ///
    /// Touches nothing in a directory that is not a spool's, or a newer one's.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        create(path)?;
        let found = format(path)?;
        let lock = lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            lock,
        };
        // Another process may have been the first between the look and the lock.
        if found.is_none() && format(path)?.is_none() {
            directory.write_format()?;
        }
        // The store makes files that everyone may read, so it is the directory that keeps them out.
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .map_err(failed("make private", path))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store keeps its files.
    pub(super) fn generation(&self) -> PathBuf {
        self.path.join("gen-1")
    }

    /// Syncs every file that exists, and the directories they are named in: the store does not.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        sync_tree(&self.generation())?;
        sync(&self.path)?;
        let parent = match self.path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        match sync(parent) {
            // Who may not look into it did not make us in it either.
            Err(OpenError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            synced => synced,
        }
    }

    /// In one step, so that there is a whole `FORMAT` or none.
    fn write_format(&self) -> Result<(), OpenError> {
        let new = self.path.join(FORMAT_NEW);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed("create", &new))?;
        file.write_all(format!("{NAME} {KNOWN}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, self.path.join(FORMAT)))
            .map_err(failed("write", &new))?;
        sync(&self.path)
    }
}

impl Drop for Directory {
    /// Closing the file is not enough: a child that another thread is just starting has it too, until
    /// it becomes another program.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

const PRIVATE: u32 = 0o700;
const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const NAME: &str = "seawall-spool";
const KNOWN: u32 = 1;

fn create(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| DirBuilder::new().mode(PRIVATE).create(path))
        .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
        .map_err(failed("create the directory", path))
}

/// The format of the spool in `path`, if it is one that is known; `None` in an empty directory.
fn format(path: &Path) -> Result<Option<u32>, OpenError> {
    let file = path.join(FORMAT);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if is_unused(path).map_err(failed("list", path))? {
                Ok(None)
            } else {
                Err(OpenError::NotASpool { path: path.into() })
            };
        }
        Err(error) => return Err(failed("read", &file)(error)),
    };
    let found = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.lines().next()?.strip_prefix(NAME))
        .and_then(|version| version.trim().parse().ok())
        .ok_or_else(|| OpenError::Damaged {
            path: path.into(),
            what: format!("its {FORMAT} file cannot be read"),
        })?;
    if found > KNOWN {
        return Err(OpenError::Version {
            path: path.into(),
            found,
            known: KNOWN,
        });
    }
    Ok(Some(found))
}

/// Nothing is in it but what a first start that was cut short leaves.
fn is_unused(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != FORMAT_NEW {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file stays when the lock is given back: whoever removes it could remove another's.
fn lock(path: &Path) -> Result<File, OpenError> {
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
            return Err(OpenError::Locked {
                path: path.into(),
                holder: holder.trim().parse().ok(),
            });
        }
        Err(error) => return Err(failed("lock", &name)(error.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed("write", &name))?;
    Ok(file)
}

/// Depth first: a name is synced after what it names.
fn sync_tree(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_tree(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed("sync", path))
}

/// What became of `action`, for `map_err`.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A place that nothing is at yet, removed with all that comes to be there.
    pub(in crate::spool) struct Scratch(PathBuf);

    impl Scratch {
        pub(in crate::spool) fn new() -> Self {
            let name = format!("seawall-test-{}", uuid::Uuid::now_v7());
            Self(std::env::temp_dir().join(name))
        }

        pub(in crate::spool) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_its_owner_can_look_into_it() {
        let scratch = Scratch::new();
        let mode = || fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777;
        drop(Directory::open(scratch.path()).unwrap());
        assert_eq!(mode(), 0o700);

        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        drop(Directory::open(scratch.path()).unwrap());
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_second_handle_is_told_who_has_the_first() {
        let scratch = Scratch::new();
        let first = Directory::open(scratch.path()).unwrap();
        let refusal = Directory::open(scratch.path()).unwrap_err();
        assert!(
            matches!(refusal, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
            "{refusal}"
        );
        drop(first);
        Directory::open(scratch.path()).unwrap();
    }

    #[test]
    fn a_newer_spool_is_refused_untouched() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).unwrap();
        let format = scratch.path().join(FORMAT);
        fs::write(&format, "seawall-spool 2\nand more\n").unwrap();
        // Only the first line is the version.
        let refusal = Directory::open(scratch.path()).unwrap_err();
        assert!(
            matches!(
                refusal,
                OpenError::Version {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{refusal}"
        );
        let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(fs::read_to_string(&format).unwrap().ends_with("and more\n"));
    }

    #[test]
    fn somebody_elses_files_are_left_alone() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).unwrap();
        fs::write(scratch.path().join("thesis.tex"), "..").unwrap();
        let refusal = Directory::open(scratch.path()).unwrap_err();
        assert!(matches!(refusal, OpenError::NotASpool { .. }), "{refusal}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_made_good() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).unwrap();
        fs::write(scratch.path().join(LOCK), "").unwrap();
        fs::write(scratch.path().join(FORMAT_NEW), "seaw").unwrap();
        drop(Directory::open(scratch.path()).unwrap());
        let format = fs::read_to_string(scratch.path().join(FORMAT)).unwrap();
        assert_eq!(format, "seawall-spool 1\n");
    }

    #[test]
    fn a_file_in_the_way_is_said_to_be_one() {
        let scratch = Scratch::new();
        fs::write(scratch.path(), "").unwrap();
        let refusal = Directory::open(scratch.path()).unwrap_err().to_string();
        assert!(refusal.contains("a file in the way"), "{refusal}");
        fs::remove_file(scratch.path()).unwrap();
    }
}

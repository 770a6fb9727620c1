//! The directory of a spool: who may open it, what is in it by what name, and what is moved out of the way.
//!
//! | name | what it is |
//! |---|---|
//! | `LOCK` | held while a process has the spool open; says which |
//! | `FORMAT` | the version of the format, and the spool's id |
//! | `CLEAN` | what there was when the spool was last closed in order |
//! | `BALLAST` | room that is given up when the disk is full |
//! | `gen-N` | a generation: a store that was opened once |
//! | `gen-N.gone` | one that is being removed |
//! | `quarantine` | what was found damaged |
//!
//! `docs/spool-format.md` has the details.

mod ballast;
mod clean;
mod format;
mod lock;
mod place;
mod quarantine;
#[cfg(test)]
pub(super) mod tests;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use self::{
    ballast::Ballast,
    format::Format,
    lock::Lock,
    place::{Kind, kind},
};
pub(super) use self::{
    clean::Clean,
    format::{FORMAT, version},
    place::Space,
};
use super::{chunk::SpoolId, error::OpenError};

/// A directory that is ours alone until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    format: Format,
    ballast: Ballast,
    lock: Lock,
}

impl Directory {
    /// Makes the directory if there is none, and locks it.
    ///
    /// Touches nothing in a directory that is not a spool's, or a newer one's.
    pub(super) fn open(path: &Path, network: bool) -> Result<Self, OpenError> {
        create(path)?;
        check_owner(path)?;
        check_place(path, network)?;
        let found = Format::find(path)?;
        let lock = Lock::take(path)?;
        // The store makes files that everyone may read, so it is the directory that keeps them out.
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .map_err(failed("make private", path))?;
        let format = match found {
            Some(format) => format,
            // Another process may have been the first between the look and the lock.
            None => match Format::find(path)? {
                Some(format) => format,
                None => Format::create(path)?,
            },
        };
        let directory = Self {
            path: path.to_owned(),
            format,
            ballast: Ballast::new(path),
            lock,
        };
        directory.clear_remains()?;
        Ok(directory)
    }

    /// `None` if the file that says it is damaged.
    pub(super) fn id(&self) -> Option<SpoolId> {
        self.format.id
    }

    /// The file that says the id is damaged, and this is what the chunks say: writes it anew.
    pub(super) fn restore_id(&self, id: SpoolId) -> Result<(), OpenError> {
        self.set_aside(FORMAT)?;
        Format::write(&self.path, id)
    }

    /// The numbers of the generations, oldest first.
    pub(super) fn generations(&self) -> Result<Vec<u64>, OpenError> {
        let mut numbers: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| Some((name, name.strip_prefix(GENERATION)?.parse().ok()?)))
            // Whatever else somebody has put there is not ours.
            .filter(|(name, number)| **name == format!("{GENERATION}{number}"))
            .map(|(_, number)| number)
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether it is still there, and ours: what is made in another one is not kept from others by our lock.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let checked = self.lock.is_in(&self.path);
        checked.map_err(failed("go on using", &self.path))
    }

    pub(super) fn generation(&self, number: u64) -> PathBuf {
        self.path.join(format!("{GENERATION}{number}"))
    }

    /// Removes a generation. It is gone in one step, and for good before this comes back.
    pub(super) fn remove_generation(&self, number: u64) -> Result<(), OpenError> {
        let path = self.generation(number);
        let gone = self.path.join(format!("{GENERATION}{number}{GONE}"));
        fs::rename(&path, &gone).map_err(failed("rename", &path))?;
        sync(&self.path)?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))
    }

    /// Syncs the names in a generation, in the directory and of the directory: the store does not.
    pub(super) fn sync(&self, number: u64) -> Result<(), OpenError> {
        sync_tree(&self.generation(number))?;
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

    pub(super) fn ballast(&self) -> &Ballast {
        &self.ballast
    }

    /// How much room the file system has.
    pub(super) fn space(&self) -> io::Result<Space> {
        Space::of(&self.path)
    }

    /// What a process that was killed while it removed something has left.
    fn clear_remains(&self) -> Result<(), OpenError> {
        for name in self.names()? {
            if name.starts_with(GENERATION) && name.ends_with(GONE) {
                let path = self.path.join(name);
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, OpenError> {
        let list = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        list().map_err(failed("list", &self.path))
    }
}

const PRIVATE: u32 = 0o700;
const GENERATION: &str = "gen-";
const GONE: &str = ".gone";

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

/// Somebody else's program would find files that it may not touch.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let owner = fs::metadata(path).map_err(failed("look at", path))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner == user {
        return Ok(());
    }
    Err(OpenError::Owner {
        path: path.into(),
        owner,
        user,
    })
}

fn check_place(path: &Path, network: bool) -> Result<(), OpenError> {
    let kind = kind(path).map_err(failed("look at the file system of", path))?;
    judge(path, kind, network)
}

fn judge(path: &Path, kind: Kind, network: bool) -> Result<(), OpenError> {
    match kind {
        Kind::Network(name) if !network => Err(OpenError::Network {
            path: path.into(),
            name,
        }),
        Kind::Memory(name) => {
            tracing::warn!(
                filesystem = name,
                "the spool is kept in memory: it survives the process, not the machine"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A whole file or none, and the name of it durable.
fn write_whole(directory: &Path, name: &str, text: &str) -> Result<(), OpenError> {
    let new = directory.join(format!("{name}{NEW}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("create", &new))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, directory.join(name)))
        .map_err(failed("write", &new))?;
    sync(directory)
}

/// Behind the name of a file that is being written.
const NEW: &str = ".new";

/// Text with its checksum in a last line.
fn sealed(text: &str) -> String {
    format!("{text}{SEAL}{:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The text, if it is what was sealed.
fn unsealed(sealed: &str) -> Option<&str> {
    let at = sealed.rfind(SEAL)?;
    let (text, sum) = sealed.split_at(at);
    let sum = u32::from_str_radix(sum.strip_prefix(SEAL)?.trim_end(), 16).ok()?;
    (sum == crc32fast::hash(text.as_bytes())).then_some(text)
}

const SEAL: &str = "crc ";

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

//! Why a spool cannot be opened, and why its disk cannot do what it was asked to.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tower::BoxError;

use super::{
    chunk::Damaged,
    crypt::{KeyProblem, Trouble},
};
use crate::classify::Landed;

/// Why a spool cannot be opened. Each says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another spool, in this process or another one, has this directory open.
    #[error(
        "the spool in {path:?} is in use by {}: end it, or give each process a directory of its own",
        holder_text(*.holder, .host.as_deref())
    )]
    #[non_exhaustive]
    Locked {
        /// The spool's directory.
        path: PathBuf,
        /// The process that has it open, if it has said so; it may be this one.
        holder: Option<u32>,
        /// The host it is on, or the container, if that is another one than this.
        host: Option<String>,
    },

    /// The directory belongs to another user, whose program could not use what this one writes.
    #[error(
        "{path:?} belongs to user {owner} and this program runs as user {user}: run it as that user, \
         or give it a directory of its own"
    )]
    #[non_exhaustive]
    Owner {
        /// The spool's directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who this program is.
        user: u32,
    },

    /// The directory is on a network file system, which can neither keep two processes apart nor say
    /// what is durable.
    #[error(
        "{path:?} is on {name}: a spool needs a local disk; choose one, or see \
         SpoolOptions::with_network_filesystem"
    )]
    #[non_exhaustive]
    Network {
        /// The spool's directory.
        path: PathBuf,
        /// Which file system.
        name: &'static str,
    },

    /// Records that must be there are not, and the spool is
    /// [strict](super::SpoolOptions::with_strict). Nothing was changed.
    #[error(
        "the spool in {path:?} has lost {records} records and {parked} parked ones: open it without \
         `strict` to go on with what is there"
    )]
    #[non_exhaustive]
    Loss {
        /// The spool's directory.
        path: PathBuf,
        /// How many that waited.
        records: u64,
        /// How many that were parked.
        parked: u64,
    },

    /// All slots of a [shared directory](super::SpoolDir::shared) are in use.
    #[error(
        "all {slots} slots of the spool in {path:?} are in use: end a process, \
         or allow more with SpoolDir::with_max_slots"
    )]
    #[non_exhaustive]
    NoSlot {
        /// The shared directory.
        path: PathBuf,
        /// How many slots there may be.
        slots: u32,
    },

    /// The directory that is to be [shared](super::SpoolDir::shared) is the spool of one process. Nothing was
    /// touched.
    #[error(
        "{path:?} is the spool of one process: with no process on it, move all that is in it \
         to a new directory slot-1 in it, or share another directory"
    )]
    #[non_exhaustive]
    NotShared {
        /// The directory.
        path: PathBuf,
    },

    /// The spool was written by a newer seawall. Nothing in it was touched.
    #[error(
        "the spool in {path:?} has format {found}, and this seawall knows formats up to {known}: \
         use the newer seawall that wrote it, or another directory"
    )]
    #[non_exhaustive]
    Version {
        /// The spool's directory.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest format that is known.
        known: u32,
    },

    /// The directory has files in it, and they are not a spool's. Nothing was touched.
    #[error(
        "{path:?} holds files that are not a spool's: give the spool an empty directory, or none yet"
    )]
    #[non_exhaustive]
    NotASpool {
        /// The directory.
        path: PathBuf,
    },

    /// Records in the spool are encrypted with a key that is not there, or is another one, or the key for new
    /// records is not there. No record is lost, and nothing was changed.
    #[error("the spool in {path:?} needs key {key}, {problem}")]
    #[non_exhaustive]
    Key {
        /// The spool's directory.
        path: PathBuf,
        /// The key's id.
        key: u32,
        /// What is wrong with it.
        problem: KeyProblem,
        /// Why it could not be had, if what gives the keys has said so.
        source: Option<BoxError>,
    },

    /// What is on disk cannot be read back. It has been left as it is.
    #[error(
        "the spool in {path:?} cannot be used ({what}): move the directory away and keep it; seawall \
         will make a new one"
    )]
    #[non_exhaustive]
    Damaged {
        /// The spool's directory.
        path: PathBuf,
        /// What was found, without any payload.
        what: String,
    },

    /// The operating system refused something; the source says why.
    #[error("cannot {action} {path:?}: {}", advice(.source))]
    #[non_exhaustive]
    Io {
        /// What was being done, as a verb: `create`, `lock`.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn key(path: &Path, trouble: Trouble) -> Self {
        let Trouble {
            key,
            problem,
            source,
        } = trouble;
        Self::Key {
            path: path.to_owned(),
            key,
            problem,
            source,
        }
    }
}

fn holder_text(holder: Option<u32>, host: Option<&str>) -> String {
    match holder {
        Some(pid) if host.is_some() => format!("process {pid} on {}", host.unwrap_or_default()),
        Some(pid) if pid == std::process::id() => format!("this process ({pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "this user may not; the spool needs a directory of its own that it can write to"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full, and opening a spool needs some room too: free some"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: choose another place",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "there is a file in the way: choose another place"
        }
        _ => "see the cause; the spool needs a local disk that works",
    }
}

/// No room is left, on the file system or for this user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Why an open spool's disk did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Nothing was handed over: the spool had been closed.
    #[error("the spool is closed")]
    Closed,
    /// This write failed, and some of it may be there after a restart.
    #[error("the spool's disk failed ({0}); the record may be on disk")]
    Unknown(Arc<str>),
    /// This write failed for want of room, and some of it may be there after a restart.
    #[error("the spool's disk is full ({0}); the record may be on disk")]
    NoRoom(Arc<str>),
    /// An earlier write failed, and this one was not tried.
    #[error("the spool's disk has failed ({0}) and takes no more records until it is opened again")]
    Poisoned(Arc<str>),
    /// Too little room is left; this write was not tried.
    #[error("the spool's disk has {0} bytes of room left, which is too little")]
    Full(u64),
    /// It could not be encrypted; this write was not tried.
    #[error("the operating system gives no random numbers to encrypt with")]
    NoRandom,
    /// Reading failed.
    #[error("the spool's disk cannot be read ({0})")]
    Unreadable(Arc<str>),
    /// What was read is not what was written.
    #[error("a chunk of the spool is damaged: {0}")]
    Damaged(#[from] Damaged),
}

impl StoreError {
    /// A write has failed.
    pub(super) fn unwritten(error: &io::Error) -> Self {
        let why = error.to_string().into();
        if is_full(error) {
            Self::NoRoom(why)
        } else {
            Self::Unknown(why)
        }
    }

    /// Whether what was to be written may come back after a restart.
    pub(super) fn landed(&self) -> Landed {
        match self {
            Self::Unknown(_) | Self::NoRoom(_) => Landed::Maybe,
            _ => Landed::No,
        }
    }
}

//! `FORMAT`: which version of the format, and which spool.

use std::{fs, io, path::Path};

use super::{NEW, failed, lock::LOCK, sealed, unsealed, write_whole};
use crate::spool::{chunk::SpoolId, error::OpenError};

#[derive(Debug)]
pub(super) struct Format {
    /// `None` if the file is damaged.
    pub(super) id: Option<SpoolId>,
}

impl Format {
    /// The format of the spool in `path`; `None` in an unused directory.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, OpenError> {
        let file = path.join(FORMAT);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if is_unused(path).map_err(failed("list", path))? {
                    Ok(None)
                } else if has_generation(path).map_err(failed("list", path))? {
                    Ok(Some(Self { id: None }))
                } else {
                    Err(OpenError::NotASpool { path: path.into() })
                };
            }
            Err(error) => return Err(failed("read", &file)(error)),
        };
        let text = String::from_utf8_lossy(&text);
        match (unsealed(&text), version(&text)) {
            (_, Some(found))
                if found > KNOWN && (unsealed(&text).is_some() || !has_seal(&text)) =>
            {
                Err(OpenError::Version {
                    path: path.into(),
                    found,
                    known: KNOWN,
                })
            }
            (Some(sound), Some(KNOWN)) => Ok(Some(Self { id: id(sound) })),
            // A file of ours that is damaged: the chunks know the rest.
            _ => Ok(Some(Self { id: None })),
        }
    }

    pub(super) fn create(path: &Path) -> Result<Self, OpenError> {
        let id = SpoolId::fresh();
        Self::write(path, id)?;
        Ok(Self { id: Some(id) })
    }

    pub(super) fn write(path: &Path, id: SpoolId) -> Result<(), OpenError> {
        write_whole(path, FORMAT, &sealed(&format!("{NAME} {KNOWN}\nid {id}\n")))
    }
}

pub(in crate::spool) const FORMAT: &str = "FORMAT";
const NAME: &str = "seawall-spool";
const KNOWN: u32 = 1;

/// The version that the text of the file tells, sound or not.
pub(in crate::spool) fn version(text: &str) -> Option<u32> {
    let first = text.lines().next()?;
    first.strip_prefix(NAME)?.trim().parse().ok()
}

fn has_seal(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(super::SEAL))
}

fn id(text: &str) -> Option<SpoolId> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("id ")?.parse().ok())
}

/// Nothing is in it but what a first start that was cut short leaves.
fn is_unused(path: &Path) -> io::Result<bool> {
    let new = format!("{FORMAT}{NEW}");
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != *new {
            return Ok(false);
        }
    }
    Ok(true)
}

/// There is a spool here, although nothing says so any more.
fn has_generation(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"gen-") && entry.path().join("db").is_file() {
            return Ok(true);
        }
    }
    Ok(false)
}

//! The directory of a spool with several targets: one directory for each, and beside it what it was written for.
//!
//! | name | |
//! |---|---|
//! | `eu` | the spool of the target `eu`, as that of a single deployment is |
//! | `eu.target` | where the target's URL led when it was last opened |

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tokio::runtime::Handle;

use super::{BuildError, identity::Identity, topology::Named};

/// Makes the directory that those of `targets` are in, unless it is used otherwise.
pub(super) async fn prepare(base: PathBuf, targets: &[Named]) -> Result<(), BuildError> {
    let names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    blocking(move || {
        if is_single(&base)? {
            let name = names.into_iter().next().unwrap_or_default();
            return Err(BuildError::SingleSpool { path: base, name });
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&base);
        made.map_err(failed("create the directory", &base))?;
        for target in noted(&base)?.iter().filter(|noted| !names.contains(noted)) {
            let path = base.join(target);
            if path.is_dir() {
                let target = &**target;
                tracing::warn!(
                    target,
                    path = %path.display(),
                    "there is a spool of a target that is not in the topology; what waits in it stays there"
                );
            }
        }
        Ok(())
    })
    .await
}

/// Refuses a directory that several targets have theirs in: for a single deployment.
pub(super) async fn check_single(base: PathBuf) -> Result<(), BuildError> {
    blocking(move || {
        let targets = noted(&base)?;
        if targets.is_empty() || base.join(FORMAT).exists() {
            return Ok(());
        }
        Err(BuildError::TargetSpools {
            path: base,
            targets: targets.join(", "),
        })
    })
    .await
}

/// What the spool of a target was written for; `None` if nothing says so.
pub(super) async fn written_for(base: PathBuf, name: String) -> Result<Option<Noted>, BuildError> {
    blocking(move || {
        let path = note(&base, &name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Noted::read(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Noted(None))),
            Err(error) => Err(failed("read", &path)(error)),
        }
    })
    .await
}

/// Notes what the spool of a target is written for from now on. Durable when this comes back.
pub(super) async fn write_for(
    base: PathBuf,
    name: String,
    identity: Identity,
) -> Result<(), BuildError> {
    blocking(move || {
        let path = note(&base, &name);
        // Many processes may share the directory.
        let new = base.join(format!("{name}{NOTE}.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(format!("{VERSION}\n{identity}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&base)?.sync_all()
        };
        write().map_err(failed("write", &path))
    })
    .await
}

/// Where it is noted what the spool of a target is written for.
pub(super) fn note(base: &Path, name: &str) -> PathBuf {
    base.join(format!("{name}{NOTE}"))
}

/// What a note says; `None` if it can't be read.
pub(super) struct Noted(Option<Identity>);

impl Noted {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let known = lines.next() == Some(VERSION);
        let identity = lines.next().filter(|_| known);
        Self(identity.and_then(Identity::parse))
    }

    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.is_same(identity))
    }

    pub(super) fn equals(&self, identity: &Identity) -> bool {
        self.0.as_ref() == Some(identity)
    }
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(identity) => identity.fmt(f),
            None => f.write_str("what cannot be read"),
        }
    }
}

const NOTE: &str = ".target";
const VERSION: &str = "seawall-target 1";

/// Whether it is the spool of a single deployment, or one with slots.
fn is_single(base: &Path) -> Result<bool, BuildError> {
    let names = names(base)?;
    let ours =
        |name: &String| name == FORMAT || name.starts_with("slot-") || name.starts_with("gen-");
    Ok(names.iter().any(ours))
}

const FORMAT: &str = "FORMAT";

/// The targets that something is noted of.
fn noted(base: &Path) -> Result<Vec<String>, BuildError> {
    let names = names(base)?;
    let noted = names.iter().filter_map(|name| name.strip_suffix(NOTE));
    let mut noted: Vec<_> = noted.map(str::to_owned).collect();
    noted.sort();
    Ok(noted)
}

fn names(base: &Path) -> Result<Vec<String>, BuildError> {
    let list = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(base)?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    match list() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            // Who opens it says better what is wrong.
            Ok(Vec::new())
        }
        listed => listed.map_err(failed("list", base)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Directory {
        action,
        path,
        source,
    }
}

async fn blocking<V: Send + 'static>(
    work: impl FnOnce() -> Result<V, BuildError> + Send + 'static,
) -> Result<V, BuildError> {
    // Without one, opening the connection says so.
    let Ok(runtime) = Handle::try_current() else {
        return work();
    };
    match runtime.spawn_blocking(work).await {
        Ok(done) => done,
        Err(interrupted) => Err(failed("look at", Path::new(""))(io::Error::other(
            interrupted,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_cannot_be_read_is_for_nobody() {
        let identity = Identity::of("redis://a");
        let sound = format!("{VERSION}\n{identity}\n");
        assert!(Noted::read(&sound).is(&identity));
        for text in [
            "",
            "seawall-target 2\nredis 0 a:6379\n",
            "seawall-target 1\nnonsense",
        ] {
            assert!(!Noted::read(text).is(&identity), "{text}");
        }
    }
}

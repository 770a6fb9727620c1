//! The directory of a run, which is gone when the program is, however it ends; unless it is to be kept.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

pub(crate) struct Scratch {
    dir: TempDir,
    /// Reads a pipe that only this program holds open, and removes the directory once that is closed.
    broom: Child,
}

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("seawall-chaos-")
            .tempdir()?;
        let broom = Command::new("sh")
            .args(["-c", BROOM, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            // Of its own: it outlives a Ctrl-C at the terminal.
            .process_group(0)
            .spawn()?;
        Ok(Self { dir, broom })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves it there.
    pub(crate) fn keep(mut self) -> io::Result<PathBuf> {
        self.broom.kill()?;
        self.broom.wait()?;
        Ok(self.dir.keep())
    }
}

/// Producers that die with the program may still be writing.
const BROOM: &str = r#"
while read -r _; do :; done
for _ in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done
"#;

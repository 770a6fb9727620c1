//! A child process and its directory, both gone when this process is, however it ends.
//!
//! A destructor does not run when a test is killed with SIGKILL, so cleaning up is the work of a
//! second child, the *broom*: a shell that reads a pipe which only we hold open. When the pipe
//! closes, because the owner is dropped or because we are dead, it kills the child and removes
//! the directory. One way for both ends, so that the rare one is walked every day.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// A directory, and at most one process that lives in it.
#[derive(Debug)]
pub(super) struct Process {
    dir: TempDir,
    child: Option<Child>,
    broom: Child,
}

impl Process {
    /// Makes the directory, with nothing running in it yet.
    pub(super) fn new(prefix: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
        let broom = shell(BROOM)
            .arg(dir.path())
            // The write end stays with us alone: it is close-on-exec, so no child inherits it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            dir,
            child: None,
            broom,
        })
    }

    /// Starts `program`, whose output is added to [`log`](Self::log). Kills the one before it.
    ///
    /// A program that is not there shows as an exit with [`NOT_FOUND`].
    pub(super) async fn spawn(&mut self, program: &OsStr, arguments: &[&OsStr]) -> io::Result<()> {
        self.kill().await?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = shell(START)
            .arg(self.pid_link())
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process with SIGKILL, reaps it, and says how it ended: it may have been dead
    /// already. `None` if there is none.
    ///
    /// Cancel safety: once polled, the process is killed and reaped even if this is dropped.
    pub(super) async fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = self.child.take() else {
            return Ok(None);
        };
        let link = self.pid_link();
        let killed = spawn_blocking(move || kill_and_reap(child, &link));
        killed.await.map_err(io::Error::other)?.map(Some)
    }

    /// Stops the process with SIGSTOP; returns once it stands still.
    pub(super) async fn freeze(&self) -> io::Result<()> {
        let pid = self.running()?;
        kill_process(pid, Signal::STOP)?;
        // NOWAIT leaves the news for the next freeze to see; a process that died is no news.
        let still = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        spawn_blocking(move || waitid(WaitId::Pid(pid), still))
            .await
            .map_err(io::Error::other)??;
        Ok(())
    }

    /// Lets a frozen process go on, with SIGCONT.
    pub(super) fn thaw(&self) -> io::Result<()> {
        Ok(kill_process(self.running()?, Signal::CONT)?)
    }

    pub(super) fn is_running(&self) -> bool {
        self.pid().is_some_and(|pid| {
            // NOWAIT leaves a dead child unreaped: until `kill` its pid can't become another's.
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            matches!(waitid(WaitId::Pid(pid), ended), Ok(None))
        })
    }

    /// The process that was started last, unless it was killed since.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the process, and those before it in this directory, wrote.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn running(&self) -> io::Result<Pid> {
        let not_running = || io::Error::new(io::ErrorKind::NotFound, "the process is not running");
        self.pid()
            .filter(|_| self.is_running())
            .ok_or_else(not_running)
    }

    /// A symbolic link that points at the pid: made with its content in one step.
    fn pid_link(&self) -> PathBuf {
        self.dir.path().join("pid")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = kill_and_reap(child, &self.pid_link());
        }
        // Closes the pipe; the broom removes the directory and ends. Should it have been killed,
        // `TempDir` does it.
        let _ = self.broom.wait();
    }
}

/// The exit code of a shell that did not find the program.
pub(super) const NOT_FOUND: i32 = 127;

/// Leaves the pid where the broom finds it *before* the program runs, so that there is no moment
/// in which our death would leave it behind.
const START: &str = r#"ln -s "$$" "$1" && shift && exec "$@""#;

/// Once the directory has its other name, a start that is under way can't leave its pid any more
/// and gives up; one that has left it is found. Removing is tried again, since the dying process
/// may still be writing.
const BROOM: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
mv "$1" "$1.gone" || exit
kill -KILL "$(readlink "$1.gone/pid")"
for _ in 1 2 3 4 5; do rm -rf "$1.gone" && exit; sleep 1; done
"#;

/// In a process group of its own: a Ctrl-C at the terminal is for the tests, not for this.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).process_group(0);
    command
}

fn kill_and_reap(mut child: Child, pid_link: &Path) -> io::Result<ExitStatus> {
    child.kill()?;
    // Between the two: the pid is ours until it is reaped, and the broom must not act on it after.
    let _ = fs::remove_file(pid_link);
    child.wait()
}

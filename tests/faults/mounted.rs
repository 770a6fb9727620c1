//! A file system of one's own: the test runs again in a mount namespace, where what it mounts is seen by
//! nobody else and is gone with it, however it ends.

use std::{
    env,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

/// What is mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disk {
    /// A tmpfs of so many MiB.
    Memory(u64),
    /// An ext4 of so many MiB, in a file.
    Ext4(u64),
}

const INSIDE: &str = "SEAWALL_FAULTS_INSIDE";

/// Runs `test` where it may mount what it likes; `name` is that of the test that calls this.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        // Whoever has started this has gone, or been killed.
        thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::abort();
        });
        if env::var_os("RUST_LOG").is_some() {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .init();
        }
        return test();
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts file systems and has to run as root: run the tests with sudo, or in a container \
         that was started with --privileged"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1");
    let child = command.stdin(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("unshare cannot be run ({error}): apt-get install util-linux mount e2fsprogs")
    });
    let held = child.stdin.take();
    let status = child.wait().unwrap();
    drop(held);
    assert!(
        status.success(),
        "{name} failed ({status}), see above; if that was unshare, the tests may not make mount \
         namespaces here: run them with sudo, or in a container that was started with --privileged"
    );
}

impl Disk {
    /// Mounts it. Dropping what this gives takes it away.
    pub(crate) fn mount(self) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        match self {
            Self::Memory(size) => {
                run(
                    "mount",
                    &["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"],
                    &at,
                );
            }
            Self::Ext4(size) => {
                let image = dir.path().join("image");
                let file = std::fs::File::create(&image).unwrap();
                file.set_len(size << 20).unwrap();
                run("mkfs.ext4", &["-q", "-m", "0", "-F"], &image);
                run("mount", &["-o", "loop", image.to_str().unwrap()], &at);
            }
        }
        Mounted { dir }
    }
}

/// Read-only (`ro`), or not any more (`rw`).
pub(crate) fn remount(at: &Path, how: &str) {
    run("mount", &["-o", &format!("remount,{how}")], at);
}

/// A disk that is mounted.
pub(crate) struct Mounted {
    dir: TempDir,
}

impl Mounted {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("disk")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) {
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(arguments)
        .arg(at)
        .env("PATH", path)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}): apt-get install mount e2fsprogs")
    });
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}. This needs root, and for ext4 in a file loop devices \
         (/dev/loop-control): in a container --privileged, on a host modprobe loop",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Who may open a directory, and what becomes of its small files.

use super::{format::FORMAT, lock::LOCK, *};

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

fn open(scratch: &Scratch) -> Result<Directory, OpenError> {
    Directory::open(scratch.path(), false)
}

#[test]
fn only_its_owner_can_look_into_it() {
    let scratch = Scratch::new();
    let mode = || fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777;
    drop(open(&scratch).unwrap());
    assert_eq!(mode(), 0o700);

    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    drop(open(&scratch).unwrap());
    assert_eq!(mode(), 0o700);
}

#[test]
fn a_second_handle_is_told_who_has_the_first() {
    let scratch = Scratch::new();
    let first = open(&scratch).unwrap();
    let refusal = open(&scratch).unwrap_err();
    assert!(
        matches!(refusal, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{refusal}"
    );
    drop(first);
    open(&scratch).unwrap();
}

#[test]
fn a_newer_spool_is_refused_untouched() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path()).unwrap();
    let format = scratch.path().join(FORMAT);
    fs::write(&format, "seawall-spool 2\nand more\n").unwrap();
    // Only the first line is the version.
    let refusal = open(&scratch).unwrap_err();
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
    let refusal = open(&scratch).unwrap_err();
    assert!(matches!(refusal, OpenError::NotASpool { .. }), "{refusal}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn a_first_start_that_was_cut_short_is_made_good() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path()).unwrap();
    fs::write(scratch.path().join(LOCK), "").unwrap();
    fs::write(scratch.path().join("FORMAT.new"), "seaw").unwrap();
    drop(open(&scratch).unwrap());
    let format = fs::read_to_string(scratch.path().join(FORMAT)).unwrap();
    let (text, sum) = format.split_at(format.rfind("crc ").unwrap());
    assert_eq!(
        sum,
        format!("crc {:08x}\n", crc32fast::hash(text.as_bytes()))
    );
    let id = text
        .strip_prefix("seawall-spool 1\nid ")
        .unwrap()
        .trim_end();
    assert_eq!(id.len(), 16);
    assert_eq!(open(&scratch).unwrap().id().unwrap().to_string(), id);
}

#[test]
fn a_file_in_the_way_is_said_to_be_one() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), "").unwrap();
    let refusal = open(&scratch).unwrap_err().to_string();
    assert!(refusal.contains("a file in the way"), "{refusal}");
    fs::remove_file(scratch.path()).unwrap();
}

/// Needs root, to give it away.
#[test]
fn the_directory_of_another_user_is_refused() {
    let scratch = Scratch::new();
    drop(open(&scratch).unwrap());
    let format = fs::read(scratch.path().join(FORMAT)).unwrap();
    let other = rustix::process::geteuid().as_raw() + 4711;
    std::os::unix::fs::chown(scratch.path(), Some(other), None)
        .expect("run as root, who may give a directory to another user");
    let refusal = open(&scratch).unwrap_err();
    assert!(
        matches!(refusal, OpenError::Owner { owner, user, .. } if owner == other && user == other - 4711),
        "{refusal}"
    );
    assert_eq!(fs::read(scratch.path().join(FORMAT)).unwrap(), format);
}

#[test]
fn a_network_file_system_is_refused_unless_it_is_asked_for() {
    let path = Path::new("/mnt/far");
    let refusal = judge(path, Kind::Network("NFS"), false).unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("is on NFS: a spool needs a local disk"),
        "{refusal}"
    );
    judge(path, Kind::Network("NFS"), true).unwrap();
    judge(path, Kind::Memory("tmpfs"), false).unwrap();
    judge(path, Kind::Disk, false).unwrap();
}

#[test]
fn the_holder_is_named_with_its_host_if_that_is_another() {
    let scratch = Scratch::new();
    drop(open(&scratch).unwrap());
    let lock = scratch.path().join(LOCK);
    let said = fs::read_to_string(&lock).unwrap();
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), Some(&*std::process::id().to_string()));
    let host = words.next().expect("the host follows");

    let file = File::options().read(true).write(true).open(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for (text, expected) in [
        ("123 elsewhere\n", "in use by process 123 on elsewhere:"),
        (&*format!("123 {host}\n"), "in use by process 123:"),
        ("", "in use by another process:"),
        ("\u{fffd}?", "in use by another process:"),
    ] {
        fs::write(&lock, text).unwrap();
        let refusal = open(&scratch).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    drop(file);
    open(&scratch).unwrap();
}

#[test]
fn what_was_closed_is_read_back_and_only_as_a_whole() {
    let scratch = Scratch::new();
    let directory = open(&scratch).unwrap();
    assert_eq!(directory.clean().unwrap(), None);
    let clean = Clean {
        commit: 12,
        waiting: 34,
        parked: 56,
        lanes: vec![
            (crate::spool::LaneId::fresh(), 30, 7),
            (crate::spool::LaneId::fresh(), 4, u64::MAX),
        ],
    };
    directory.write_clean(&clean).unwrap();
    assert_eq!(directory.clean().unwrap(), Some(clean.clone()));
    let path = scratch.path().join("CLEAN");
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut spoilt = sound.clone();
        spoilt[at] ^= 1 << (at % 8);
        fs::write(&path, &spoilt).unwrap();
        // The checksum is hexadecimal, and its case does not matter, nor what ends its line.
        let read = directory.clean().unwrap();
        assert!(read.is_none() || read.as_ref() == Some(&clean), "byte {at}");
        fs::write(&path, &sound[..at]).unwrap();
        let read = directory.clean().unwrap();
        assert!(read.is_none() || at + 1 == sound.len(), "cut to {at}");
    }
    directory.remove_clean().unwrap();
    directory.remove_clean().unwrap();
    assert_eq!(directory.clean().unwrap(), None);
}

#[test]
fn the_oldest_leave_quarantine_when_there_is_too_much() {
    let scratch = Scratch::new();
    let directory = open(&scratch).unwrap();
    directory.keep("first", b"damaged").unwrap();
    let quarantine = scratch.path().join("quarantine");
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + 1000 * day;
    for (name, days) in [("older", 1), ("old", 2), ("newer", 3)] {
        // Of holes, so that no room is taken.
        let file = File::create(quarantine.join(name)).unwrap();
        file.set_len(100 << 20).unwrap();
        file.set_modified(long_ago + days * day).unwrap();
    }
    directory.keep("last", b"damaged").unwrap();
    let mut left: Vec<_> = fs::read_dir(&quarantine)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.rsplit('-').next().unwrap().to_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["first", "last", "newer", "old"]);

    // What came last stays, however large it is.
    fs::create_dir(directory.generation(7)).unwrap();
    let file = File::create(directory.generation(7).join("db")).unwrap();
    file.set_len(1 << 30).unwrap();
    directory.set_aside_generation(7).unwrap();
    let left: Vec<_> = fs::read_dir(&quarantine)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.len() == 1 && left[0].ends_with("gen-7"), "{left:?}");
}

#[test]
fn the_ballast_takes_room_until_it_is_released() {
    let scratch = Scratch::new();
    let directory = open(&scratch).unwrap();
    let path = scratch.path().join("BALLAST");
    for _ in 0..2 {
        assert!(directory.ballast().take().unwrap());
        let taken = fs::metadata(&path).unwrap();
        assert!(taken.len() >= 512 << 10);
        assert!(taken.blocks() * 512 >= taken.len(), "it has holes");
    }
    directory.ballast().release();
    assert!(!path.exists());
    directory.ballast().release();
}

#[test]
fn a_generation_is_gone_in_one_step() {
    let scratch = Scratch::new();
    let directory = open(&scratch).unwrap();
    for number in [1, 2, 10] {
        fs::create_dir(directory.generation(number)).unwrap();
        fs::write(directory.generation(number).join("db"), "").unwrap();
    }
    fs::create_dir(scratch.path().join("gen-3.gone")).unwrap();
    assert_eq!(directory.generations().unwrap(), [1, 2, 10]);
    directory.remove_generation(2).unwrap();
    assert_eq!(directory.generations().unwrap(), [1, 10]);
    drop(directory);
    let directory = open(&scratch).unwrap();
    assert!(!scratch.path().join("gen-3.gone").exists());
    assert_eq!(directory.generations().unwrap(), [1, 10]);
}

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

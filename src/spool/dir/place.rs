//! What kind of file system a spool is on, and how much room that has.

use std::{io, path::Path};

/// What can be trusted to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A disk, as far as can be told.
    Disk,
    /// Gone with the machine.
    Memory(&'static str),
    /// Its locks and its syncs are another machine's.
    Network(&'static str),
}

#[cfg(target_os = "linux")]
pub(super) fn kind(path: &Path) -> io::Result<Kind> {
    Ok(of_type(rustix::fs::statfs(path)?.f_type as u32))
}

/// The numbers are those of statfs(2).
#[cfg(target_os = "linux")]
fn of_type(number: u32) -> Kind {
    match number {
        0x0102_1994 => Kind::Memory("tmpfs"),
        0x8584_58f6 => Kind::Memory("ramfs"),
        0x0000_6969 => Kind::Network("NFS"),
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => Kind::Network("SMB"),
        0x5346_414f => Kind::Network("AFS"),
        0x00c3_6400 => Kind::Network("Ceph"),
        0x0102_1997 => Kind::Network("9P"),
        _ => Kind::Disk,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn kind(_: &Path) -> io::Result<Kind> {
    Ok(Kind::Disk)
}

/// The room of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Space {
    /// What this user may still write.
    pub(in crate::spool) free: u64,
    pub(in crate::spool) total: u64,
}

impl Space {
    pub(in crate::spool) fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_known_by_its_number() {
        for (number, name) in [
            (rustix::fs::NFS_SUPER_MAGIC as u32, "NFS"),
            (0x517b, "SMB"),
            (0xff53_4d42, "SMB"),
            (0x00c3_6400, "Ceph"),
        ] {
            assert_eq!(of_type(number), Kind::Network(name));
        }
        assert_eq!(of_type(0x0102_1994), Kind::Memory("tmpfs"));
        // ext4, XFS and btrfs.
        for number in [0xef53, 0x5846_5342, 0x9123_683e] {
            assert_eq!(of_type(number), Kind::Disk);
        }
        assert_eq!(kind(Path::new("/proc")).unwrap(), Kind::Disk);
    }
}

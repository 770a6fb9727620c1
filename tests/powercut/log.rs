//! What the shim has written down.

use std::{fs, path::Path};

use bytes::{Buf as _, Bytes};

/// One entry of the log, in the order in which they happened.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Create {
        path: String,
        inode: u64,
    },
    Size {
        inode: u64,
        length: u64,
    },
    Write {
        inode: u64,
        offset: u64,
        bytes: Bytes,
    },
    Allocate {
        inode: u64,
        mode: u32,
        offset: u64,
        length: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
        inode: u64,
    },
    RemoveDir {
        path: String,
    },
    Sync {
        inode: u64,
    },
    SyncAll,
    /// Guarantees nothing.
    SyncRange,
    Note(String),
}

impl Entry {
    /// Names come and go.
    pub(crate) fn is_of_names(&self) -> bool {
        use Entry::{Create, Link, MakeDir, RemoveDir, Rename, Unlink};
        matches!(
            self,
            Create { .. }
                | Link { .. }
                | MakeDir { .. }
                | RemoveDir { .. }
                | Rename { .. }
                | Unlink { .. }
        )
    }
}

/// Reads a log. An entry that a kill has cut short is its end.
pub(crate) fn read(path: &Path) -> Vec<Entry> {
    let mut rest = Bytes::from(fs::read(path).unwrap_or_default());
    let mut entries = Vec::new();
    while rest.len() >= HEADER {
        let mut header = rest.split_to(HEADER);
        let [kind, mode, name, more] = [(); 4].map(|()| header.get_u32_le());
        let [inode, offset, length, size] = [(); 4].map(|()| header.get_u64_le());
        if (rest.len() as u64) < u64::from(name) + u64::from(more) + size {
            break;
        }
        let mut text = |length: u32| {
            String::from_utf8(rest.split_to(length as usize).to_vec()).expect("names are UTF-8")
        };
        let (path, to) = (text(name), text(more));
        let bytes = rest.split_to(size as usize);
        entries.push(match kind {
            1 => Entry::Create { path, inode },
            2 => Entry::Size { inode, length },
            3 => Entry::Write {
                inode,
                offset,
                bytes,
            },
            4 => Entry::Allocate {
                inode,
                mode,
                offset,
                length,
            },
            5 => Entry::Rename { from: path, to },
            6 => Entry::Unlink { path },
            7 => Entry::MakeDir { path, inode },
            8 => Entry::RemoveDir { path },
            9 => Entry::Sync { inode },
            10 => Entry::SyncAll,
            11 => Entry::SyncRange,
            12 => Entry::Note(path),
            13 => Entry::Link { from: path, to },
            _ => panic!("the log has an entry of kind {kind}"),
        });
    }
    entries
}

const HEADER: usize = 48;

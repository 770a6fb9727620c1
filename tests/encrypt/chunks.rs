//! Chunks in the raw files, by what `docs/spool-format.md` says of them.

use std::{fs, ops::Range, path::Path};

use memchr::memmem;

use crate::support::files;

const MAGIC: &[u8] = b"\x89seawall";
const WAITING: u8 = 1;

/// Where a chunk is.
pub(crate) struct Chunk {
    path: std::path::PathBuf,
    at: usize,
    pub(crate) number: u64,
}

/// The chunks with records that wait, of all generations. One can be there more than once.
pub(crate) fn chunks(dir: &Path) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (path, bytes) in files(dir) {
        if !path.ends_with("db") || path.to_string_lossy().contains("quarantine") {
            continue;
        }
        for at in memmem::find_iter(&bytes, MAGIC) {
            let value = &bytes[at..];
            let number = u64::from_le_bytes(value[48..56].try_into().unwrap());
            if value[9] == WAITING && checksum(&value[..length(value)]) == value[28..32] {
                chunks.push(Chunk {
                    path: path.clone(),
                    at,
                    number,
                });
            }
        }
    }
    chunks
}

impl Chunk {
    /// Changes it, and makes its checksum right again.
    pub(crate) fn alter(&self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = fs::read(&self.path).unwrap();
        let length = length(&bytes[self.at..]);
        let value = &mut bytes[self.at..self.at + length];
        change(value);
        let sum = checksum(value);
        value[28..32].copy_from_slice(&sum);
        fs::write(&self.path, bytes).unwrap();
    }

    /// Flips a bit, and leaves the checksum as it is.
    pub(crate) fn spoil(&self) {
        let mut bytes = fs::read(&self.path).unwrap();
        bytes[self.at + 150] ^= 1;
        fs::write(&self.path, bytes).unwrap();
    }
}

/// Flips a bit of the encrypted bytes of all chunks that begin with one of these numbers.
pub(crate) fn alter(dir: &Path, numbers: Range<u64>) {
    let mut altered = 0;
    for chunk in chunks(dir) {
        if numbers.contains(&chunk.number) {
            altered += 1;
            chunk.alter(|value| value[begin(value) + 30] ^= 1);
        }
    }
    assert!(altered > 0);
}

fn begin(value: &[u8]) -> usize {
    u16::from_le_bytes([value[12], value[13]]).into()
}

fn length(value: &[u8]) -> usize {
    begin(value) + u32::from_le_bytes(value[24..28].try_into().unwrap()) as usize
}

fn checksum(value: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&value[..28]);
    sum.update(&value[32..]);
    sum.finalize().to_le_bytes()
}

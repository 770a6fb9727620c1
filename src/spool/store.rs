//! Where chunks are kept. This is the only file that names sled.
//!
//! A [`Store`] does what it is told in three steps, apply, flush and sync, because what is certain
//! after each of them is what the spool's promise hangs on; the order is the business of
//! [`commit`](super::commit). sled 0.34.7 has faults that are fenced here, each where it says so.

#[cfg(test)]
pub(super) mod memory;

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::Path,
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    chunk::{Chunk, Key},
    dir::{Directory, failed},
    error::{OpenError, StoreError},
};

/// An ordered map on disk, used by one thread.
pub(super) trait Store {
    /// Makes all of the changes or, should the process die now, none.
    fn apply(&mut self, changes: Changes) -> Result<(), StoreError>;

    /// What was applied will survive the process.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// What was flushed will survive the machine.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Shows what is kept from `from` to `to`, both included, in the order of the keys, until told to
    /// stop.
    fn scan(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// The last key from `from` to `to`, both included.
    fn last(&self, from: Key, to: Key) -> Result<Option<Key>, StoreError>;

    /// The size of its files.
    fn disk_bytes(&self) -> Result<u64, StoreError>;
}

/// What one commit changes: first all removals, then all chunks. A chunk that is written again
/// under the key of a removed one is thus never lost.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) remove: Vec<Key>,
    pub(super) put: Vec<Chunk>,
}

/// sled, in a directory that is ours.
pub(super) struct SledStore {
    db: sled::Db,
    /// sled's file, held open for life so that the system reports every failed write-back to us.
    file: File,
    /// The last to go: nobody else may come in before sled has closed its files.
    _directory: Directory,
}

impl SledStore {
    /// Opens what is there, or makes it.
    pub(super) fn open(directory: Directory) -> Result<Self, OpenError> {
        let path = directory.generation();
        clear_remains(&path).map_err(failed("prepare", &path))?;
        let config = sled::Config::new()
            .path(&path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            // Its own flusher would only log that a sync has failed.
            .flush_every_ms(None);
        let db = patiently(|| config.open()).map_err(|error| unopened(error, &directory))?;
        let file = path.join("db");
        let file = File::open(&file).map_err(failed("open", &file))?;
        directory.sync()?;
        Ok(Self {
            db,
            file,
            _directory: directory,
        })
    }
}

impl Store for SledStore {
    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        let sizes = changes
            .put
            .iter()
            .map(|chunk| (chunk.key, chunk.value.len()));
        let sizes: Vec<(Key, usize)> = sizes.collect();
        if let ([], [only]) = (&*changes.remove, &*changes.put) {
            // Alone it needs no batch, which sled would write in two goes.
            let inserted = self.db.insert(only.key.as_ref(), only.value.as_slice());
            inserted.map_err(|error| unwritten(&error))?;
        } else {
            let mut batch = sled::Batch::default();
            for key in &changes.remove {
                batch.remove(key.as_ref());
            }
            for chunk in changes.put {
                batch.insert(chunk.key.as_ref(), chunk.value);
            }
            self.db
                .apply_batch(batch)
                .map_err(|error| unwritten(&error))?;
        }
        for (key, size) in sizes {
            self.age_cache(key.as_ref(), size);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| unwritten(&error))?;
        Ok(())
    }

    /// On Linux sled's flush ends in `sync_file_range`, which leaves the file's size and the disk's
    /// own cache to chance.
    fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| unwritten(&error))
    }

    /// Stops at the first error: sled's iterators repeat it for ever.
    fn scan(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for entry in self.db.range(from..=to) {
            let (key, value) = entry.map_err(|error| unread(&error))?;
            self.age_cache(&key, value.len());
            if visit(Key::parse(&key)?, Bytes::from_owner(value)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, from: Key, to: Key) -> Result<Option<Key>, StoreError> {
        match self.db.range(from..=to).next_back() {
            Some(entry) => Ok(Some(Key::parse(&entry.map_err(|error| unread(&error))?.0)?)),
            None => Ok(None),
        }
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let size = self.file.metadata().map(|file| file.len());
        size.map_err(|error| unread(&error))
    }
}

impl SledStore {
    /// Makes sled look at its cache as often as its size calls for.
    ///
    /// Each of its 256 shards evicts pages only after 64 accesses, however large these are. Pages of
    /// chunks are large and seldom accessed, so that some GB can gather: more accesses are made.
    fn age_cache(&self, key: &[u8], size: usize) {
        for _ in 0..size / BYTES_PER_ACCESS {
            let _ = self.db.contains_key(key);
        }
    }
}

/// 64 accesses are then 128 KiB, which is what one shard of the cache may hold.
const BYTES_PER_ACCESS: usize = 2048;

/// With it a page may take 2 MiB before sled writes it to a file of its own, which it never syncs
/// and rarely removes. It can never be changed for a store that exists.
const SEGMENT_BYTES: usize = 8 << 20;

const CACHE_BYTES: u64 = 32 << 20;

/// What a process killed inside sled's open leaves, and no later open could get past: a half
/// snapshot, which sled takes for the newest, and a half `conf` of a store that never held anything.
fn clear_remains(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .ends_with(b".generating")
        {
            fs::remove_file(entry.path())?;
        }
    }
    if fs::metadata(path.join("db")).map_or(0, |db| db.len()) == 0 {
        match fs::remove_file(path.join("conf")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a store whose last user in this process may not be quite gone.
///
/// sled has a lock of its own, which a child that is just being started can hold for a moment after
/// sled has closed. Nobody else can have it: the directory is ours.
#[allow(
    clippy::disallowed_methods,
    reason = "no lock of another's says when it is free, and this thread is the spool's own"
)]
fn patiently(open: impl Fn() -> sled::Result<sled::Db>) -> sled::Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    open()
}

const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn unopened(error: sled::Error, directory: &Directory) -> OpenError {
    match error {
        sled::Error::Io(source) => failed("open the store in", directory.path())(source),
        other => OpenError::Damaged {
            path: directory.path().into(),
            what: other.to_string(),
        },
    }
}

fn unwritten(error: &dyn Display) -> StoreError {
    StoreError::Unknown(error.to_string().into())
}

fn unread(error: &dyn Display) -> StoreError {
    StoreError::Unreadable(error.to_string().into())
}

//! The generation that is written to. This is the only file that names sled.

use std::{fmt::Display, fs::File, ops::Bound, path::Path, sync::Arc};

use bytes::Bytes;

use super::{Begin, Entry, contents::Contents};
use crate::spool::{
    chunk::{Chunk, Key, Kind, LaneId},
    dir::failed,
    error::{OpenError, StoreError},
};

/// A database of sled, opened once.
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) contents: Contents,
    db: sled::Db,
    /// sled's file, held open for life so that the system reports every failed write-back to us.
    file: File,
}

impl Active {
    /// Makes a new one at `path`, where nothing is yet.
    pub(super) fn create(number: u64, path: &Path) -> Result<Self, OpenError> {
        let config = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            // Its own flusher would only log that a sync has failed.
            .flush_every_ms(None);
        let db = config.open().map_err(|error| match error {
            sled::Error::Io(source) => failed("create a generation at", path)(source),
            other => failed("create a generation at", path)(std::io::Error::other(other)),
        })?;
        let file = path.join("db");
        let file = File::open(&file).map_err(failed("open", &file))?;
        Ok(Self {
            number,
            contents: Contents::default(),
            db,
            file,
        })
    }

    pub(super) fn apply(&mut self, chunks: Vec<Chunk>) -> Result<(), StoreError> {
        for chunk in &chunks {
            self.contents.add(chunk.key, chunk.records, chunk.bytes());
            if let Some(key) = chunk.encrypted_with() {
                self.contents.needs(key);
            }
        }
        let accesses: Vec<(Key, usize)> = chunks
            .iter()
            .map(|chunk| (chunk.key, chunk.value.len() / BYTES_PER_ACCESS))
            .collect();
        if let [only] = &*chunks {
            // Alone it needs no batch, which sled would write in two goes.
            let inserted = self.db.insert(only.key.as_ref(), only.value.as_slice());
            inserted.map_err(|error| unwritten(&error))?;
        } else {
            let mut batch = sled::Batch::default();
            for chunk in chunks {
                batch.insert(chunk.key.as_ref(), chunk.value);
            }
            self.db
                .apply_batch(batch)
                .map_err(|error| unwritten(&error))?;
        }
        for (key, times) in accesses {
            self.age_cache(key.as_ref(), times);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| unwritten(&error))?;
        Ok(())
    }

    /// On Linux sled's flush ends in `sync_file_range`, which leaves the file's size and the disk's
    /// own cache to chance.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| StoreError::unwritten(&error))
    }

    /// The next chunks of a lane. Stops at the first error: sled's iterators repeat it for ever.
    pub(super) fn page(
        &self,
        kind: Kind,
        lane: LaneId,
        begin: Begin,
        most: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let range = Key::range(kind, lane, 0, u64::MAX);
        let lower = match begin {
            Begin::After(key) => Bound::Excluded(key),
            Begin::At(number) => {
                let before = *range.start()..=range.start().with_number(number);
                match self.db.range(before).next_back() {
                    Some(entry) => {
                        let key = entry.map_err(|error| unread(&error))?.0;
                        Bound::Included(Key::parse(&key)?.first_part())
                    }
                    None => Bound::Included(*range.start()),
                }
            }
        };
        let mut page = Vec::new();
        for entry in self
            .db
            .range((lower, Bound::Included(*range.end())))
            .take(most)
        {
            let (key, value) = entry.map_err(|error| unread(&error))?;
            self.age_cache(&key, value.len() / BYTES_PER_ACCESS);
            page.push((Key::parse(&key)?, Bytes::from_owner(value)));
        }
        Ok(page)
    }

    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        let size = self.file.metadata().map(|file| file.len());
        size.map_err(|error| unread(&error))
    }

    /// Writes something small that is no chunk: see [`Store::poke`](super::Store::poke).
    pub(super) fn poke(&self) -> Arc<dyn Fn() + Send + Sync> {
        let db = self.db.clone();
        Arc::new(move || {
            // If it fails, so has what it was to wake up.
            let _ = db.insert(NO_KEY, &[]);
        })
    }

    /// Closes the database, and gives its file and what is in it.
    pub(super) fn seal(self) -> (u64, Contents, File) {
        drop(self.db);
        (self.number, self.contents, self.file)
    }

    /// Makes sled look at its cache as often as its size calls for.
    ///
    /// Each of its 256 shards evicts pages only after 64 accesses, however large these are. Pages of
    /// chunks are large and seldom accessed, so that some GB can gather: more accesses are made.
    fn age_cache(&self, key: &[u8], times: usize) {
        for _ in 0..times {
            let _ = self.db.contains_key(key);
        }
    }
}

/// 64 accesses are then 128 KiB, which is what one shard of the cache may hold.
const BYTES_PER_ACCESS: usize = 2048;

/// With it a page may take 1 MiB before sled writes it to a file of its own, which it never syncs.
const SEGMENT_BYTES: usize = 4 << 20;

/// Behind the keys of all kinds.
const NO_KEY: [u8; 1] = [0xff];

const CACHE_BYTES: u64 = 32 << 20;

fn unwritten(error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => StoreError::unwritten(error),
        other => StoreError::Unknown(other.to_string().into()),
    }
}

fn unread(error: &dyn Display) -> StoreError {
    StoreError::Unreadable(error.to_string().into())
}

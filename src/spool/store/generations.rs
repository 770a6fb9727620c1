//! The real store: one generation to append to, and those before it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io,
    ops::{ControlFlow, RangeInclusive},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Live, Opened, Reclaim, Store,
    active::Active,
    carve::{Amiss, carve},
    contents::Contents,
    merge::{Pages, Source, merge},
    sealed::Sealed,
};
use crate::spool::{
    audit::Audit,
    chunk::{Chunk, Key, Kind, LaneId, SpoolId, Voids},
    crypt::{KeyId, Ring},
    dir::{Clean, Directory, Space, failed},
    error::{OpenError, StoreError, is_full},
};

/// Opens the store of a directory, as often as it has to be.
#[derive(Debug)]
pub(in crate::spool) struct Opener {
    pub(in crate::spool) directory: Arc<Directory>,
    /// What cannot be read is an error, and stays where it is.
    pub(in crate::spool) strict: bool,
    /// How large the file of a generation gets before the next one is begun.
    pub(in crate::spool) generation_bytes: u64,
    pub(in crate::spool) ring: Arc<Ring>,
}

impl Opener {
    /// Reads all there is.
    pub(in crate::spool) fn open(&self) -> Result<Opened<Generations>, OpenError> {
        let directory = &self.directory;
        let clean = directory.clean()?;
        let numbers = directory.generations()?;
        let mut audit = Audit::default();
        let mut id = directory.id();
        let (mut sealed, mut empty, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let mut unreadable = Vec::new();
        for number in &numbers {
            let path = directory.generation(*number);
            match Carved::read(&path, &mut id, &self.ring, &mut audit) {
                Ok(Some(carved)) => {
                    damaged.extend(carved.broken.iter().map(|offset| (*number, *offset)));
                    if clean.is_none() {
                        // What is seen may be in the system's memory only, and is relied on from here on.
                        let synced = carved.file.sync_data();
                        synced.map_err(failed("sync", &path))?;
                    }
                    let found = Sealed::new(
                        *number,
                        carved.contents,
                        carved.file,
                        carved.id,
                        self.ring.clone(),
                    );
                    let mut found = found.map_err(failed("look at", &path))?;
                    found.commits = carved.commits;
                    found.unread = carved.unread;
                    sealed.push(found);
                }
                Ok(None) => empty.push(*number),
                Err(error) if self.strict => return Err(failed("read", &path)(error)),
                Err(error) => {
                    tracing::error!(?path, %error, "a generation of the spool cannot be read");
                    unreadable.push(*number);
                }
            }
        }
        let id = id.unwrap_or_else(SpoolId::fresh);
        let set_aside = unreadable.len() as u64;
        let store = Generations {
            directory: directory.clone(),
            id,
            generation_bytes: self.generation_bytes,
            next: numbers.last().map_or(1, |last| last + 1),
            sealed,
            active: None,
            empty,
            unreadable,
            damaged,
            ring: self.ring.clone(),
            awake: RefCell::default(),
        };
        Ok(Opened {
            store,
            audit,
            clean,
            id,
            set_aside,
        })
    }
}

/// A generation that has been read.
struct Carved {
    file: File,
    contents: Contents,
    commits: RangeInclusive<u64>,
    broken: Vec<u64>,
    unread: u64,
    id: SpoolId,
}

impl Carved {
    /// `None` if there is no chunk in it. With no `id` to go by, that of the first chunk counts.
    fn read(
        path: &Path,
        id: &mut Option<SpoolId>,
        ring: &Ring,
        audit: &mut Audit,
    ) -> io::Result<Option<Self>> {
        let file = match File::open(path.join("db")) {
            // A generation that was never written to.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut known = *id;
        let mut is_empty = true;
        let Amiss { broken, unread } = carve(&file, *id, ring, |_, frame| {
            if *known.get_or_insert(frame.spool) == frame.spool {
                is_empty = false;
                audit.see(&frame);
            }
        })?;
        *id = known;
        let found = audit.end_generation();
        let mut contents = Contents::default();
        let (mut first, mut last) = (u64::MAX, 0);
        for chunk in found {
            contents.add(chunk.key, chunk.count, chunk.bytes.into());
            first = first.min(chunk.commit);
            last = last.max(chunk.commit);
            if let Some(key) = chunk.encrypted_with {
                contents.needs(key);
            }
        }
        Ok(known
            .filter(|_| !is_empty || !broken.is_empty())
            .map(|id| Self {
                file,
                contents,
                commits: first..=last,
                broken,
                unread,
                id,
            }))
    }
}

fn create(directory: &Directory, number: u64) -> Result<Active, OpenError> {
    directory.check()?;
    let path = directory.generation(number);
    let active = match Active::create(number, &path) {
        Err(OpenError::Io { source, .. }) if is_full(&source) => {
            directory.ballast().release();
            // What the first try has left is not to be opened.
            let _ = std::fs::remove_dir_all(&path);
            Active::create(number, &path)?
        }
        created => created?,
    };
    directory.sync(number)?;
    Ok(active)
}

pub(in crate::spool) struct Generations {
    directory: Arc<Directory>,
    id: SpoolId,
    generation_bytes: u64,
    /// The number of the next generation.
    next: u64,
    /// The oldest first.
    sealed: Vec<Sealed>,
    /// There from the beginning on, but for a moment of the roll-over.
    active: Option<Active>,
    /// Generations that were found with nothing in them.
    empty: Vec<u64>,
    /// Those that could not be read.
    unreadable: Vec<u64>,
    /// Where something was found that is no chunk any more, or never was a whole one.
    damaged: Vec<(u64, u64)>,
    /// Those that were read from last, by their number: they know where their chunks are.
    awake: RefCell<Vec<u64>>,
    ring: Arc<Ring>,
}

impl Generations {
    fn active(&mut self) -> Result<&mut Active, StoreError> {
        self.active.as_mut().ok_or_else(no_generation)
    }

    fn sources(&self, kind: Kind, lane: LaneId, from: u64) -> Vec<Source<'_>> {
        let sealed = self.sealed.iter().filter_map(move |sealed| {
            let first = sealed.contents.first(kind, lane, from)?;
            let pages: Pages<'_> = Box::new(move |begin| {
                self.wake(sealed.number);
                sealed.page(kind, lane, begin, PAGE)
            });
            let generation = sealed.number;
            Some(Source {
                generation,
                first,
                pages,
            })
        });
        let active = self.active.iter().filter_map(move |active| {
            let first = active.contents.first(kind, lane, from)?;
            let pages: Pages<'_> = Box::new(move |begin| active.page(kind, lane, begin, PAGE));
            let generation = active.number;
            Some(Source {
                generation,
                first,
                pages,
            })
        });
        active.chain(sealed).collect()
    }

    fn contents(&self) -> impl Iterator<Item = &Contents> {
        let sealed = self.sealed.iter().map(|sealed| &sealed.contents);
        sealed.chain(self.active.iter().map(|active| &active.contents))
    }

    /// A new generation takes what is written from here on.
    fn go_on(&mut self) -> Result<(), OpenError> {
        let number = self.next;
        self.next += 1;
        self.active = Some(create(&self.directory, number)?);
        Ok(())
    }

    /// It is read from: it may know where its chunks are, and some of the others have to forget.
    fn wake(&self, number: u64) {
        let mut awake = self.awake.borrow_mut();
        if awake.last() == Some(&number) {
            return;
        }
        awake.retain(|other| *other != number);
        awake.push(number);
        let known = |number: &u64| self.sealed.iter().find(|sealed| sealed.number == *number);
        let mut places: usize = awake.iter().filter_map(known).map(Sealed::places).sum();
        while places > MOST_PLACES && awake.len() > 1 {
            if let Some(tired) = known(&awake.remove(0)) {
                places -= tired.places();
                tired.rest();
            }
        }
    }
}

impl Store for Generations {
    fn begin(&mut self, voids: &Voids) -> Result<(), OpenError> {
        let voids = Arc::new(voids.clone());
        for sealed in &mut self.sealed {
            if voids.meet(&sealed.commits) {
                let path = self.directory.generation(sealed.number);
                let left_out = sealed.leave_out(&voids);
                left_out.map_err(|error| failed("read", &path)(io::Error::other(error)))?;
            }
        }
        self.directory.remove_clean()?;
        if self.directory.id().is_none() {
            self.directory.restore_id(self.id)?;
        }
        for number in std::mem::take(&mut self.unreadable) {
            self.directory.set_aside_generation(number)?;
        }
        for number in std::mem::take(&mut self.empty) {
            self.directory.remove_generation(number)?;
        }
        self.go_on()
    }

    fn apply(&mut self, chunks: Vec<Chunk>) -> Result<(), StoreError> {
        self.active()?.apply(chunks)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.active()?.flush()
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.active()?.sync()
    }

    fn scan(
        &self,
        kind: Kind,
        lane: LaneId,
        from: u64,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        merge(self.sources(kind, lane, from), from, visit)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.size).sum();
        match &self.active {
            Some(active) => Ok(sealed + active.disk_bytes()?),
            None => Ok(sealed),
        }
    }

    fn space(&self) -> Option<Space> {
        self.directory.space().ok()
    }

    fn roll_over(&mut self) -> Result<bool, StoreError> {
        let active = self.active.as_ref().ok_or_else(no_generation)?;
        if active.disk_bytes()? < self.generation_bytes {
            return Ok(false);
        }
        if let Some(full) = self.active.take() {
            let (number, contents, file) = full.seal();
            let sealed = Sealed::new(number, contents, file, self.id, self.ring.clone())
                .map_err(|error| StoreError::unwritten(&error))?;
            self.sealed.push(sealed);
        }
        self.go_on().map_err(|error| undone(&error))?;
        Ok(true)
    }

    fn reclaimable(&self, live: &dyn Live) -> Option<Reclaim> {
        let sealed = self.sealed.iter();
        let sizes = sealed.map(|sealed| (sealed.number, sealed.size, &sealed.contents));
        let active = self.active.as_ref().map(|active| &active.contents);
        let sizes: Vec<_> = sizes.collect();
        let taken = self.disk_bytes().unwrap_or(0);
        Reclaim::plan(
            &sizes,
            active,
            taken.saturating_sub(self.generation_bytes),
            self.generation_bytes / 4,
            live,
        )
    }

    fn reclaim(&mut self, reclaim: &Reclaim, live: &dyn Live) -> Result<(), StoreError> {
        let at = self
            .sealed
            .iter()
            .position(|it| it.number == reclaim.generation);
        let Some(at) = at else { return Ok(()) };
        if reclaim.copy {
            let chunks = self.sealed[at].live(live)?;
            if !chunks.is_empty() {
                self.apply(chunks)?;
                self.flush()?;
                self.sync()?;
            }
        }
        // It is not read from again, whatever becomes of its directory.
        let sealed = self.sealed.remove(at);
        self.awake
            .borrow_mut()
            .retain(|number| *number != sealed.number);
        let removed = self.directory.remove_generation(sealed.number);
        removed.map_err(|error| undone(&error))
    }

    fn poke(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        self.active.as_ref().map(Active::poke)
    }

    fn keep_damaged(&mut self) -> u64 {
        // What is missing may have been in a file of which nothing is left but its length.
        let (directory, empty) = (&self.directory, &mut self.empty);
        empty.retain(|number| {
            let file = std::fs::metadata(directory.generation(*number).join("db"));
            let was_written = file.is_ok_and(|file| file.len() > BARE_BYTES);
            !was_written || directory.set_aside_generation(*number).is_err()
        });
        let kept = self.damaged.iter().filter(|(number, offset)| {
            let sealed = self.sealed.iter().find(|sealed| sealed.number == *number);
            let bytes = sealed.and_then(|sealed| sealed.raw(*offset).ok());
            bytes.is_some_and(|bytes| {
                let name = format!("gen-{number}-{offset}.chunk");
                self.directory.keep(&name, &bytes).is_ok()
            })
        });
        kept.count() as u64
    }

    fn keys(&self) -> BTreeSet<KeyId> {
        self.contents().flat_map(Contents::keys).collect()
    }

    fn has(&self, lane: LaneId) -> bool {
        self.contents().any(|contents| contents.has(lane))
    }

    fn release_ballast(&self) {
        self.directory.ballast().release();
    }

    fn take_ballast(&self) -> bool {
        self.directory.ballast().take().unwrap_or(false)
    }

    fn close(mut self, clean: &Clean) -> Result<(), StoreError> {
        if let Some(active) = self.active.take() {
            active.seal();
        }
        let written = self.directory.write_clean(clean);
        written.map_err(|error| undone(&error))
    }
}

fn no_generation() -> StoreError {
    StoreError::Unknown("there is no generation to write to".into())
}

fn undone(error: &OpenError) -> StoreError {
    match error {
        OpenError::Io { source, .. } if is_full(source) => {
            StoreError::NoRoom(error.to_string().into())
        }
        OpenError::Io { source, .. } => StoreError::Unknown(format!("{error}: {source}").into()),
        other => StoreError::Unknown(other.to_string().into()),
    }
}

/// sled's file is no longer than that before a chunk is in it.
const BARE_BYTES: u64 = 256;

/// How many chunks are read at a time.
const PAGE: usize = 32;

/// Of so many chunks it is known where they are: some 10 MB of memory.
const MOST_PLACES: usize = 200_000;

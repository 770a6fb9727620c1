//! The real store: one generation to append to, and those before it.

use std::{cell::RefCell, fs::File, io, ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Live, Opened, Reclaim, Store,
    active::Active,
    carve::carve,
    contents::Contents,
    merge::{Pages, Source, merge},
    sealed::Sealed,
};
use crate::spool::{
    audit::{Audit, Voids},
    chunk::{Chunk, Key, Kind, LaneId, SpoolId},
    dir::{Clean, Directory, Space, failed},
    error::{OpenError, StoreError},
};

/// Opens the store of a directory, as often as it has to be.
#[derive(Debug)]
pub(in crate::spool) struct Opener {
    pub(in crate::spool) directory: Arc<Directory>,
    /// What cannot be read is an error, and stays where it is.
    pub(in crate::spool) strict: bool,
    /// How large the file of a generation gets before the next one is begun.
    pub(in crate::spool) generation_bytes: u64,
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
        let mut set_aside = 0;
        for number in &numbers {
            let path = directory.generation(*number);
            match Carved::read(&path, &mut id, &mut audit) {
                Ok(Some(carved)) => {
                    damaged.extend(carved.broken.iter().map(|offset| (*number, *offset)));
                    let found = Sealed::new(*number, carved.contents, carved.file, carved.id);
                    sealed.push(found.map_err(failed("look at", &path))?);
                }
                Ok(None) => empty.push(*number),
                Err(error) if self.strict => return Err(failed("read", &path)(error)),
                Err(error) => {
                    tracing::error!(?path, %error, "a generation of the spool cannot be read");
                    directory.set_aside_generation(*number)?;
                    set_aside += 1;
                }
            }
        }
        let id = id.unwrap_or_else(SpoolId::fresh);
        let store = Generations {
            directory: directory.clone(),
            id,
            generation_bytes: self.generation_bytes,
            next: numbers.last().map_or(1, |last| last + 1),
            sealed,
            active: None,
            empty,
            damaged,
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
    broken: Vec<u64>,
    id: SpoolId,
}

impl Carved {
    /// `None` if there is no chunk in it. With no `id` to go by, that of the first chunk counts.
    fn read(path: &Path, id: &mut Option<SpoolId>, audit: &mut Audit) -> io::Result<Option<Self>> {
        let file = match File::open(path.join("db")) {
            // A generation that was never written to.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut known = *id;
        let mut is_empty = true;
        let broken = carve(&file, *id, |_, frame| {
            if *known.get_or_insert(frame.spool) == frame.spool {
                is_empty = false;
                audit.see(&frame);
            }
        })?;
        *id = known;
        let found = audit.end_generation();
        let mut contents = Contents::default();
        for chunk in found {
            contents.add(chunk.key, chunk.count, chunk.bytes.into());
        }
        Ok(known.filter(|_| !is_empty || !broken.is_empty()).map(|id| Self {
            file,
            contents,
            broken,
            id,
        }))
    }
}

fn create(directory: &Directory, number: u64) -> Result<Active, OpenError> {
    let path = directory.generation(number);
    let active = match Active::create(number, &path) {
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
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
    /// Where something was found that is no chunk any more, or never was a whole one.
    damaged: Vec<(u64, u64)>,
    /// Those that were read from last, by their number: they know where their chunks are.
    awake: RefCell<Vec<u64>>,
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

    /// A new generation takes what is written from here on.
    fn go_on(&mut self) -> Result<(), OpenError> {
        let number = self.next;
        self.next += 1;
        self.active = Some(create(&self.directory, number)?);
        Ok(())
    }

    fn wake(&self, number: u64) {
        let mut awake = self.awake.borrow_mut();
        awake.retain(|other| *other != number);
        awake.push(number);
        if awake.len() > MOST_AWAKE {
            let tired = awake.remove(0);
            if let Some(sealed) = self.sealed.iter().find(|sealed| sealed.number == tired) {
                sealed.rest();
            }
        }
    }
}

impl Store for Generations {
    fn begin(&mut self, voids: &Voids) -> Result<(), OpenError> {
        let voids = Arc::new(voids.clone());
        for sealed in &mut self.sealed {
            sealed.leave_out(voids.clone());
        }
        self.directory.remove_clean()?;
        if self.directory.id().is_none() {
            self.directory.restore_id(self.id)?;
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
            let sealed =
                Sealed::new(number, contents, file, self.id).map_err(|error| unwritten(&error))?;
            self.sealed.push(sealed);
        }
        self.go_on().map_err(|error| unwritten(&error))?;
        Ok(true)
    }

    fn reclaimable(&self, live: &dyn Live) -> Option<Reclaim> {
        let (at, bytes) = self
            .sealed
            .iter()
            .map(|sealed| (sealed, sealed.contents.live_bytes(live)))
            .enumerate()
            .find(|(_, (sealed, bytes))| {
                let share = if self.sealed.len() > MANY {
                    1
                } else {
                    COPY_SHARE
                };
                *bytes <= (sealed.size / share).min(COPY_BYTES)
            })
            .map(|(at, (_, bytes))| (at, bytes))?;
        let (going, copy) = (&self.sealed[at], bytes > 0);
        // What is copied has stamps of long ago, and those of younger generations may be copies, too.
        let others = || {
            let sealed = self.sealed.iter().filter(|it| it.number != going.number);
            let sealed = sealed.map(|sealed| &sealed.contents);
            sealed.chain(self.active.iter().map(|active| &active.contents))
        };
        let lanes = going.contents.lanes();
        let lanes = lanes.filter(|lane| copy || others().any(|contents| contents.has(*lane)));
        let older = &self.sealed[..at];
        let gone = older.iter().flat_map(|sealed| sealed.contents.gone(live));
        Some(Reclaim {
            generation: going.number,
            copy,
            others_stay: copy || others().any(|contents| !contents.is_empty()),
            lanes: lanes.collect(),
            gone: gone.collect(),
        })
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
        removed.map_err(|error| unwritten(&error))
    }

    fn poke(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        self.active.as_ref().map(Active::poke)
    }

    fn keep_damaged(&self) -> u64 {
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

    fn has(&self, lane: LaneId) -> bool {
        let sealed = self.sealed.iter().map(|sealed| &sealed.contents);
        let mut all = sealed.chain(self.active.iter().map(|active| &active.contents));
        all.any(|contents| contents.has(lane))
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
        written.map_err(|error| unwritten(&error))
    }
}

fn no_generation() -> StoreError {
    StoreError::Unknown("there is no generation to write to".into())
}

fn unwritten(error: &dyn std::error::Error) -> StoreError {
    let mut said = error.to_string();
    if let Some(source) = error.source() {
        said = format!("{said}: {source}");
    }
    StoreError::Unknown(said.into())
}

/// How many chunks are read at a time.
const PAGE: usize = 32;

/// A generation of which less than this part is wanted is copied,
const COPY_SHARE: u64 = 8;
/// but not more than fits into one write.
const COPY_BYTES: u64 = 8 << 20;
/// From so many on, each of which is an open file, any of that size is.
const MANY: usize = 16;

/// How many generations know where their chunks are.
const MOST_AWAKE: usize = 4;

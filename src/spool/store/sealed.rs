//! A generation that is not written to any more, read without sled.

use std::{cmp::Reverse, fs::File, io, ops::RangeInclusive, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Begin, Entry, Live, carve::carve, contents::Contents};
use crate::spool::{
    chunk::{Chunk, Frame, Key, Kind, LONGEST, LaneId, SpoolId, Voids},
    crypt::Ring,
    error::StoreError,
};

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    count: u32,
    length: u32,
    offset: u64,
}

impl Place {
    /// What it costs on disk.
    fn bytes(&self) -> u64 {
        Key::LEN as u64 + u64::from(self.length)
    }
}

pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) contents: Contents,
    pub(super) size: u64,
    /// The commits that were found in it when it was opened.
    pub(super) commits: RangeInclusive<u64>,
    /// How many sectors could not be read when what is in it was counted.
    pub(super) unread: u64,
    file: File,
    id: SpoolId,
    /// What was written by these commits is not shown.
    voids: Arc<Voids>,
    ring: Arc<Ring>,
    /// Made when it is first read from, in the order of the keys.
    index: Mutex<Option<Arc<[Place]>>>,
}

impl Sealed {
    pub(super) fn new(
        number: u64,
        contents: Contents,
        file: File,
        id: SpoolId,
        ring: Arc<Ring>,
    ) -> io::Result<Self> {
        Ok(Self {
            number,
            contents,
            size: file.metadata()?.len(),
            file,
            id,
            commits: 0..=0,
            unread: 0,
            voids: Arc::default(),
            ring,
            index: Mutex::new(None),
        })
    }

    /// What was written by these commits is not wanted, and not shown any more.
    pub(super) fn leave_out(&mut self, voids: &Arc<Voids>) -> Result<(), StoreError> {
        self.voids = Arc::clone(voids);
        self.rest();
        let mut contents = self.contents.only_told();
        for place in &*self.index()? {
            contents.add(place.key, place.count, place.bytes());
        }
        self.contents = contents;
        Ok(())
    }

    /// The next chunks of a lane.
    pub(super) fn page(
        &self,
        kind: Kind,
        lane: LaneId,
        begin: Begin,
        most: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let index = self.index()?;
        let range = Key::range(kind, lane, 0, u64::MAX);
        let first = match begin {
            Begin::After(key) => index.partition_point(|place| place.key <= key),
            Begin::At(number) => {
                let at = range.start().with_number(number);
                let behind = index.partition_point(|place| place.key <= at);
                let before = index[..behind].last().map(|place| place.key);
                let before = before.filter(|key| range.contains(key));
                let lower = before.map_or(*range.start(), |key| key.first_part());
                index.partition_point(|place| place.key < lower)
            }
        };
        let places = index[first..].iter().take(most);
        places
            .take_while(|place| range.contains(&place.key))
            .map(|place| Ok((place.key, self.read(place)?)))
            .collect()
    }

    /// The chunks that are still wanted, as they were written.
    pub(super) fn live(&self, live: &dyn Live) -> Result<Vec<Chunk>, StoreError> {
        let index = self.index()?;
        let wanted = index.iter().filter(|place| {
            let (lane, first) = (place.key.lane(), place.key.number());
            match place.key.kind() {
                Kind::Waiting => {
                    first.saturating_add(u64::from(place.count.max(1)) - 1) > live.done(lane)
                }
                Kind::Parked => live.is_parked(lane, first),
                Kind::Mark | Kind::Gone => false,
            }
        });
        wanted
            .map(|place| {
                let value = self.read(place)?;
                Frame::parse(place.key, &value)?;
                Ok(Chunk {
                    key: place.key,
                    value: value.into(),
                    records: place.count,
                })
            })
            .collect()
    }

    /// As many bytes as a chunk may have.
    pub(super) fn raw(&self, offset: u64) -> io::Result<Vec<u8>> {
        let length = (self.size.saturating_sub(offset)).min(LONGEST as u64);
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Of how many chunks it knows where they are.
    pub(super) fn places(&self) -> usize {
        self.index.lock().as_ref().map_or(0, |index| index.len())
    }

    /// Forgets where the chunks are, until they are asked for again.
    pub(super) fn rest(&self) {
        *self.index.lock() = None;
    }

    fn read(&self, place: &Place) -> Result<Bytes, StoreError> {
        let mut value = vec![0; place.length as usize];
        self.file
            .read_exact_at(&mut value, place.offset)
            .map_err(|error| unread(&error))?;
        Ok(value.into())
    }

    fn index(&self) -> Result<Arc<[Place]>, StoreError> {
        let mut index = self.index.lock();
        if let Some(index) = &*index {
            return Ok(index.clone());
        }
        let mut found = Vec::new();
        let amiss = carve(&self.file, Some(self.id), &self.ring, |offset, frame| {
            let holds_records = matches!(frame.key.kind(), Kind::Waiting | Kind::Parked);
            if holds_records && self.voids.let_count_frame(&frame) {
                let place = Place {
                    key: frame.key,
                    count: frame.count,
                    length: (frame.bytes - Key::LEN as u64) as u32,
                    offset,
                };
                found.push(Candidate {
                    place,
                    parts: frame.parts,
                    commit: frame.stamp.commit,
                });
            }
        })
        .map_err(|error| unread(&error))?;
        if amiss.unread > self.unread {
            // What was there would look as if it were done with, and later records would go first.
            return Err(StoreError::Unreadable(
                "a part of the spool's file cannot be read".into(),
            ));
        }
        let made: Arc<[Place]> = whole(found).into();
        *index = Some(made.clone());
        Ok(made)
    }
}

/// Something that begins a place, if all of its parts are there.
#[derive(Clone, Copy)]
struct Candidate {
    place: Place,
    parts: u16,
    commit: u64,
}

/// The places of which all parts are there, in the order of the keys; of those that were written again the
/// newest.
fn whole(mut found: Vec<Candidate>) -> Vec<Place> {
    found.sort_unstable_by_key(|it| {
        let (commit, part) = (Reverse(it.commit), it.place.key.part());
        (it.place.key.first_part(), commit, part)
    });
    found.dedup_by_key(|it| (it.place.key, it.commit));
    let mut places = Vec::with_capacity(found.len());
    for same in found.chunk_by(|a, b| a.place.key.first_part() == b.place.key.first_part()) {
        let mut written = same.chunk_by(|a, b| a.commit == b.commit);
        let whole = written.find(|parts| parts.len() == usize::from(parts[0].parts));
        places.extend(whole.into_iter().flatten().map(|part| part.place));
    }
    places
}

fn unread(error: &io::Error) -> StoreError {
    StoreError::Unreadable(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::spool::dir::tests::Scratch;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_what_is_not_there() {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path()).unwrap();
        let path = scratch.path().join("db");
        std::fs::write(&path, [7; 10_000]).unwrap();
        // One that is only open for writing stands for a disk that can't read.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let id = SpoolId::from_bytes(*b"inmemory");
        let contents = Contents::default();
        let sealed = Sealed::new(1, contents, file, id, Arc::default()).unwrap();
        let page = sealed.page(Kind::Waiting, LaneId::fresh(), Begin::At(1), 1);
        assert!(matches!(page, Err(StoreError::Unreadable(_))));
    }
}

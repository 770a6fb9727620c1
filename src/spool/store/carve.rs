//! Finds chunks in a raw file, whatever is around them.
//!
//! A chunk says by itself what it is, how long, and whether it is whole. sled writes each value in one
//! piece, uncompressed, and moves whole pages about, so that most chunks are found more than once, each
//! as good as the others.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::Bytes;
use memchr::memmem;

use crate::spool::{
    chunk::{FIXED, Frame, LONGEST, MAGIC, SpoolId, whole_length},
    crypt::Ring,
};

/// What is amiss with a raw file.
#[derive(Debug, Default)]
pub(super) struct Amiss {
    /// Where there is something that begins like a chunk and is none, or none any more.
    pub(super) broken: Vec<u64>,
    /// How many sectors could not be read.
    pub(super) unread: u64,
}

/// Shows each sound chunk of the spool `id`, or of any, where it begins and what it is.
///
/// What is inside of a sound chunk is its payload, and not looked at. Memory: one window, unless the visitor
/// keeps a frame.
///
/// # Errors
///
/// Nothing of it can be read.
pub(super) fn carve(
    file: &File,
    id: Option<SpoolId>,
    ring: &Ring,
    mut visit: impl FnMut(u64, Frame),
) -> io::Result<Amiss> {
    let size = file.metadata()?.len();
    let finder = memmem::Finder::new(&MAGIC);
    let mut amiss = Amiss::default();
    let mut offset = 0;
    let mut room = Vec::new();
    let (mut readable, mut unreadable) = (false, None);
    while offset < size {
        let length = WINDOW.min(usize::try_from(size - offset).unwrap_or(WINDOW));
        let (window, failure) = read(file, offset, length, room, &mut amiss.unread);
        readable |= failure.is_none();
        unreadable = failure.or(unreadable);
        let is_last = offset + window.len() as u64 >= size;
        let mut at = 0;
        let next = loop {
            let Some(found) = finder.find(&window[at..]) else {
                // The magic may begin at the very end.
                break (window.len() + 1).saturating_sub(MAGIC.len()).max(at);
            };
            at += found;
            match look(&window, at) {
                Look::Whole(value) => match Frame::find(&value) {
                    Ok(frame) if id.is_some_and(|id| id != frame.spool) => at += value.len(),
                    Ok(frame) if ring.takes(&frame) => {
                        visit(offset + at as u64, frame);
                        at += value.len();
                    }
                    Ok(_) | Err(_) => {
                        note(&mut amiss.broken, offset + at as u64);
                        at += MAGIC.len();
                    }
                },
                Look::CutOff if !is_last => break at,
                Look::CutOff | Look::Nothing => {
                    note(&mut amiss.broken, offset + at as u64);
                    at += MAGIC.len();
                }
            }
        };
        if is_last {
            break;
        }
        offset += next as u64;
        // The same memory again: large pieces that come and go are not given back by every allocator.
        room = window.into();
    }
    match unreadable {
        Some(error) if !readable => Err(error),
        _ => Ok(amiss),
    }
}

enum Look {
    /// As many bytes as its header says.
    Whole(Bytes),
    /// It goes on behind the window.
    CutOff,
    Nothing,
}

fn look(window: &Bytes, at: usize) -> Look {
    let Some(head) = window[at..].first_chunk::<FIXED>() else {
        return Look::CutOff;
    };
    match whole_length(head) {
        Ok(length) if at + length <= window.len() => Look::Whole(window.slice(at..at + length)),
        Ok(_) => Look::CutOff,
        Err(_) => Look::Nothing,
    }
}

/// What can't be read is taken for zeros: one bad sector costs the chunk it is in. Gives the reason as well if
/// nothing can.
fn read(
    file: &File,
    offset: u64,
    length: usize,
    mut window: Vec<u8>,
    unread: &mut u64,
) -> (Bytes, Option<io::Error>) {
    window.resize(length, 0);
    if file.read_exact_at(&mut window, offset).is_ok() {
        return (window.into(), None);
    }
    let (mut readable, mut failure) = (false, None);
    for (sector, at) in window.chunks_mut(SECTOR).zip((offset..).step_by(SECTOR)) {
        match file.read_exact_at(sector, at) {
            Ok(()) => readable = true,
            Err(error) => {
                sector.fill(0);
                *unread += 1;
                failure = Some(error);
            }
        }
    }
    if !readable {
        tracing::warn!(offset, length, "a part of the spool's file cannot be read");
    }
    (window.into(), failure.filter(|_| !readable))
}

fn note(broken: &mut Vec<u64>, offset: u64) {
    if broken.len() < MOST_BROKEN {
        broken.push(offset);
    }
}

const WINDOW: usize = 4 << 20;
const SECTOR: usize = 4096;
const MOST_BROKEN: usize = 1000;

const _: () = assert!(
    WINDOW > 2 * LONGEST,
    "a window holds a chunk wherever it begins"
);

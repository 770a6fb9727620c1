//! Exactly the sound chunks of a spool are found, wherever in a file they are and whatever is around.

use std::{fs::File, os::unix::fs::FileExt as _};

use proptest::prelude::*;

use super::{super::carve, *};
use crate::spool::{chunk::MAGIC, crypt::Ring, dir::tests::Scratch};

/// Something in a file.
#[derive(Clone, Debug)]
enum Piece {
    /// A chunk of this spool with a record of that size.
    Chunk(usize),
    /// The same, quoted whole by the record of another.
    Quoted(usize),
    /// The same, of another spool.
    Foreign(usize),
    /// The same, with one byte changed; which one is a matter of chance.
    Spoilt(usize, prop::sample::Index),
    /// The same, of which only the begin is there.
    Torn(usize, prop::sample::Index),
    Zeros(usize),
    Noise(Vec<u8>),
    /// It looks as if a chunk began.
    Magic,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let size = || prop_oneof![5 => 0..300usize, 1 => 0..32_000usize];
    let piece = prop_oneof![
        4 => size().prop_map(Piece::Chunk),
        1 => size().prop_map(Piece::Quoted),
        1 => size().prop_map(Piece::Foreign),
        1 => (size(), any::<prop::sample::Index>()).prop_map(|(size, at)| Piece::Spoilt(size, at)),
        1 => (size(), any::<prop::sample::Index>()).prop_map(|(size, at)| Piece::Torn(size, at)),
        1 => (0..5000usize).prop_map(Piece::Zeros),
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Piece::Noise),
        1 => Just(Piece::Magic),
    ];
    prop::collection::vec(piece, 0..30)
}

fn chunk(id: SpoolId, number: u64, record: &[u8]) -> Vec<u8> {
    let mut made = commit(id, number, chunks(LaneId::NONE, number, &[record]));
    assert_eq!(made.len(), 1, "one that fits into a chunk");
    made.remove(0).value
}

const OTHER: SpoolId = SpoolId::from_bytes(*b"another!");

/// A file of `bytes` from `at` on, with zeros before.
fn file(scratch: &Scratch, at: u64, bytes: &[u8]) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch.path())
        .unwrap();
    file.write_all_at(bytes, at).unwrap();
    file
}

fn found(file: &File, id: Option<SpoolId>) -> (Vec<(u64, u64)>, Vec<u64>) {
    let mut found = Vec::new();
    let broken = carve::carve(file, id, &Ring::default(), |offset, frame| {
        assert!(id.is_none_or(|id| frame.spool == id));
        found.push((offset, frame.key.number()));
    });
    (found, broken.unwrap().broken)
}

struct RemoveFile<'a>(&'a Scratch);

impl Drop for RemoveFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.path());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_the_sound_chunks_of_the_spool_are_found(
        pieces in pieces(),
        // Around where the first window ends.
        begin in prop_oneof![Just(0u64), (4 << 20) - 40_000..(4u64 << 20)],
    ) {
        let mut bytes = Vec::new();
        let mut sound = Vec::new();
        let mut looks_broken = 0;
        for (piece, number) in pieces.iter().zip(1..) {
            let at = begin + bytes.len() as u64;
            match piece {
                Piece::Chunk(size) => {
                    sound.push((at, number));
                    bytes.extend(chunk(ID, number, &vec![7; *size]));
                }
                Piece::Quoted(size) => {
                    sound.push((at, number));
                    let quoted = chunk(ID, 1000 + number, &vec![8; size / 2]);
                    bytes.extend(chunk(ID, number, &quoted));
                }
                Piece::Foreign(size) => bytes.extend(chunk(OTHER, number, &vec![7; *size])),
                Piece::Spoilt(size, index) => {
                    let mut spoilt = chunk(ID, number, &vec![7; *size]);
                    let at = index.index(spoilt.len());
                    spoilt[at] ^= 0x10;
                    looks_broken += u64::from(at >= MAGIC.len());
                    bytes.extend(spoilt);
                }
                Piece::Torn(size, index) => {
                    let torn = chunk(ID, number, &vec![7; *size]);
                    let end = index.index(torn.len());
                    looks_broken += u64::from(end >= MAGIC.len());
                    bytes.extend(&torn[..end]);
                    // So that what follows does not make it whole.
                    bytes.extend([0; 4]);
                }
                Piece::Zeros(count) => bytes.extend(vec![0; *count]),
                Piece::Noise(noise) => bytes.extend(noise),
                Piece::Magic => {
                    looks_broken += 1;
                    bytes.extend(MAGIC);
                }
            }
        }
        let scratch = Scratch::new();
        let file = file(&scratch, begin, &bytes);
        let _remove = RemoveFile(&scratch);
        let (found, broken) = found(&file, Some(ID));
        prop_assert_eq!(found, sound);
        prop_assert_eq!(broken.len() as u64, looks_broken);
    }
}

#[test]
fn a_chunk_is_found_wherever_it_is_about_the_end_of_a_window() {
    const WINDOW: u64 = 4 << 20;
    let scratch = Scratch::new();
    let _remove = RemoveFile(&scratch);
    let long = chunk(ID, 1, &[5; 32_000]);
    let short = chunk(ID, 2, b"short");
    let both = [long, short.clone()].concat();
    let behind = (both.len() - short.len()) as u64;
    let begins = (0..200).chain(behind - 20..behind + short.len() as u64 + 20);
    for before in begins.step_by(7) {
        for more in [0, 5 << 20] {
            let at = WINDOW - before;
            let file = file(&scratch, at, &both);
            file.set_len(at + both.len() as u64 + more).unwrap();
            let (found, broken) = found(&file, Some(ID));
            assert_eq!(
                found,
                [(at, 1), (at + behind, 2)],
                "{before} before the end"
            );
            assert!(broken.is_empty());
        }
    }
}

#[test]
fn without_an_id_the_chunks_of_every_spool_are_shown() {
    let scratch = Scratch::new();
    let _remove = RemoveFile(&scratch);
    let bytes = [chunk(ID, 1, b"a"), chunk(OTHER, 2, b"b")].concat();
    let file = file(&scratch, 0, &bytes);
    assert_eq!(found(&file, None).0.len(), 2);
    assert_eq!(found(&file, Some(OTHER)).0.len(), 1);
}

#[test]
fn what_cannot_be_read_at_all_is_an_error() {
    // A directory opens like a file, and reading it fails.
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path()).unwrap();
    let directory = File::open(scratch.path()).unwrap();
    assert!(carve::carve(&directory, Some(ID), &Ring::default(), |_, _| {}).is_err());
}

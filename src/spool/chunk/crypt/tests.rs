//! What is encrypted is read back with its key, and in no other way.

use bytes::Bytes;
use proptest::prelude::*;

use super::{super::*, *};
use crate::spool::{Key as Secret, Keys, crypt::Ring};

fn ring(id: u32, seed: u8) -> Ring {
    let keys = Keys::single(id, Secret::from_bytes([seed; 32]));
    Ring::new(Some(keys), false).unwrap()
}

fn lane() -> LaneId {
    LaneId::from_bytes(*b"\x01\x90sixteen bytes.")
}

fn stamped(mut chunks: Vec<Chunk>, ring: &Ring) -> Vec<Chunk> {
    ring.encrypt(&mut chunks).unwrap();
    for chunk in &mut chunks {
        chunk.stamp(SpoolId::fresh(), &Stamp::default());
    }
    chunks
}

/// Encrypted and stamped.
fn written(records: &[Vec<u8>], ring: &Ring) -> Vec<Chunk> {
    let overhead = ring.overhead();
    let mut writer = Writer::new(lane(), "emails", 7, 6, 1_700_000_000_000, overhead);
    for record in records {
        writer.push_if(|buffer| buffer.extend_from_slice(record), |_| true);
    }
    stamped(writer.finish(), ring)
}

fn read(chunks: Vec<Chunk>, ring: &Ring) -> Result<Vec<Whole>, Damaged> {
    let mut gather = Gather::default();
    let mut whole = Vec::new();
    for chunk in chunks {
        let frame = Frame::parse(chunk.key, &chunk.value.into())?;
        assert!(ring.takes(&frame));
        whole.extend(gather.push(ring.decrypt(frame)?)?);
    }
    gather.finish()?;
    Ok(whole)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_went_in(
        sizes in prop::collection::vec(
            prop_oneof![8 => 0..1024_usize, 2 => LONGEST - 300..LONGEST + 100, 1 => 0..250_000_usize],
            0..20,
        ),
    ) {
        let ring = ring(1, 1);
        let records: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
        let chunks = written(&records, &ring);
        prop_assert!(chunks.iter().all(|chunk| chunk.value.len() <= LONGEST));
        prop_assert!(chunks.iter().all(|chunk| chunk.encrypted_with() == Some(1)));
        let whole = read(chunks, &ring).unwrap();
        let back = whole.into_iter().flat_map(|whole| Held::of(whole).unwrap().records);
        prop_assert_eq!(back.collect::<Vec<_>>(), records);
    }

    #[test]
    fn a_parked_record_comes_back_and_takes_what_it_says(size in prop_oneof![0..2_000_usize, 0..200_000_usize]) {
        let ring = ring(1, 1);
        let parked = Parked {
            lane: lane(),
            number: 9,
            queue: "emails".into(),
            reason: "WRONGTYPE".into(),
            parked_ms: 1_700_000_000_001,
            attempts: 3,
            record: vec![5; size].into(),
            overhead: ring.overhead(),
        };
        let chunks = stamped(parked.encode(), &ring);
        let bytes: u64 = chunks.iter().map(Chunk::bytes).sum();
        prop_assert_eq!(bytes, parked.bytes());
        prop_assert!(chunks.iter().all(|chunk| chunk.value.len() <= LONGEST));
        let whole = read(chunks, &ring).unwrap().remove(0);
        prop_assert_eq!(Parked::of(whole).unwrap(), parked);
    }

    /// The checksum is put right behind each change, which anybody can do.
    #[test]
    fn whatever_the_tag_proves_cannot_be_changed(bit in 0..8_u8, all_or_nothing: bool, at: prop::sample::Index) {
        let ring = ring(1, 1);
        let overhead = ring.overhead();
        let mut writer = Writer::new(lane(), "emails", 7, 6, 1_700_000_000_000, overhead)
            .with_refused(3);
        writer.push_if(|buffer| buffer.extend_from_slice(b"one"), |_| true);
        writer.push_if(|buffer| buffer.extend_from_slice(b"two"), |_| true);
        let mut chunks = writer.finish();
        if all_or_nothing {
            chunks = chunks.into_iter().map(Chunk::all_or_nothing).collect();
        }
        let value = stamped(chunks, &ring).remove(0).value;
        let stamp = [28..32, 72..80, 88..132];
        let proven: Vec<usize> = (0..value.len())
            .filter(|at| !stamp.iter().any(|range| range.contains(at)))
            .collect();
        // Each byte of the header and of the name in every case, and some of the body.
        let header = proven.iter().take_while(|at| **at < FIXED + 6);
        for at in header.chain([at.get(&proven)]) {
            let mut value = value.clone();
            value[*at] ^= 1 << bit;
            put_right(&mut value);
            let read = Frame::find(&value.into());
            // What says that it is not encrypted gives no record that was.
            let in_clear = read.as_ref().is_ok_and(|frame| frame.encrypted_with().is_none());
            let read = read.and_then(|frame| ring.decrypt(frame));
            match read {
                Ok(frame) if in_clear => {
                    let held = Held::of(Gather::default().push(frame).unwrap().unwrap());
                    prop_assert!(held.is_err(), "byte {}", at);
                }
                read => prop_assert!(read.is_err(), "byte {}", at),
            }
        }
        // And the stamp can.
        for at in stamp.into_iter().flatten() {
            let mut value = value.clone();
            value[at] ^= 1 << bit;
            put_right(&mut value);
            prop_assert!(Frame::find(&value.into()).and_then(|frame| ring.decrypt(frame)).is_ok());
        }
    }

    #[test]
    fn nonsense_that_says_it_is_encrypted_is_damaged_and_no_panic(
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let header = Header {
            kind: Kind::Waiting,
            lane: lane(),
            queue: "q",
            written_ms: 0,
            acknowledged: 0,
            refused: 0,
        };
        let mut value = header.begin(body.len());
        value.extend_from_slice(&body);
        let mut value = header.seal(value, 1, 1, 0, 1).value;
        header::set_flag(&mut value, header::ENCRYPTED);
        field::KEY.put(&mut value, 1_u32.to_le_bytes());
        put_right(&mut value);
        let frame = Frame::find(&value.into()).unwrap();
        let ring = ring(1, 1);
        prop_assert!(ring.takes(&frame));
        prop_assert!(ring.decrypt(frame).is_err());
    }
}

#[test]
fn another_key_under_the_same_id_reads_nothing() {
    let chunks = written(&[b"one".to_vec()], &ring(1, 1));
    assert!(read(chunks, &ring(1, 2)).is_err());
}

#[test]
fn no_nonce_comes_twice() {
    let ring = ring(1, 1);
    let mut nonces: Vec<_> = (0..1000)
        .map(|_| written(&[Vec::new()], &ring)[0].value[FIXED + 6..][..NONCE].to_vec())
        .collect();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 1000);
}

/// The format of version 1, encrypted. This may never change: there are disks with it.
#[test]
fn version_1_is_these_bytes() {
    let cipher = Cipher::new(0x0403_0201, &Secret::from_bytes([7; 32]));
    let mut writer = Writer::new(lane(), "emails", 7, 6, 1_700_000_000_000, NONCE + TAG);
    writer.push_if(|buffer| buffer.extend_from_slice(b"first"), |_| true);
    let mut chunk = writer.finish().remove(0);
    chunk.encrypt(&cipher, &[9; NONCE]);
    let value = Bytes::from(chunk.value);
    assert_eq!(value[10..12], [2, 0], "flags");
    assert_eq!(value[24..28], [24 + 9 + 16, 0, 0, 0], "length of the body");
    assert_eq!(value[84..88], [1, 2, 3, 4], "key");
    assert_eq!(value[FIXED + 6..][..NONCE], [9; NONCE]);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    // Made by another implementation, from what docs/spool-format.md says.
    let expected = "bb72e28a1ac30b1180737b3533b6d91e794487c2b7ed47b7a2";
    assert_eq!(hex(&value[FIXED + 6 + NONCE..]), expected);
}

fn put_right(value: &mut [u8]) {
    let (head, after) = value.split_first_chunk::<FIXED>().unwrap();
    let sum = checksum(head, after);
    field::CHECKSUM.put(value, sum.to_le_bytes());
}

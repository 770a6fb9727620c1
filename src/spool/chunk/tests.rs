//! The format: what was written is read back, and nothing else is.

use proptest::prelude::*;

use super::*;

const SPOOL: SpoolId = SpoolId::from_bytes(*b"an id of");

const STAMP: Stamp = Stamp {
    commit: 3,
    chunks: 1,
    waiting: 12,
    parked: 4,
    lane_waiting: 8,
    done: 5,
};

/// Small ones, some of about a chunk's length, and some that take several.
fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![
        8 => 0..1024usize,
        1 => LONGEST - 100..LONGEST + 100,
        1 => 0..250 * 1024usize,
    ];
    let record = (size, any::<u8>()).prop_map(|(size, seed)| {
        let bytes = (0..size).map(|at| (at as u8).wrapping_mul(31) ^ seed);
        bytes.collect()
    });
    prop::collection::vec(record, 0..40)
}

fn lane() -> LaneId {
    LaneId::from_bytes(*b"\x01\x90sixteen bytes.")
}

fn written(first: u64, records: &[Vec<u8>]) -> Vec<(Key, Bytes, u32)> {
    let mut writer =
        Writer::new(lane(), "emails", first, first - 1, 1_700_000_000_000, 0).with_refused(2);
    for record in records {
        assert!(writer.push_if(|buffer| buffer.extend_from_slice(record), |_| true));
    }
    stamped(writer)
}

fn stamped(writer: Writer) -> Vec<(Key, Bytes, u32)> {
    let chunks = writer.finish().into_iter();
    chunks
        .map(|mut chunk| {
            chunk.stamp(SPOOL, &STAMP);
            (chunk.key, chunk.value.into(), chunk.records)
        })
        .collect()
}

fn held(chunks: &[(Key, Bytes, u32)]) -> Vec<Held> {
    let mut gather = Gather::default();
    let whole = chunks.iter().filter_map(|(key, value, _)| {
        let frame = Frame::parse(*key, value).unwrap();
        gather
            .push(frame)
            .unwrap()
            .map(|whole| Held::of(whole).unwrap())
    });
    let held = whole.collect();
    gather.finish().unwrap();
    held
}

/// A small chunk of two records.
fn sample() -> (Key, Vec<u8>) {
    let chunks = written(7, &[b"first".to_vec(), b"2nd".to_vec()]);
    let [(key, value, _)] = &chunks[..] else {
        panic!("two small records are one chunk");
    };
    (*key, value.to_vec())
}

fn parked(record: Vec<u8>) -> Parked {
    Parked {
        lane: lane(),
        number: 9,
        queue: "emails".into(),
        reason: "WRONGTYPE Operation against a key".into(),
        parked_ms: 1_700_000_000_001,
        attempts: 3,
        record: record.into(),
        overhead: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_went_in(records in records(), first in 1..u64::MAX / 2) {
        let chunks = written(first, &records);
        let keys: Vec<Key> = chunks.iter().map(|(key, ..)| *key).collect();
        prop_assert!(keys.is_sorted());
        prop_assert!(chunks.iter().all(|(_, value, _)| value.len() <= LONGEST));
        let counted: u32 = chunks.iter().map(|(.., records)| records).sum();
        prop_assert_eq!(counted as usize, records.len());

        let mut next = first;
        let mut back = Vec::new();
        let held = held(&chunks);
        for held in &held {
            prop_assert_eq!(held.first, next);
            prop_assert_eq!(&held.queue, "emails");
            prop_assert_eq!(held.written_ms, 1_700_000_000_000);
            prop_assert_eq!(held.refused, 2);
            back.extend(held.records.iter().map(|record| record.to_vec()));
            next = held.end();
        }
        prop_assert_eq!(back, records);
    }

    #[test]
    fn a_parked_record_comes_back_with_its_reason(size in prop_oneof![0..1024usize, 0..300_000usize]) {
        let parked = parked(vec![5; size]);
        let mut gather = Gather::default();
        let mut back = None;
        for mut chunk in parked.encode() {
            chunk.stamp(SPOOL, &STAMP);
            prop_assert!(back.is_none() && chunk.value.len() <= LONGEST);
            let frame = Frame::parse(chunk.key, &chunk.value.into()).unwrap();
            back = gather.push(frame).unwrap();
        }
        prop_assert_eq!(Parked::of(back.unwrap()).unwrap(), parked);
    }

    #[test]
    fn anything_at_all_can_be_parsed_without_a_panic(
        mut value in prop::collection::vec(any::<u8>(), 0..200),
        key in any::<[u8; Key::LEN]>(),
        honest in any::<bool>(),
    ) {
        let sample = sample();
        let key = Key::parse(&key).unwrap_or(sample.0);
        if honest {
            // As far as the magic and the kind: what comes after is what is tried.
            let length = value.len().min(field::KIND + 1);
            value[..length].copy_from_slice(&sample.1[..length]);
        }
        prop_assert!(Frame::parse(key, &value.into()).is_err());
    }

    #[test]
    fn a_sound_chunk_of_nonsense_is_damaged_and_no_panic(
        body in prop::collection::vec(any::<u8>(), 1..100),
        count in any::<u32>(),
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
        let mut chunk = header.seal(value, 1, count, 0, 1);
        chunk.stamp(SPOOL, &STAMP);
        if let Ok(frame) = Frame::parse(chunk.key, &chunk.value.into()) {
            let whole = || Gather::default().push(frame.clone()).unwrap().unwrap();
            let _ = Held::of(whole());
            let _ = Parked::of(whole());
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (key, value) = sample();
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Frame::parse(key, &flipped.into()).is_err(),
            "bit {bit} of the value"
        );
    }
    for bit in 0..Key::LEN * 8 {
        let mut flipped = key.as_ref().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let parsed = Key::parse(&flipped).and_then(|key| Frame::parse(key, &value.clone().into()));
        assert!(parsed.is_err(), "bit {bit} of the key");
    }
}

#[test]
fn a_chunk_torn_anywhere_or_grown_is_noticed() {
    let (key, value) = sample();
    for end in 0..value.len() {
        let cut = Bytes::copy_from_slice(&value[..end]);
        assert!(Frame::parse(key, &cut).is_err(), "cut to {end} bytes");
        let mut zeroed = value.clone();
        zeroed[end..].fill(0);
        if zeroed != value {
            assert!(
                Frame::parse(key, &zeroed.into()).is_err(),
                "zeros from {end}"
            );
        }
    }
    let grown = [&*value, &[0]].concat();
    assert!(Frame::parse(key, &grown.into()).is_err());
}

#[test]
fn a_missing_part_is_noticed() {
    let chunks = written(1, &[vec![1; 250 * 1024], vec![2; 250 * 1024]]);
    for missing in 0..chunks.len() {
        let mut gather = Gather::default();
        let rest = chunks.iter().enumerate().filter(|(at, _)| *at != missing);
        let pushed = rest
            .map(|(_, (key, value, _))| gather.push(Frame::parse(*key, value).unwrap()))
            .find(Result::is_err);
        assert!(
            pushed.is_some() || gather.finish().is_err(),
            "part {missing}"
        );
    }
}

#[test]
fn a_record_that_spoils_its_buffer_spoils_no_other() {
    let mut writer = Writer::new(lane(), "q", 1, 0, 0, 0);
    writer.push_if(|buffer| buffer.extend_from_slice(b"one"), |_| true);
    let spoil = |buffer: &mut Vec<u8>| {
        buffer.clear();
        buffer.shrink_to_fit();
    };
    writer.push_if(spoil, |_| true);
    writer.push_if(|buffer| buffer.extend_from_slice(b"three"), |_| true);
    assert_eq!(held(&stamped(writer))[0].records, ["one", "", "three"]);
}

/// The format of version 1. This may never change: there are disks with it.
#[test]
fn version_1_is_these_bytes() {
    let (key, value) = sample();
    assert_eq!(
        hex(key.as_ref()),
        "01 01907369787465656e2062797465732e 0000000000000007 0000".replace(' ', "")
    );
    let expected = [
        "8973656177616c6c", // magic
        "01",               // version
        "01",               // kind: waiting
        "0000",             // flags
        "8a00",             // header: 138 bytes
        "0600",             // queue: 6 bytes
        "0000",             // part
        "0100",             // parts
        "02000000",         // count
        "10000000",         // body: 16 bytes
        "cd4f4eba",         // checksum
        "01907369787465656e2062797465732e",
        "0700000000000000", // first
        "0068e5cf8b010000", // written
        "0600000000000000", // acknowledged
        "616e206964206f66", // spool
        "02000000",         // refused
        "00000000",
        "0300000000000000", // commit
        "0c00000000000000", // waiting
        "0400000000000000", // parked
        "0800000000000000", // of the lane
        "0500000000000000", // done
        "01000000",         // chunks
        "656d61696c73",     // emails
        "05000000",
        "6669727374", // first
        "03000000",
        "326e64", // 2nd
    ];
    assert_eq!(hex(&value), expected.concat());

    let parked = parked(b"job".to_vec()).encode();
    let body = "03000000 21000000".replace(' ', "");
    let value = hex(&parked[0].value);
    assert_eq!(&value[..24], "8973656177616c6c01020000");
    assert_eq!(&value[2 * 138..2 * 146], body);
    assert!(value.ends_with("6a6f62"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_lanes_id_sorts_by_when_it_was_made_and_ends_in_dice_of_the_systems() {
    let ids: Vec<LaneId> = (0..1000).map(|_| LaneId::fresh()).collect();
    assert!(ids.is_sorted());
    let ends: std::collections::BTreeSet<[u8; 4]> = ids
        .iter()
        .filter_map(|id| id.to_bytes()[12..].try_into().ok())
        .collect();
    assert!(ends.len() > 990);
}

//! What is restored is what was there, whatever the order, the pages and the repetitions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::spool::dir::tests::Scratch;

fn lane(number: u8) -> LaneId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    LaneId::from_bytes(bytes)
}

fn record(of: u8, number: u64, parked: bool) -> Record {
    let size = if number.is_multiple_of(7) {
        70_000
    } else {
        number as usize
    };
    Record {
        lane: lane(of),
        queue: format!("queue-{of}"),
        number,
        acknowledged: u64::from(of),
        // Neighbours may have been written at one time or at two.
        written: time(1_000 + number / 3),
        refusal: parked.then(|| Refusal {
            reason: format!("because of {number}"),
            attempts: 2,
        }),
        known_as: (of == TAIL).then(|| KnownAs {
            lane: lane(9),
            number: number + 100,
        }),
        bytes: vec![of; size].into(),
    }
}

/// The lane that is a tail.
const TAIL: u8 = 3;

async fn waiting(spool: &Stopped) -> Vec<Record> {
    let mut all = Vec::new();
    for lane in spool.lanes() {
        let mut next = 0;
        loop {
            let page = spool.read(lane.id, next).await.unwrap();
            let Some(last) = page.last() else { break };
            next = last.number + 1;
            all.extend(page);
        }
    }
    all
}

async fn parked(spool: &Stopped) -> Vec<Record> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = spool.parked(after).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.id());
        all.extend(page.into_iter().map(Into::into));
    }
}

/// Its lane and number, and whether it is parked. Nothing of a tail is.
fn a_record() -> impl Strategy<Value = (u8, u64, bool)> {
    let drawn = (0..=TAIL, 1..40_u64, any::<bool>());
    drawn.prop_map(|(of, number, parked)| (of, number, parked && of != TAIL))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a map. What was parked first does not come back as one that waits.
    #[test]
    fn restoring_in_any_order_and_twice_gives_the_same(
        pages in proptest::collection::vec(
            proptest::collection::vec(a_record(), 0..30),
            1..5,
        ),
        reopens in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let (mut waits, mut refused) = (BTreeMap::new(), BTreeMap::new());
        let scratch = Scratch::new();
        runtime().block_on(async {
            let mut spool = Stopped::create(scratch.path()).await.unwrap();
            for (page, reopen) in pages.iter().zip(reopens) {
                let records: Vec<_> = page
                    .iter()
                    .map(|(of, number, parked)| record(*of, *number, *parked))
                    .collect();
                let mut written = 0;
                for (&(of, number, is_parked), record) in page.iter().zip(&records) {
                    // Parked numbers of a lane are never its acknowledged ones again.
                    let at = (of, number);
                    let new = if is_parked {
                        refused.insert(at, Record { acknowledged: 0, ..record.clone() }).is_none()
                    } else {
                        !refused.contains_key(&at) && waits.insert(at, record.clone()).is_none()
                    };
                    written += u64::from(new);
                }
                let present = records.len() as u64 - written;
                prop_assert_eq!(spool.restore(records).await.unwrap(), Restored { written, present });
                if reopen {
                    spool.close().await.unwrap();
                    spool = Stopped::open(scratch.path()).await.unwrap();
                }
            }
            spool.close().await.unwrap();
            let spool = Stopped::open(scratch.path()).await.unwrap();
            prop_assert_eq!(waiting(&spool).await, waits.into_values().collect::<Vec<_>>());
            prop_assert_eq!(parked(&spool).await, refused.into_values().collect::<Vec<_>>());
            spool.close().await.unwrap();
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_no_spool_can_have_held_is_refused_as_a_whole() {
    let scratch = Scratch::new();
    let mut spool = Stopped::create(scratch.path()).await.unwrap();
    let good = || record(1, 1, false);
    let reason = "r".repeat(70_000);
    let refusal = Some(Refusal {
        reason,
        attempts: 1,
    });
    for bad in [
        Record {
            number: 0,
            ..good()
        },
        Record {
            number: u64::MAX,
            ..good()
        },
        Record {
            acknowledged: u64::MAX,
            ..good()
        },
        Record {
            queue: "q".repeat(2_000),
            ..good()
        },
        Record {
            queue: "other".to_owned(),
            number: 2,
            ..good()
        },
        Record { refusal, ..good() },
        Record {
            queue: "\0tail of queue-1".to_owned(),
            ..good()
        },
        Record {
            known_as: record(TAIL, 1, false).known_as,
            number: 2,
            ..good()
        },
        Record {
            known_as: record(TAIL, 1, false).known_as,
            ..record(2, 1, true)
        },
    ] {
        let refused = spool.restore(vec![good(), bad]).await.unwrap_err();
        assert!(matches!(refused, Unrestorable::Invalid { .. }), "{refused}");
    }
    spool.close().await.unwrap();
    let spool = Stopped::open(scratch.path()).await.unwrap();
    assert_eq!((spool.lanes(), spool.contents().parked), (&[][..], 0));
}

#[tokio::test]
async fn opening_makes_nothing_where_nothing_was() {
    let scratch = Scratch::new();
    for _ in 0..2 {
        let refusal = Stopped::open(scratch.path()).await.unwrap_err();
        let OpenError::Io { source, .. } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        look(scratch.path()).unwrap_err();
        std::fs::create_dir_all(scratch.path()).unwrap();
    }
    assert!(is_empty(scratch.path()));
}

#[tokio::test]
async fn looking_disturbs_nobody() {
    let scratch = Scratch::new();
    let spool = Stopped::create(scratch.path()).await.unwrap();
    let seen = look(scratch.path()).unwrap();
    assert!(seen.format.is_some() && seen.files > 1 && seen.disk_bytes > 0 && seen.free_bytes > 0);
    assert_eq!(seen.owner, rustix::process::geteuid().as_raw());
    spool.close().await.unwrap();
}

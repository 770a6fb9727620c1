//! What is left on disk, and what comes back from it.

use std::fs;

use proptest::prelude::*;
use seawall::chaos::wait_until;

use crate::support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn records_of_any_size_come_back_after_a_restart(
        sizes in prop::collection::vec(
            prop_oneof![4 => 0..2_000_usize, 2 => 32_400..32_700_usize, 1 => 60_000..400_000_usize],
            1..12,
        ),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let open = Open::new(encrypted(dir.path()), Far::Out).await.unwrap();
            let notes: Vec<_> = (0..).zip(&sizes).map(|(number, size)| Note::of_size(number, *size)).collect();
            open.spool(notes.clone()).await;
            let bytes = open.spool.stats().bytes;
            open.close().await;
            let open = Open::new(encrypted(dir.path()), Far::Out).await.unwrap();
            // What was reserved for them is what they take.
            assert_eq!(open.spool.stats().bytes, bytes);
            assert!(!open.spool.recovery().has_loss());
            open.close().await;
            let mut back = deliver(encrypted(dir.path())).await;
            back.sort_by_key(|note| note.0[PAYLOAD.len()]);
            assert!(back == notes);
        });
    }
}

/// Waiting, parked with their reasons, in a file that is damaged, in one that is copied forward.
#[tokio::test]
async fn no_byte_of_a_payload_or_of_a_reason_is_in_any_file() {
    for (keys, is_there) in [(None, true), (Some(keys()), false)] {
        let dir = tempfile::tempdir().unwrap();
        let with = || {
            let options = options(dir.path());
            match keys.clone() {
                Some(keys) => options.with_keys(keys),
                None => options,
            }
        };
        leave(with(), 0..20).await;
        let open = Open::new(with(), Far::Refuses).await.unwrap();
        wait_until("all to be parked", PLENTY, async || {
            open.spool.stats().parked == 20
        })
        .await
        .unwrap();
        let parked = open.spool.parked(100).await.unwrap();
        assert!(parked.iter().all(|parked| parked.reason().contains(REASON)));
        let records = parked.iter().map(|parked| Note(parked.record().to_vec()));
        assert_eq!(records.collect::<Vec<_>>(), notes(0..20));
        open.close().await;
        leave(with(), 20..40).await;
        // A file of which some chunks are damaged, so that they go to quarantine.
        for (path, mut bytes) in files(dir.path()) {
            if path.ends_with("db") {
                let middle = bytes.len() / 3;
                bytes[middle..]
                    .iter_mut()
                    .step_by(997)
                    .for_each(|byte| *byte ^= 1);
                fs::write(path, bytes).unwrap();
            }
        }
        let open = Open::new(with(), Far::Out).await.unwrap();
        open.spool(notes(40..60)).await;
        assert_eq!(!files_with(dir.path(), PAYLOAD).is_empty(), is_there);
        assert_eq!(
            !files_with(dir.path(), REASON.as_bytes()).is_empty(),
            is_there
        );
        open.close().await;
        let quarantined = files(&dir.path().join("quarantine"));
        assert!(!quarantined.is_empty(), "the damage was found");
        assert_eq!(!files_with(dir.path(), PAYLOAD).is_empty(), is_there);
        // What is told in clear.
        assert!(!files_with(dir.path(), QUEUE.as_bytes()).is_empty());
        assert!(files_with(dir.path(), &[1; 32]).is_empty(), "the key");
    }
}

/// A kill leaves the files as they are at that moment, and a power cut less of the last one.
#[tokio::test]
async fn a_crash_costs_no_record_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::new(encrypted(dir.path()), Far::Out).await.unwrap();
    for number in 0..30 {
        open.spool([Note::new(number)]).await;
    }
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    assert_eq!(deliver(encrypted(killed.path())).await, notes(0..30));

    open.spool([Note::of_size(30, 100_000)]).await;
    let all = tempfile::tempdir().unwrap();
    copy(dir.path(), all.path());
    let file = all.path().join("gen-1/db");
    let whole = fs::read(&file).unwrap();
    // The tail that the long record took, torn anywhere.
    for torn in [1, 1_000, 20_000, 40_000, 90_000] {
        let cut = tempfile::tempdir().unwrap();
        copy(all.path(), cut.path());
        let mut bytes = whole.clone();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[used - torn..].fill(0);
        fs::write(cut.path().join("gen-1/db"), bytes).unwrap();
        let back = deliver(encrypted(cut.path())).await;
        assert_eq!(back[..30], notes(0..30), "{torn} bytes");
        assert!(back.len() <= 31);
    }
}

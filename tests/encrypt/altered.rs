//! Somebody has been at the files, and has made the checksums right again.

use std::ops::Range;

use seawall::{
    chaos::wait_until,
    spool::{OpenError, Spool},
};

use crate::{
    chunks::{alter, chunks},
    support::*,
};

/// What is altered is reported, kept in quarantine, and not delivered; the lane goes on behind it.
async fn costs_itself(altered: Range<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..20).await;
    // Numbers begin with 1.
    alter(path, altered.start + 1..altered.end + 1);
    let expected = notes((0..20).filter(|number| !altered.contains(number)));
    let lost = altered.end - altered.start;

    let strict = Spool::<Note>::open(encrypted(path).with_strict(true)).await;
    assert!(
        matches!(strict, Err(OpenError::Loss { records, .. }) if records == lost),
        "{strict:?}"
    );
    let far = Far::takes();
    let open = Open::new(encrypted(path), far.clone()).await.unwrap();
    wait_until("the rest to arrive", PLENTY, async || {
        far.taken().len() == expected.len()
    })
    .await
    .unwrap();
    open.drained().await;
    assert_eq!(far.taken(), expected);
    let recovery = open.spool.recovery();
    assert_eq!(recovery.lost, lost);
    assert_eq!(
        recovery.lanes.iter().map(|lane| lane.records).sum::<u64>(),
        lost
    );
    assert!(recovery.damaged_chunks >= lost);
    open.close().await;
    assert!(!files(&path.join("quarantine")).is_empty());
    // It takes new ones, and has nothing more to report.
    leave(encrypted(path), 20..21).await;
    let open = Open::new(encrypted(path), Far::Out).await.unwrap();
    assert!(!open.spool.recovery().has_loss());
    open.close().await;
    assert_eq!(deliver(encrypted(path)).await, notes(20..21));
}

#[tokio::test]
async fn an_altered_chunk_at_the_front_costs_itself() {
    costs_itself(0..1).await;
}

#[tokio::test]
async fn altered_chunks_in_the_middle_cost_themselves() {
    costs_itself(7..12).await;
}

#[tokio::test]
async fn an_altered_chunk_at_the_end_costs_itself() {
    costs_itself(19..20).await;
}

#[tokio::test]
async fn a_chunk_under_another_number_is_not_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..5).await;
    for chunk in chunks(path) {
        if chunk.number == 2 {
            // Behind all others, where nothing is missed.
            chunk.alter(|value| value[48..56].copy_from_slice(&6_u64.to_le_bytes()));
        }
    }
    let far = Far::takes();
    let open = Open::new(encrypted(path), far.clone()).await.unwrap();
    wait_until("the rest to arrive", PLENTY, async || {
        far.taken().len() == 4
    })
    .await
    .unwrap();
    open.drained().await;
    assert_eq!(far.taken(), notes([0, 2, 3, 4]));
    assert_eq!(open.spool.recovery().lost, 1);
}

#[tokio::test]
async fn bit_rot_in_an_encrypted_chunk_is_damage_and_no_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..5).await;
    for chunk in chunks(path) {
        if chunk.number == 3 {
            chunk.spoil();
        }
    }
    let open = Open::new(encrypted(path), Far::Out).await.unwrap();
    assert_eq!(open.spool.recovery().lost, 1);
    open.close().await;
    assert_eq!(deliver(encrypted(path)).await, notes([0, 1, 3, 4]));
}

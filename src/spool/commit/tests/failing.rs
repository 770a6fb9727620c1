//! A disk that fails, once or for ever: who waits hears of it, and it is opened again.

use super::*;
use crate::{
    classify::Landed,
    spool::store::{Reclaim, memory::Call::Open},
};

/// The metrics of a disk are those of its options.
fn options_and_poisoned() -> (DiskOptions, impl Fn() -> i64) {
    let options = options("memory");
    let poisoned = options.metrics.poisoned.clone();
    (options, move || poisoned.get())
}

fn opens(state: &State) -> usize {
    state.calls.iter().filter(|call| **call == Open).count()
}

async fn fails(call: Call, fault: Fault) {
    let what = format!("{call:?} {fault:?}");
    let store = MemoryStore::default();
    let (options, poisoned) = options_and_poisoned();
    let disk = start_with(&store, &options);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    assert_eq!(disk.condition(), Condition::Fine);

    store.set_fault((call, fault));
    let (one, other) = tokio::join!(
        disk.append(chunks(lane, 2, &[b"b"])),
        disk.append(chunks(LaneId::fresh(), 1, &[b"b"])),
    );
    // One of them at least was in the commit that failed, and its error says so.
    let in_it = [one, other].map(|answer| answer.unwrap_err().landed() == Landed::Maybe);
    assert!(in_it.contains(&true), "{what}");
    assert!(disk.is_poisoned());
    assert_eq!(poisoned(), 1);
    let refused = disk.append(chunks(lane, 3, &[b"c"])).await.unwrap_err();
    assert!(matches!(refused, StoreError::Poisoned(_)) && refused.landed() == Landed::No);
    disk.read(lane, 1, 1, 1).await.unwrap_err();
}

#[tokio::test]
async fn who_waits_for_a_write_that_fails_hears_of_it() {
    for call in [Apply, Flush, Sync] {
        for fault in [Fault::Error, Fault::Panic] {
            fails(call, fault).await;
        }
    }
}

#[tokio::test]
async fn a_panic_while_reading_is_an_error_and_it_is_opened_again() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    store.set_fault((Call::Scan, Fault::Panic));
    assert!(disk.read(LaneId::fresh(), 1, 1, 1).await.is_err());
    store.set_fault(None);
    store.wait_until(|state| opens(state) == 2);
}

#[test]
fn a_panic_while_opening_is_damage() {
    let store = MemoryStore::default();
    store.set_fault((Open, Fault::Panic));
    let opened = Disk::start(&options("memory"), move || store.open());
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

/// What is done with was noted between two failures, and is not withdrawn with the first one.
#[tokio::test]
async fn what_was_noted_after_a_failure_stays_noted_through_the_next_one() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a", b"b"])).await.unwrap();
    store.set_fault((Apply, Fault::Error));
    disk.done(done(lane, 1, 1));
    disk.append(chunks(lane, 3, &[b"c"])).await.unwrap_err();
    // Opened again, it notes, and is stopped before it gives room back.
    store.set_fault((Call::RollOver, Fault::Stall));
    store.await_stall();
    store.state().reclaim = Some(Reclaim {
        generation: 1,
        copy: false,
        others_stay: true,
        lanes: vec![lane],
        gone: Vec::new(),
    });
    store.set_fault((Apply, Fault::OneError));
    store.wait_until(|state| opens(state) == 3);
    while disk.is_poisoned() {
        tokio::task::yield_now().await;
    }
    disk.close().await.unwrap();
    store.state().clean = None;
    let again = store.clone();
    let (disk, left) = Disk::start(&options("memory"), move || again.open()).unwrap();
    assert_eq!((left.lanes[0].first, left.lanes[0].records), (2, 1));
    assert!(!disk.recovery().has_loss());
}

/// Where that commit is torn the record waits, and only waits: Redis may take it the next time.
#[tokio::test]
async fn a_torn_commit_parks_nothing() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"job"])).await.unwrap();
    disk.park(vec![parked(lane, 1)], done(lane, 1, 1))
        .await
        .unwrap();
    disk.close().await.unwrap();
    {
        let mut state = store.state();
        state.clean = None;
        state.entries.retain(|key, _| key.kind() != Kind::Mark);
    }
    let again = store.clone();
    let (disk, left) = Disk::start(&options("memory"), move || again.open()).unwrap();
    let recovery = disk.recovery();
    assert!(recovery.torn && !recovery.has_loss(), "{recovery:?}");
    assert_eq!((recovery.records, left.parked), (1, 0));
}

#[tokio::test]
async fn a_loss_is_told_once_however_often_it_is_opened_again() {
    let store = MemoryStore::default();
    let options = options("memory");
    let lost = options.metrics.lost.with_label_values(&["waiting"]);
    let disk = start_with(&store, &options);
    let (damaged, sound) = (LaneId::fresh(), LaneId::fresh());
    disk.append(chunks(damaged, 1, &[b"a"])).await.unwrap();
    disk.append(chunks(sound, 1, &[b"b"])).await.unwrap();
    store.state().entries.retain(|key, _| key.lane() != damaged);
    store.set_fault((Call::Scan, Fault::OneError));
    disk.read(sound, 1, 1, 1).await.unwrap_err();
    store.set_fault((Apply, Fault::Error));
    store.wait_until(|state| opens(state) == 4);
    store.set_fault(None);
    while disk.is_poisoned() {
        tokio::task::yield_now().await;
    }
    assert_eq!((lost.get(), disk.recovery().lost), (1, 1));
}

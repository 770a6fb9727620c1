//! A disk that fails, once or for ever: who waits hears of it, and it is opened again.

use super::*;
use crate::{
    classify::Landed,
    spool::{
        dir::Space,
        store::{Reclaim, memory::Call::Open},
    },
};

/// The metrics of a disk are those of its options.
fn options_and_poisoned() -> (DiskOptions, impl Fn() -> i64) {
    let options = options("memory");
    let poisoned = options.metrics.poisoned.clone();
    (options, move || poisoned.get())
}

fn opens(state: &State) -> usize {
    state.opened_at.len()
}

/// Until it is, however long that takes.
async fn becomes(disk: &Disk, is: impl FnMut(&Condition) -> bool) {
    let mut condition = disk.watch_condition();
    let reached = tokio::time::timeout(Duration::from_secs(30), condition.wait_for(is));
    reached.await.expect("it stays as it is").unwrap();
}

async fn becomes_fine(disk: &Disk) {
    becomes(disk, |condition| *condition == Condition::Fine).await;
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

#[tokio::test]
async fn after_a_failure_it_is_opened_again_by_itself_without_what_failed() {
    for call in [Apply, Flush, Sync] {
        let store = MemoryStore::default();
        let (options, poisoned) = options_and_poisoned();
        let disk = start_with(&store, &options);
        let (lane, other) = (LaneId::fresh(), LaneId::fresh());
        disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
        store.set_fault((call, Fault::OneError));
        disk.append(chunks(other, 1, &[b"x"])).await.unwrap_err();
        becomes_fine(&disk).await;
        assert_eq!(poisoned(), 0);
        assert_eq!(opens(&store.state()), 2);
        assert!(disk.read(other, 1, 9, 9999).await.unwrap().is_empty());

        // Its number is free, and what was there before is there.
        disk.append(chunks(lane, 2, &[b"b"])).await.unwrap();
        assert_eq!(disk.read(lane, 1, 9, 9999).await.unwrap().len(), 2);
        assert_eq!(disk.recovery().lost, 0);

        // Not the next process either.
        disk.close().await.unwrap();
        store.state().clean = None;
        let store_again = store.clone();
        let (disk, left) = Disk::start(&options, move || store_again.open()).unwrap();
        let lanes: Vec<_> = left.lanes.iter().map(|left| left.lane).collect();
        assert_eq!(lanes, [lane]);
        assert!(disk.read(other, 1, 9, 9999).await.unwrap().is_empty());
        assert!(!disk.recovery().has_loss() && !disk.recovery().torn);
    }
}

#[tokio::test]
async fn what_is_done_is_noted_although_the_write_it_went_with_failed() {
    for call in [Apply, Flush, Sync] {
        let store = MemoryStore::default();
        let disk = start(&store, Durability::PowerLoss);
        let lane = LaneId::fresh();
        disk.append(chunks(lane, 1, &[b"a", b"b"])).await.unwrap();
        store.set_fault((call, Fault::OneError));
        disk.done(done(lane, 1, 1));
        disk.append(chunks(lane, 3, &[b"c"])).await.unwrap_err();
        // Also what is done with while it has failed.
        disk.done(done(lane, 2, 1));
        becomes_fine(&disk).await;
        disk.close().await.unwrap();
        let clean = store.state().clean.clone().unwrap();
        assert_eq!(clean.lane(lane), Some((0, 2)), "{call:?}");
    }
}

/// How long it was until it was opened again, each time.
fn gaps(store: &MemoryStore) -> Vec<Duration> {
    let opened_at = &store.state().opened_at;
    let pairs = opened_at[1..].windows(2);
    pairs.map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test]
async fn it_is_tried_again_ever_more_seldom() {
    // Be it that it cannot be opened, or that the first write to it fails.
    for call in [Open, Apply] {
        let store = MemoryStore::default();
        let disk = start(&store, Durability::PowerLoss);
        store.set_fault((Apply, Fault::Error));
        if call == Open {
            store.add_fault(Open, Fault::Error);
        }
        disk.append(chunks(LaneId::fresh(), 1, &[b"a"]))
            .await
            .unwrap_err();
        store.wait_until(|state| opens(state) >= 4);
        let gaps = gaps(&store);
        assert!(gaps[0] >= Duration::from_millis(200), "{call:?} {gaps:?}");
        assert!(gaps[1] >= Duration::from_millis(400), "{call:?} {gaps:?}");
        store.set_fault(None);
        becomes_fine(&disk).await;
    }
}

#[tokio::test]
async fn a_write_that_is_durable_is_not_taken_back_by_what_fails_behind_it() {
    for call in [Call::RollOver, Call::Reclaim] {
        let store = MemoryStore::default();
        let disk = start(&store, Durability::PowerLoss);
        let lane = LaneId::fresh();
        store.state().reclaim = Some(Reclaim {
            generation: 1,
            copy: false,
            others_stay: true,
            lanes: Vec::new(),
            gone: Vec::new(),
        });
        store.set_fault((call, Fault::OneError));
        disk.done(done(lane, 0, 0));
        disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
        store.wait_until(|state| opens(state) == 2);
        becomes_fine(&disk).await;
        assert_eq!(disk.read(lane, 1, 9, 9999).await.unwrap().len(), 1);
        assert!(store.state().reclaim.is_none(), "{call:?}");
    }
}

#[tokio::test]
async fn it_is_not_fine_before_it_has_settled_in() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    store.set_fault((Call::RollOver, Fault::Error));
    disk.append(chunks(LaneId::fresh(), 1, &[b"a"]))
        .await
        .unwrap();
    store.wait_until(|state| opens(state) == 4);
    // It would be tried again soon if it had been fine in between.
    let gaps = gaps(&store);
    assert!(gaps[1] >= Duration::from_millis(400), "{gaps:?}");
    disk.close().await.unwrap_err();
}

#[tokio::test]
async fn closing_what_has_failed_says_so_and_changes_nothing() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    store.set_fault((Sync, Fault::Error));
    disk.append(chunks(lane, 2, &[b"b"])).await.unwrap_err();
    assert!(matches!(disk.close().await, Err(StoreError::Poisoned(_))));
    assert!(store.state().clean.is_none());

    store.set_fault(None);
    let disk = start(&store, Durability::PowerLoss);
    assert!(!disk.read(lane, 1, 9, 9999).await.unwrap().is_empty());
}

#[tokio::test]
async fn failing_to_close_is_an_error_and_no_hang() {
    for fault in [Fault::Error, Fault::Panic] {
        let store = MemoryStore::default();
        let disk = start(&store, Durability::PowerLoss);
        store.set_fault((Call::Close, fault));
        disk.close().await.unwrap_err();
    }
}

/// With a disk that says how much room it has, and with one that does not.
async fn stalls(space: Option<Space>, call: Call) {
    let store = MemoryStore::default();
    store.state().space = space;
    let options = DiskOptions {
        stalled_after: Duration::from_millis(20),
        ..options("memory")
    };
    let stalls = options.metrics.stalls.clone();
    let disk = start_with(&store, &options);
    let lane = LaneId::fresh();
    store.set_fault((call, Fault::Stall));
    let waiting = {
        let disk = disk.clone();
        tokio::spawn(async move {
            if call == Call::Scan {
                disk.read(lane, 1, 1, 1).await.map(drop)
            } else {
                disk.append(chunks(lane, 1, &[b"a"])).await
            }
        })
    };
    becomes(&disk, |condition| *condition == Condition::Stalled).await;
    assert_eq!(stalls.get(), 1);
    store.set_fault(None);
    waiting.await.unwrap().unwrap();
    becomes_fine(&disk).await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_said_to_be_stalled_until_it_does() {
    let plenty = Space {
        free: 1 << 40,
        total: 1 << 41,
    };
    for space in [Some(plenty), None] {
        for call in [Sync, Call::Scan] {
            stalls(space, call).await;
        }
    }
}

#[tokio::test]
async fn with_little_room_left_records_are_refused_and_all_else_goes_on() {
    let store = MemoryStore::default();
    let options = DiskOptions {
        min_free: Some(1000),
        ..options("memory")
    };
    let space = |free| {
        Some(Space {
            free,
            total: 1_000_000,
        })
    };
    store.state().space = space(1000);
    let disk = start_with(&store, &options);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a", b"b"])).await.unwrap();
    store.state().space = space(999);
    disk.append(chunks(lane, 3, &[b"c"])).await.unwrap();
    becomes(&disk, |condition| matches!(condition, Condition::Low(999))).await;
    let refused = disk.append(chunks(lane, 4, &[b"d"])).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full(999)), "{refused}");
    assert_eq!(refused.landed(), Landed::No);
    assert_eq!(disk.read(lane, 1, 9, 9999).await.unwrap().len(), 2);
    disk.done(done(lane, 2, 2));
    disk.sync().await.unwrap();
    assert_eq!(done_on_disk(&store.state(), lane), 2);

    // A little more does not do.
    store.state().space = space(1249);
    disk.done(done(lane, 3, 1));
    disk.sync().await.unwrap();
    assert!(matches!(disk.condition(), Condition::Low(_)));
    store.state().space = space(1250);
    becomes_fine(&disk).await;
    disk.append(chunks(lane, 4, &[b"d"])).await.unwrap();
}

#[tokio::test]
async fn a_write_does_not_wait_for_all_reads_that_come_after_it() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    store.set_fault((Call::Scan, Fault::Stall));
    let mut first = Box::pin(disk.read(lane, 1, 1, 1));
    assert!(poll!(&mut first).is_pending());
    store.await_stall();
    let mut append = Box::pin(disk.append(chunks(lane, 1, &[b"a"])));
    assert!(poll!(&mut append).is_pending());
    let mut reads: Vec<_> = (0..200)
        .map(|_| Box::pin(disk.read(lane, 1, 1, 1)))
        .collect();
    for read in &mut reads {
        assert!(poll!(read).is_pending());
    }
    store.set_fault(None);
    let mut found = 0;
    for read in reads {
        found += read.await.unwrap().len();
    }
    assert!(found >= 100, "{found} of 200 reads were behind the write");
    append.await.unwrap();
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

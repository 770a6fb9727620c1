//! The thread over a store that can be told to fail, then over sled.

mod crash;
mod disk;
mod model;

use futures_util::{FutureExt, poll};
use tokio::task::JoinSet;

use super::*;
use crate::classify::Landed;
use crate::spool::{
    chunk::{Kind, Writer},
    dir::tests::Scratch,
    store::memory::{
        Call::{self, Apply, Flush, Scan, Sync},
        Fault, MemoryStore,
    },
};

fn options(path: impl Into<PathBuf>) -> DiskOptions {
    DiskOptions {
        path: path.into(),
        durability: Durability::PowerLoss,
        metrics: SpoolMetrics::default(),
    }
}

fn start(store: &MemoryStore, durability: Durability) -> Disk {
    let store = store.clone();
    let options = DiskOptions {
        durability,
        ..options("memory")
    };
    Disk::start(&options, || Ok(store)).unwrap().0
}

/// One chunk, or more if there are long records, with `first` and so on.
fn chunks(lane: LaneId, first: u64, records: &[&[u8]]) -> Vec<Chunk> {
    let mut writer = Writer::new(lane, "emails", first, 0, 1000 + first);
    for record in records {
        writer.push_if(|buffer| buffer.extend_from_slice(record), |_| true);
    }
    writer.finish()
}

fn parked(lane: LaneId, number: u64) -> Parked {
    Parked {
        lane,
        number,
        queue: "emails".into(),
        reason: "WRONGTYPE".into(),
        parked_ms: 5,
        attempts: 1,
        record: bytes::Bytes::from_static(b"job"),
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_disk_has_synced() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    for (call, made) in [(Apply, 0), (Flush, 1), (Sync, 2)] {
        store.state().calls.clear();
        store.set_fault((call, Fault::Stall));
        let lane = LaneId::fresh();
        let mut append = Box::pin(disk.append(chunks(lane, 1, &[b"a"])));
        assert!(poll!(&mut append).is_pending());
        store.await_stall();
        assert_eq!(store.state().calls, [Apply, Flush, Sync][..made]);
        assert!(poll!(&mut append).is_pending(), "answered before {call:?}");
        store.set_fault(None);
        append.await.unwrap();
        assert_eq!(store.state().calls, [Apply, Flush, Sync]);
    }
}

#[tokio::test]
async fn without_power_loss_the_disk_is_not_asked_to_sync() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::ProcessCrash);
    disk.append(chunks(LaneId::fresh(), 1, &[b"a"]))
        .await
        .unwrap();
    assert_eq!(store.state().calls, [Apply, Flush]);
}

#[tokio::test]
async fn what_gathers_while_the_disk_is_busy_shares_one_sync() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    store.set_fault((Sync, Fault::Stall));
    let mut appends: Vec<_> = (0..100)
        .map(|_| {
            let disk = disk.clone();
            Box::pin(async move { disk.append(chunks(LaneId::fresh(), 1, &[b"a"])).await })
        })
        .collect();
    assert!(poll!(&mut appends[0]).is_pending());
    store.await_stall();
    for append in &mut appends[1..] {
        assert!(poll!(append).is_pending());
    }
    store.set_fault(None);
    for append in appends {
        append.await.unwrap();
    }
    let syncs = store
        .state()
        .calls
        .iter()
        .filter(|call| **call == Sync)
        .count();
    assert_eq!(syncs, 2);
    assert_eq!(store.state().entries.len(), 100);
}

#[tokio::test]
async fn an_append_that_nobody_waits_for_any_more_is_still_made() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    store.set_fault((Apply, Fault::Stall));
    assert!(
        disk.append(chunks(lane, 1, &[b"a"]))
            .now_or_never()
            .is_none()
    );
    store.set_fault(None);
    disk.sync().await.unwrap();
    assert_eq!(disk.read(lane, 1, 10, 1000).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_queue_to_the_disk_is_bounded_in_bytes() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    store.set_fault((Apply, Fault::Stall));
    let record = vec![0; 30 << 20];
    let mut appends = JoinSet::new();
    for _ in 0..3 {
        let (disk, chunks) = (disk.clone(), chunks(LaneId::fresh(), 1, &[&record]));
        appends.spawn(async move { disk.append(chunks).await });
    }
    tokio::task::yield_now().await;
    store.await_stall();
    assert!(disk.room.available_permits() < 100);
    assert!(disk.sync().now_or_never().is_none());
    store.set_fault(None);
    while let Some(appended) = appends.join_next().await {
        appended.unwrap().unwrap();
    }
    assert_eq!(disk.room.available_permits(), ROOM_UNITS as usize);
}

async fn poisons(call: Call, fault: Fault) {
    let store = MemoryStore::default();
    let options = options("memory");
    let metrics = options.metrics.clone();
    let (disk, _) = Disk::start(&options, {
        let store = store.clone();
        || Ok(store)
    })
    .unwrap();
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    assert!(!disk.is_poisoned());

    store.set_fault((call, fault));
    let (one, other) = tokio::join!(
        disk.append(chunks(lane, 2, &[b"b"])),
        disk.append(chunks(LaneId::fresh(), 1, &[b"b"])),
    );
    // One of them at least was in the commit that failed, and its error says so.
    let in_it = [one, other].map(|answer| answer.unwrap_err().landed() == Landed::Maybe);
    assert!(in_it.contains(&true), "{call:?} {fault:?}");
    assert!(disk.is_poisoned());
    assert_eq!(metrics.poisoned.get(), 1);

    // It stays that way although the disk works again.
    store.set_fault(None);
    let calls = store.state().calls.len();
    let refused = disk.append(chunks(lane, 3, &[b"c"])).await.unwrap_err();
    assert!(matches!(refused, StoreError::Poisoned(_)) && refused.landed() == Landed::No);
    disk.remove(
        chunks(lane, 1, &[b"a"])
            .iter()
            .map(|chunk| chunk.key)
            .collect(),
    );
    disk.sync().await.unwrap_err();
    assert_eq!(store.state().calls.len(), calls);

    // What it has can be read.
    assert_eq!(disk.read(lane, 1, 1, 1).await.unwrap()[0].records, ["a"]);
    assert!(disk.close().await.is_err());
}

#[tokio::test]
async fn the_first_write_that_fails_is_the_last_one_tried() {
    for call in [Apply, Flush, Sync] {
        for fault in [Fault::Error, Fault::Panic] {
            poisons(call, fault).await;
        }
    }
}

#[tokio::test]
async fn a_panic_while_reading_is_an_error_and_poisons() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    store.set_fault((Scan, Fault::Panic));
    assert!(disk.read(LaneId::fresh(), 1, 1, 1).await.is_err());
    assert!(disk.is_poisoned());
}

#[test]
fn a_panic_while_opening_is_damage() {
    let opened = Disk::start(&options("memory"), || -> Result<MemoryStore, OpenError> {
        panic!("sled does that")
    });
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));

    let store = MemoryStore::default();
    store.set_fault((Scan, Fault::Panic));
    let opened = Disk::start(&options("memory"), || Ok(store));
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

#[tokio::test]
async fn removals_go_with_the_next_write() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    let old = chunks(lane, 1, &[b"a"]);
    let keys: Vec<Key> = old.iter().map(|chunk| chunk.key).collect();
    disk.append(old).await.unwrap();
    disk.remove(keys);
    disk.append(chunks(lane, 2, &[b"b"])).await.unwrap();
    let left = store.state().keys(Kind::Waiting);
    assert_eq!(left.iter().map(Key::number).collect::<Vec<_>>(), [2]);
    assert_eq!(store.state().calls.len(), 6);
}

#[tokio::test]
async fn removals_that_no_write_follows_are_made_on_their_own() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    for count in [1, 1000] {
        let mut written = Vec::new();
        for number in 1..=count {
            written.extend(chunks(lane, number, &[b"a"]));
        }
        let keys: Vec<Key> = written.iter().map(|chunk| chunk.key).collect();
        disk.append(written).await.unwrap();
        for key in keys {
            disk.remove(vec![key]);
        }
        store.wait_until(|state| state.entries.is_empty());
    }
}

#[tokio::test]
async fn the_last_handle_takes_the_removals_along() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let written = chunks(LaneId::fresh(), 1, &[b"a"]);
    let keys = written.iter().map(|chunk| chunk.key).collect();
    disk.append(written).await.unwrap();
    disk.remove(keys);
    drop(disk);
    store.wait_until(|state| state.entries.is_empty());
}

#[tokio::test]
async fn a_closed_disk_refuses_and_answers() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let other = disk.clone();
    disk.close().await.unwrap();
    other.remove(vec![Key::first_of(Kind::Waiting)]);
    assert!(matches!(
        other.read(LaneId::fresh(), 1, 1, 1).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        other.append(chunks(LaneId::fresh(), 1, &[b"a"])).await,
        Err(StoreError::Closed)
    ));
}

#[tokio::test]
async fn reading_begins_with_the_chunk_that_has_the_number() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let (lane, other) = (LaneId::fresh(), LaneId::fresh());
    let long = vec![7; 250 * 1024];
    let mut written = chunks(lane, 1, &[b"1", b"2", b"3"]);
    written.extend(chunks(lane, 4, &[&long]));
    written.extend(chunks(lane, 7, &[b"7", b"8"]));
    written.extend(chunks(other, 1, &[b"other"]));
    disk.append(written).await.unwrap();

    let firsts = async |from, max_records, max_bytes| {
        let held = disk.read(lane, from, max_records, max_bytes).await.unwrap();
        held.iter().map(|held| held.first).collect::<Vec<_>>()
    };
    assert_eq!(firsts(1, 100, usize::MAX).await, [1, 4, 7]);
    assert_eq!(firsts(3, 100, usize::MAX).await, [1, 4, 7]);
    assert_eq!(firsts(4, 100, usize::MAX).await, [4, 7]);
    assert_eq!(firsts(5, 100, usize::MAX).await, [7]);
    assert_eq!(firsts(8, 100, usize::MAX).await, [7]);
    assert_eq!(firsts(9, 100, usize::MAX).await, [0u64; 0]);
    assert_eq!(firsts(0, 0, 0).await, [1]);
    assert_eq!(firsts(1, 4, usize::MAX).await, [1, 4]);
    assert_eq!(firsts(1, 100, 1000).await, [1, 4]);
    assert_eq!(disk.read(lane, 4, 1, 1).await.unwrap()[0].records, [long]);
}

#[tokio::test]
async fn a_damaged_chunk_ends_what_is_read_and_is_then_the_error() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    let mut written = chunks(lane, 1, &[b"1"]);
    written.extend(chunks(lane, 2, &[b"2"]));
    let key = written[1].key;
    disk.append(written).await.unwrap();
    let mut spoilt = store.state().entries[&key].to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    store.state().entries.insert(key, spoilt.into());

    assert_eq!(disk.read(lane, 1, 9, 9999).await.unwrap().len(), 1);
    let error = disk.read(lane, 2, 9, 9999).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)));
    assert!(!disk.is_poisoned());
    let opened = Disk::start(&options("memory"), || Ok(store));
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

#[tokio::test]
async fn parking_removes_and_keeps_in_one_step() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    let written = chunks(lane, 1, &[b"job"]);
    let keys = written.iter().map(|chunk| chunk.key).collect();
    disk.append(written).await.unwrap();
    store.state().calls.clear();
    disk.park(vec![parked(lane, 1)], keys).await.unwrap();
    assert_eq!(store.state().calls, [Apply, Flush, Sync]);
    assert!(disk.read(lane, 1, 9, 99).await.unwrap().is_empty());
    assert_eq!(
        disk.parked(None, 9, usize::MAX).await.unwrap(),
        [parked(lane, 1)]
    );
    assert_eq!(disk.parked(None, 0, usize::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn a_future_of_the_disk_can_move_between_threads() {
    fn moves<T: Send>(future: T) -> T {
        future
    }
    let disk = start(&MemoryStore::default(), Durability::PowerLoss);
    moves(disk.append(Vec::new())).await.unwrap();
}

/// A crash can come between parking and the removal of what was parked.
#[tokio::test]
async fn what_is_parked_twice_is_said_to_have_been_there() {
    let disk = start(&MemoryStore::default(), Durability::PowerLoss);
    let lane = LaneId::fresh();
    let park = |numbers: std::ops::Range<u64>| {
        let parked = numbers.map(|number| parked(lane, number)).collect();
        disk.park(parked, Vec::new())
    };
    let one = parked(lane, 1).bytes();
    let counted = |records| Replaced {
        records,
        bytes: one * records,
    };
    assert_eq!(park(3..5).await.unwrap(), counted(0));
    assert_eq!(park(1..6).await.unwrap(), counted(2));
    assert_eq!(park(5..7).await.unwrap(), counted(1));
    assert_eq!(disk.parked(None, 9, usize::MAX).await.unwrap().len(), 6);
}

#[tokio::test]
async fn unparking_removes_and_writes_in_one_step() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let (lane, fresh) = (LaneId::fresh(), LaneId::fresh());
    let long = Parked {
        record: vec![7; 100_000].into(),
        ..parked(lane, 2)
    };
    let all = vec![parked(lane, 1), long, parked(lane, 3)];
    disk.park(all, Vec::new()).await.unwrap();
    let (first, second) = (ParkedId::new(lane, 1), ParkedId::new(lane, 2));

    store.set_fault((Apply, Fault::Error));
    let put = chunks(fresh, 1, &[b"job", &[7; 100_000]]);
    let failed = disk.unpark(vec![first, second], put).await.unwrap_err();
    assert_eq!(failed.landed(), Landed::Maybe);
    store.set_fault(None);
    drop(disk);

    let disk = start(&store, Durability::PowerLoss);
    let count = async |disk: &Disk| disk.parked(None, 9, usize::MAX).await.unwrap().len();
    assert_eq!(count(&disk).await, 3);
    let put = chunks(fresh, 1, &[b"job", &[7; 100_000]]);
    disk.unpark(vec![first, second], put).await.unwrap();
    assert_eq!(count(&disk).await, 1);
    let held = disk.read(fresh, 1, 9, usize::MAX).await.unwrap();
    assert_eq!(held.iter().map(|held| held.records.len()).sum::<usize>(), 2);
    let parts = store.state().entries.len();
    assert_eq!(
        parts,
        1 + held.iter().map(|held| held.keys.len()).sum::<usize>()
    );
}

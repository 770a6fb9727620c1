//! The thread over a store that can be told to fail, then over sled.

mod crash;
mod disk;
mod failing;
mod history;
mod model;

use futures_util::{FutureExt, poll};
use tokio::task::JoinSet;

use super::*;
use crate::spool::{
    chunk::{Frame, Kind, Writer},
    dir::tests::Scratch,
    store::memory::{
        Call::{self, Apply, Flush, Sync},
        Fault, MemoryStore, State,
    },
};

fn options(path: impl Into<PathBuf>) -> DiskOptions {
    DiskOptions {
        path: path.into(),
        durability: Durability::PowerLoss,
        strict: false,
        network: false,
        generation_bytes: 64 << 20,
        min_free: Some(0),
        stalled_after: Duration::from_secs(60),
        ring: Arc::default(),
        metrics: SpoolMetrics::default(),
    }
}

fn start(store: &MemoryStore, durability: Durability) -> Disk {
    let options = DiskOptions {
        durability,
        ..options("memory")
    };
    start_with(store, &options)
}

fn start_with(store: &MemoryStore, options: &DiskOptions) -> Disk {
    let store = store.clone();
    Disk::start(options, move || store.open()).unwrap().0
}

fn done(lane: LaneId, through: u64, records: u64) -> Done {
    Done {
        lane,
        through,
        records,
    }
}

/// How far the store has it that the lane is done with, in the last stamp.
fn done_on_disk(state: &State, lane: LaneId) -> u64 {
    let frames = state
        .entries
        .iter()
        .filter(|(key, _)| key.lane() == lane)
        .map(|(key, value)| Frame::parse(*key, value).unwrap());
    let newest = frames.max_by_key(|frame| frame.stamp.commit);
    newest.map_or(0, |frame| frame.stamp.done)
}

/// One chunk, or more if there are long records, with `first` and so on.
fn chunks(lane: LaneId, first: u64, records: &[&[u8]]) -> Vec<Chunk> {
    let mut writer = Writer::new(lane, "emails", first, 0, 1000 + first, 0);
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
        overhead: 0,
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_disk_has_synced() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    for (call, made) in [(Apply, 1), (Flush, 2), (Sync, 3)] {
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
    assert_eq!(store.state().calls, [Call::Open, Apply, Flush]);
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

#[tokio::test]
async fn what_is_done_goes_with_the_next_write() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    disk.done(done(lane, 1, 1));
    disk.append(chunks(lane, 2, &[b"b"])).await.unwrap();
    assert_eq!(done_on_disk(&store.state(), lane), 1);
    assert!(store.state().keys(Kind::Mark).is_empty());
    assert_eq!(store.state().calls.len(), 1 + 6);
}

#[tokio::test]
async fn what_is_done_and_no_write_follows_is_noted_on_its_own() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    let mut next = 1;
    for count in [1, 1000] {
        for number in next..next + count {
            disk.append(chunks(lane, number, &[b"a"])).await.unwrap();
        }
        for number in next..next + count {
            disk.done(done(lane, number, 1));
        }
        next += count;
        store.wait_until(|state| done_on_disk(state, lane) == next - 1);
    }
    let noted = store.state().keys(Kind::Mark).len();
    assert!((2..100).contains(&noted), "{noted}");
}

#[tokio::test]
async fn the_last_handle_takes_along_what_is_done() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    disk.done(done(lane, 1, 1));
    drop(disk);
    store.wait_until(|state| state.clean.is_some());
    assert_eq!(done_on_disk(&store.state(), lane), 1);
    let clean = store.state().clean.clone().unwrap();
    assert_eq!((clean.waiting, clean.lane(lane)), (0, Some((0, 1))));
}

#[tokio::test]
async fn a_closed_disk_refuses_and_answers() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let other = disk.clone();
    disk.close().await.unwrap();
    other.done(done(LaneId::fresh(), 1, 1));
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
async fn what_is_parked_is_kept_until_it_is_sent_again() {
    let store = MemoryStore::default();
    let disk = start(&store, Durability::PowerLoss);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"job"])).await.unwrap();
    store.state().calls.clear();
    disk.park(vec![parked(lane, 1)], done(lane, 1, 1))
        .await
        .unwrap();
    assert_eq!(store.state().calls, [Apply, Flush, Sync]);
    assert_eq!(
        disk.parked(None, 9, usize::MAX).await.unwrap(),
        [parked(lane, 1)]
    );
    assert_eq!(disk.parked(None, 0, usize::MAX).await.unwrap(), []);

    store.state().calls.clear();
    let again = chunks(lane, 2, &[b"job"]);
    disk.unpark(vec![ParkedId::new(lane, 1)], again)
        .await
        .unwrap();
    assert_eq!(store.state().calls, [Apply, Flush, Sync]);
    assert_eq!(disk.parked(None, 9, usize::MAX).await.unwrap(), []);
    assert_eq!(disk.read(lane, 2, 9, 99).await.unwrap().len(), 1);
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
        let done = done(lane, numbers.end - 1, 0);
        let parked = numbers.map(|number| parked(lane, number)).collect();
        disk.park(parked, done)
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
    disk.park(all, done(lane, 3, 0)).await.unwrap();
    let (first, second) = (ParkedId::new(lane, 1), ParkedId::new(lane, 2));

    store.set_fault((Apply, Fault::Error));
    let put = chunks(fresh, 1, &[b"job", &[7; 100_000]]);
    let failed = disk.unpark(vec![first, second], put).await.unwrap_err();
    assert_eq!(failed.landed(), crate::classify::Landed::Maybe);
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
}

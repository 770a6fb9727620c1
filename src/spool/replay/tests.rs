//! Replay's steps one by one, in the orders that a race would need.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::spool::{
    SpoolOptions, Undecodable,
    chunk::Writer,
    commit::{Disk, DiskOptions, Durability},
    lane::Span,
    slots::{Opened, Place},
};

struct Note;

impl Spoolable for Note {
    fn queue(&self) -> &str {
        "notes"
    }

    fn size(&self) -> usize {
        1
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.push(0);
    }

    fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
        Ok(Self)
    }
}

struct Bench {
    shared: Arc<Shared<Note>>,
    id: LaneId,
    slot: Slot,
    lane: Lane,
    replay: Replay<Note>,
}

impl Bench {
    fn new(dir: &tempfile::TempDir) -> Self {
        let options = SpoolOptions::new(dir.path());
        let disk_options = DiskOptions {
            path: options.dir.path().to_owned(),
            durability: Durability::ProcessCrash,
            strict: false,
            network: false,
            generation_bytes: options.generation_bytes,
            min_free: None,
            stalled_after: options.stalled_after,
            ring: Arc::default(),
            metrics: options.metrics.clone(),
        };
        let (disk, left) = Disk::open(&disk_options).expect("an empty directory opens");
        let opened = Opened {
            disk,
            left,
            place: Place::Alone(dir.path().to_owned()),
        };
        let shared = Arc::new(Shared::new(options, opened, CancellationToken::new()));
        let limits = shared.options.limits_of("notes");
        let slot = shared.usage.open("notes", &limits);
        let id = LaneId::fresh();
        Self {
            shared,
            id,
            slot,
            lane: Lane::new(false, false),
            replay: Replay::new("notes".into(), id, slot, VecDeque::new()),
        }
    }

    /// Writes what is to be written, and takes note of it.
    async fn append(&mut self, span: Span) {
        self.lane.appending(span);
        self.write(self.id, span).await;
        self.lane.appended(true);
        self.replay.appended(span.first);
    }

    async fn write(&self, lane: LaneId, span: Span) {
        let mut writer = Writer::new(lane, "notes", span.first, 0, 0, 0);
        for _ in span.first..=span.last {
            assert!(writer.push_if(
                |into| Note.encode(into),
                |more| self.shared.usage.admit(self.slot, more, []).is_ok()
            ));
        }
        self.shared
            .disk
            .append(writer.finish())
            .await
            .expect("it is written");
    }

    /// Has three records of another lane sent first, as soon as may be. Says whether they are in line.
    async fn adopt(&mut self) -> bool {
        let (lane, last) = (LaneId::fresh(), 3);
        self.write(lane, Span { first: 1, last }).await;
        self.replay.adopt(Older {
            lane,
            front: 1,
            last,
            acknowledged: 0,
            refused: 1,
            records: last,
            bytes: last,
        });
        self.promote()
    }

    fn promote(&mut self) -> bool {
        let promoted = self.replay.promote();
        if promoted {
            self.lane.adopted();
        }
        promoted
    }

    fn start_read(&mut self) {
        self.replay.start_read(&self.shared, &self.lane);
    }

    /// The numbers of the next batch, once it has been read.
    async fn next(&mut self) -> (u64, u64) {
        let (batch, _) = self.next_batch().await;
        (batch.first(), batch.last())
    }

    async fn next_batch(&mut self) -> (Batch<Note>, Sent) {
        loop {
            let next = self.replay.next(&self.lane, 10, 1 << 20);
            if let Some(next) = next.expect("it can be read") {
                return next;
            }
            self.start_read();
            poll_fn(|cx| self.replay.poll(cx)).await;
            self.replay
                .settle(&self.shared, &mut self.lane)
                .expect("it can be read");
        }
    }
}

/// 3 and 4 were overdue while 1 and 2 were on their way to Redis, which then did not take them.
#[tokio::test]
async fn what_comes_to_disk_in_front_of_a_read_that_has_begun_is_not_passed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(&dir);
    let (sent, overdue) = (bench.lane.take(2), bench.lane.take(2));
    bench.append(overdue).await;
    bench.start_read();
    bench.append(sent).await;
    assert_eq!(bench.next().await, (1, 4));
}

/// 1 and 2 were refused for want of room, 3 waits for some, 4 is on disk: nothing can be read before
/// 3 is there, so nothing is.
#[tokio::test]
async fn a_read_that_met_the_barrier_is_not_begun_again_below_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(&dir);
    let [first, gone, waits, late] = [1, 2, 1, 1].map(|count| bench.lane.take(count));
    bench.append(first).await;
    bench.append(late).await;
    bench.lane.returned(waits);
    bench.lane.removed(gone.first - 1);
    bench.start_read();
    poll_fn(|cx| bench.replay.poll(cx)).await;
    bench
        .replay
        .settle(&bench.shared, &mut bench.lane)
        .expect("it can be read");
    bench.start_read();
    assert!(bench.replay.reading.is_none());
    bench.lane.take_returned();
    bench.append(waits).await;
    assert_eq!(bench.next().await, (waits.first, late.last));
}

/// 1 to 4 have been read; the batch with them is on its way or not, and is answered or not.
#[tokio::test]
async fn a_lane_adopted_in_the_middle_of_replay_goes_first_and_mixes_nothing_up() {
    for (on_its_way, answered) in [(false, false), (true, true), (true, false)] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bench = Bench::new(&dir);
        let own = bench.lane.take(4);
        bench.append(own).await;
        bench.start_read();
        poll_fn(|cx| bench.replay.poll(cx)).await;
        let settled = bench.replay.settle(&bench.shared, &mut bench.lane);
        settled.expect("it can be read");
        if on_its_way {
            let (batch, mut sent) = bench.next_batch().await;
            assert_eq!((batch.lane(), sent.refused()), (bench.id, 0));
            assert!(!bench.adopt().await, "a batch is on its way");
            if answered {
                let (shared, lane) = (bench.shared.clone(), &mut bench.lane);
                let done = bench.replay.remove(&mut sent, 4, &shared, lane);
                shared.disk.done(done);
            } else {
                bench.replay.rewind();
            }
            assert!(bench.promote());
        } else {
            assert!(bench.adopt().await);
        }
        let (batch, mut sent) = bench.next_batch().await;
        assert_ne!(batch.lane(), bench.id);
        assert_eq!((batch.first(), batch.last(), sent.refused()), (1, 3, 1));
        let (shared, lane) = (bench.shared.clone(), &mut bench.lane);
        let done = bench.replay.remove(&mut sent, 3, &shared, lane);
        shared.disk.done(done);
        if answered {
            assert!(bench.lane.is_drained());
        } else {
            let (batch, sent) = bench.next_batch().await;
            assert_eq!((batch.lane(), sent.refused()), (bench.id, 0));
            assert_eq!((batch.first(), batch.last()), (1, 4));
        }
    }
}

/// An earlier run was done with 1 and 2 of 1 to 6, which are in one chunk.
#[tokio::test]
async fn a_lane_that_begins_in_the_middle_of_a_chunk_gives_back_all_of_its_room_with_the_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(&dir);
    let span = bench.lane.take(6);
    bench.append(span).await;
    let bytes = bench.shared.usage.bytes();
    bench.lane = Lane::new(false, true);
    let older = Older {
        lane: bench.id,
        front: 3,
        last: 6,
        acknowledged: 2,
        refused: 0,
        records: 4,
        bytes,
    };
    bench.shared.usage.free(bench.slot, 2, 0);
    let queue = "notes".into();
    bench.replay = Replay::new(queue, LaneId::fresh(), bench.slot, [older].into());
    assert_eq!(bench.next().await, (3, 6));
    bench.replay.rewind();
    bench.start_read();
    poll_fn(|cx| bench.replay.poll(cx)).await;
    let (shared, lane) = (&bench.shared, &mut bench.lane);
    let settled = bench.replay.settle(shared, lane);
    settled.expect("it can be read");
    assert_eq!(bench.replay.expire(|_| true, shared, lane), 4);
    assert!(lane.is_drained());
    assert_eq!((shared.usage.waiting(), shared.usage.bytes()), (0, 0));
}

/// 3 and 4 were overdue and are on disk while 1 and 2 are on their way from memory, and may come to disk
/// yet: the disk must not take them for done then.
#[tokio::test]
async fn nothing_expires_in_front_of_which_something_may_come_to_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(&dir);
    let (sent, overdue) = (bench.lane.take(2), bench.lane.take(2));
    bench.lane.sending();
    bench.append(overdue).await;
    bench.start_read();
    poll_fn(|cx| bench.replay.poll(cx)).await;
    let Bench {
        shared,
        lane,
        replay,
        ..
    } = &mut bench;
    replay.settle(shared, lane).expect("it can be read");
    assert_eq!(replay.expire(|_| true, shared, lane), 0);
    assert_eq!(replay.make_room(1, u64::MAX, shared, lane), (false, 0));
    lane.sent();
    lane.returned(sent);
    assert_eq!(replay.expire(|_| true, shared, lane), 0);
    lane.take_returned();
    assert_eq!(replay.make_room(1, sent.first, shared, lane), (false, 0));
    assert_eq!(replay.expire(|_| true, shared, lane), 2, "they are refused");
}

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
    lane: Lane,
    replay: Replay<Note>,
}

impl Bench {
    fn new(dir: &tempfile::TempDir) -> Self {
        let options = SpoolOptions::new(dir.path());
        let disk_options = DiskOptions {
            path: options.dir.path().to_owned(),
            durability: Durability::ProcessCrash,
            metrics: options.metrics.clone(),
        };
        let (disk, left) = Disk::open(&disk_options).expect("an empty directory opens");
        let opened = Opened {
            disk,
            left,
            place: Place::Alone(dir.path().to_owned()),
        };
        Self {
            shared: Arc::new(Shared::new(options, opened, CancellationToken::new())),
            id: LaneId::fresh(),
            lane: Lane::new(false, false),
            replay: Replay::new("notes".into(), VecDeque::new()),
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
        let mut writer = Writer::new(lane, "notes", span.first, 0, 0);
        for _ in span.first..=span.last {
            assert!(writer.push_if(
                |into| Note.encode(into),
                |_| self.shared.usage.try_reserve(1)
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
        self.replay.start_read(&self.shared, self.id, &self.lane);
    }

    /// The numbers of the next batch, once it has been read.
    async fn next(&mut self) -> (u64, u64) {
        let (batch, _) = self.next_batch().await;
        (batch.first(), batch.last())
    }

    async fn next_batch(&mut self) -> (Batch<Note>, Sent) {
        loop {
            if let Some(next) = self.replay.next(self.id, &self.lane, 10, 1 << 20) {
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
                bench.replay.remove(&mut sent, 4, &shared, lane);
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
        bench.replay.remove(&mut sent, 3, &shared, lane);
        if answered {
            assert!(bench.lane.is_drained());
        } else {
            let (batch, sent) = bench.next_batch().await;
            assert_eq!((batch.lane(), sent.refused()), (bench.id, 0));
            assert_eq!((batch.first(), batch.last()), (1, 4));
        }
    }
}

//! Replay's steps one by one, in the orders that a race would need.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;

use super::*;
use crate::spool::{
    SpoolOptions, Undecodable,
    chunk::Writer,
    commit::{Disk, DiskOptions, Durability},
    lane::Span,
    usage::Usage,
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
            path: options.path.clone(),
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
        let usage = Usage::new(100, 1 << 20, options.metrics.clone());
        Self {
            shared: Arc::new(Shared::new(options, disk, usage, left.lanes)),
            id: LaneId::fresh(),
            lane: Lane::new(false, false),
            replay: Replay::new("notes".into(), VecDeque::new()),
        }
    }

    /// Writes what is to be written, and takes note of it.
    async fn append(&mut self, span: Span) {
        self.lane.appending(span);
        let mut writer = Writer::new(self.id, "notes", span.first, 0, 0, 0);
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
        self.lane.appended(true);
        self.replay.appended(span.first);
    }

    fn start_read(&mut self) {
        self.replay.start_read(&self.shared, self.id, &self.lane);
    }

    /// The numbers of the next batch, once it has been read.
    async fn next(&mut self) -> (u64, u64) {
        loop {
            if let Some((batch, _)) = self.replay.next(self.id, &self.lane, 10, 1 << 20) {
                return (batch.first(), batch.last());
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

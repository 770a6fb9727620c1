//! Whatever is done, and however often the spool is opened anew, it holds what a map would hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// To one of three lanes, this many records of this many bytes.
    Append(usize, usize, usize),
    /// The oldest records of a lane, be it in the middle of a chunk, up to this many.
    Finish(usize, usize),
    /// The oldest record of a lane.
    Park(usize),
    /// The oldest parked records, up to this many, go to the end of a lane, in one step.
    Unpark(usize, usize),
    /// After an orderly close, or after a kill.
    Reopen(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..500usize, 1 => 90_000..200_000usize];
    let step = prop_oneof![
        6 => (0..3usize, 1..30usize, size).prop_map(|(lane, count, size)| {
            Step::Append(lane, if size > 500 { 1 + count % 3 } else { count }, size)
        }),
        4 => (0..3usize, 1..60usize).prop_map(|(lane, count)| Step::Finish(lane, count)),
        1 => (0..3usize).prop_map(Step::Park),
        1 => (0..3usize, 1..3usize).prop_map(|(lane, count)| Step::Unpark(lane, count)),
        1 => any::<bool>().prop_map(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Default)]
struct Model {
    waiting: BTreeMap<(LaneId, u64), Vec<u8>>,
    parked: BTreeMap<(LaneId, u64), Vec<u8>>,
    next: [u64; 3],
}

impl Model {
    fn oldest(&self, lane: LaneId, count: usize) -> Vec<(LaneId, u64)> {
        let all = self.waiting.range((lane, 0)..=(lane, u64::MAX));
        all.map(|(key, _)| *key).take(count).collect()
    }

    fn finish(&mut self, disk: &Disk, lane: LaneId, count: usize) {
        let finished = self.oldest(lane, count);
        if let Some((_, through)) = finished.last() {
            disk.done(done(lane, *through, finished.len() as u64));
        }
        for key in finished {
            self.waiting.remove(&key);
        }
    }
}

async fn run(steps: Vec<Step>, generation_bytes: u64) {
    let scratch = Scratch::new();
    let options = DiskOptions {
        generation_bytes,
        ..options(scratch.path())
    };
    let (mut disk, _) = Disk::open(&options).unwrap();
    let lanes = [LaneId::fresh(), LaneId::fresh(), LaneId::fresh()];
    let mut model = Model {
        next: [1; 3],
        ..Model::default()
    };
    for step in steps {
        match step {
            Step::Append(at, count, size) => {
                let first = model.next[at];
                let records: Vec<Vec<u8>> = (first..first + count as u64)
                    .map(|number| vec![number as u8; size])
                    .collect();
                let slices: Vec<&[u8]> = records.iter().map(|record| &**record).collect();
                disk.append(chunks(lanes[at], first, &slices))
                    .await
                    .unwrap();
                model.next[at] += count as u64;
                let numbered = (first..).map(|number| (lanes[at], number));
                model.waiting.extend(numbered.zip(records));
            }
            Step::Finish(at, count) => model.finish(&disk, lanes[at], count),
            Step::Park(at) => {
                let Some(&key) = model.oldest(lanes[at], 1).first() else {
                    continue;
                };
                let record = model.waiting[&key].clone();
                let park = Parked {
                    record: record.clone().into(),
                    ..parked(key.0, key.1)
                };
                disk.park(vec![park], done(key.0, key.1, 0)).await.unwrap();
                model.finish(&disk, lanes[at], 1);
                model.parked.insert(key, record);
            }
            Step::Unpark(at, count) => {
                let which: Vec<_> = model.parked.keys().copied().take(count).collect();
                let first = model.next[at];
                let records: Vec<_> = which.iter().map(|key| model.parked[key].clone()).collect();
                let slices: Vec<&[u8]> = records.iter().map(|record| &**record).collect();
                let put = chunks(lanes[at], first, &slices);
                let ids = which
                    .iter()
                    .map(|key| ParkedId::new(key.0, key.1))
                    .collect();
                disk.unpark(ids, put).await.unwrap();
                model.next[at] += which.len() as u64;
                let numbered = (first..).map(|number| (lanes[at], number));
                model.waiting.extend(numbered.zip(records));
                model.parked.retain(|key, _| !which.contains(key));
            }
            Step::Reopen(in_order) => {
                disk.close().await.unwrap();
                if !in_order {
                    let _ = std::fs::remove_file(scratch.path().join("CLEAN"));
                }
                let (again, left) = Disk::open(&options).unwrap();
                disk = again;
                compare_left(&left, &model);
                let recovery = disk.recovery();
                assert_eq!(recovery.clean, in_order);
                assert!(!recovery.has_loss(), "{recovery:?}");
            }
        }
        disk.sync().await.unwrap();
        compare(&disk, &lanes, &model).await;
    }
}

fn compare_left(left: &Left, model: &Model) {
    assert_eq!(left.parked, model.parked.len() as u64);
    let counted: u64 = left.lanes.iter().map(|lane| lane.records).sum();
    assert_eq!(counted, model.waiting.len() as u64);
    for lane in &left.lanes {
        let numbers = model.oldest(lane.lane, usize::MAX);
        assert_eq!(numbers.len() as u64, lane.records);
        assert_eq!(numbers.first(), Some(&(lane.lane, lane.first)));
        assert_eq!(numbers.last(), Some(&(lane.lane, lane.last)));
    }
}

async fn compare(disk: &Disk, lanes: &[LaneId], model: &Model) {
    for lane in lanes {
        let numbers = model.oldest(*lane, usize::MAX);
        let Some(&(_, front)) = numbers.first() else {
            continue;
        };
        let held = disk.read(*lane, front, usize::MAX, usize::MAX).await;
        let read = held.unwrap().into_iter().flat_map(|held| {
            let numbers = held.first..;
            numbers.zip(held.records)
        });
        let read: Vec<_> = read.filter(|(number, _)| *number >= front).collect();
        assert_eq!(read.len(), numbers.len());
        for ((number, record), key) in read.into_iter().zip(numbers) {
            assert_eq!(number, key.1);
            assert!(*record == *model.waiting[&key], "not what was written");
        }
    }
    let parked = disk
        .parked(None, usize::MAX, usize::MAX)
        .await
        .unwrap()
        .into_iter();
    let parked: BTreeMap<_, _> = parked
        .map(|parked| ((parked.lane, parked.number), parked.record.to_vec()))
        .collect();
    assert!(
        parked == model.parked,
        "what is parked is not what the model has"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_spool_holds_what_a_map_would(
        steps in steps(),
        generation_bytes in prop_oneof![Just(1u64), Just(1 << 20), Just(64 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps, generation_bytes));
    }
}

//! Whatever is done, and however often the spool is opened anew, it holds what a map would hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// To one of three lanes, this many records of this many bytes.
    Append(usize, usize, usize),
    /// The oldest chunks of a lane, up to this many records.
    Remove(usize, usize),
    /// The oldest record group of a lane.
    Park(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..500usize, 1 => 90_000..200_000usize];
    let step = prop_oneof![
        6 => (0..3usize, 1..30usize, size).prop_map(|(lane, count, size)| {
            Step::Append(lane, if size > 500 { 1 + count % 3 } else { count }, size)
        }),
        4 => (0..3usize, 1..60usize).prop_map(|(lane, count)| Step::Remove(lane, count)),
        1 => (0..3usize).prop_map(Step::Park),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Default)]
struct Model {
    waiting: BTreeMap<(LaneId, u64), Vec<u8>>,
    parked: BTreeMap<(LaneId, u64), Vec<u8>>,
    next: [u64; 3],
}

async fn run(steps: Vec<Step>) {
    let scratch = Scratch::new();
    let (mut disk, _) = Disk::open(&options(scratch.path())).unwrap();
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
            Step::Remove(at, count) => {
                let held = disk.read(lanes[at], 0, count, usize::MAX).await.unwrap();
                for held in held {
                    for number in held.first..held.end() {
                        model.waiting.remove(&(lanes[at], number));
                    }
                    disk.remove(held.keys);
                }
            }
            Step::Park(at) => {
                let held = disk.read(lanes[at], 0, 1, 1).await.unwrap();
                let Some(held) = held.into_iter().next() else {
                    continue;
                };
                let numbers = held.first..held.end();
                let park = numbers.zip(held.records).map(|(number, record)| {
                    model.waiting.remove(&(lanes[at], number));
                    model.parked.insert((lanes[at], number), record.to_vec());
                    Parked {
                        record,
                        ..parked(lanes[at], number)
                    }
                });
                disk.park(park.collect(), held.keys).await.unwrap();
            }
            Step::Reopen => {
                disk.close().await.unwrap();
                let (again, left) = Disk::open(&options(scratch.path())).unwrap();
                disk = again;
                assert_eq!(left.parked, model.parked.len() as u64);
                let counted: u64 = left.lanes.iter().map(|lane| lane.records).sum();
                assert_eq!(counted, model.waiting.len() as u64);
                for lane in left.lanes {
                    let mut numbers = model.waiting.keys().filter(|(at, _)| *at == lane.lane);
                    assert_eq!(numbers.next(), Some(&(lane.lane, lane.first)));
                    assert_eq!(
                        numbers.next_back().map_or(lane.first, |key| key.1),
                        lane.last
                    );
                }
            }
        }
        disk.sync().await.unwrap();
        compare(&disk, &lanes, &model).await;
    }
}

async fn compare(disk: &Disk, lanes: &[LaneId], model: &Model) {
    let mut waiting = BTreeMap::new();
    for lane in lanes {
        for held in disk.read(*lane, 0, usize::MAX, usize::MAX).await.unwrap() {
            for (number, record) in (held.first..).zip(held.records) {
                waiting.insert((*lane, number), record.to_vec());
            }
        }
    }
    assert!(
        waiting == model.waiting,
        "what waits is not what the model has"
    );
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
    fn a_spool_holds_what_a_map_would(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

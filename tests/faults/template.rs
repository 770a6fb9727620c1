//! Spools to be damaged: of several queues and generations, with long records, parked ones, and lanes of
//! which a part is delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use rand::{Rng as _, rngs::SmallRng};
use seawall::{
    chaos::wait_until,
    spool::{LaneId, OpenError, Replay, Spool, SpoolLayer, SpoolOptions, Spoolable as _, Spooling},
};
use tempfile::TempDir;
use tower::{Layer as _, Service as _};

use crate::{PLENTY, copied, dice, far::Far, record::Record};

/// A spool that was closed in order, and what is in it.
pub(crate) struct Template {
    dir: TempDir,
    far: Far,
    pub(crate) truth: Truth,
}

/// What a spool holds.
#[derive(Clone, Default)]
pub(crate) struct Truth {
    /// By lane and number: the records that have a receipt and are neither delivered nor parked.
    pub(crate) waiting: BTreeMap<(LaneId, u64), (String, u64)>,
    pub(crate) parked: BTreeSet<(LaneId, u64)>,
}

pub(crate) fn options(path: &Path) -> SpoolOptions {
    let millis = Duration::from_millis;
    SpoolOptions::new(path)
        .with_spool_after(millis(1))
        .with_generation_bytes(1 << 20)
        .with_replay(Replay::unpaced().with_delays(millis(1), millis(20)))
}

pub(crate) type Line = Spooling<Record>;

/// Opens, and lets what is there out.
pub(crate) async fn open(
    options: SpoolOptions,
    far: &Far,
) -> Result<(Spool<Record>, Line), OpenError> {
    let spool = Spool::open(options).await?;
    let line = SpoolLayer::new(&spool).layer(far.service());
    Ok((spool, line))
}

/// Hands records in, in order, and waits for their receipts.
pub(crate) async fn hand_in(line: &mut Line, records: Vec<Record>) -> Vec<(LaneId, u64)> {
    let receipts: Vec<_> = records
        .into_iter()
        .map(|record| line.call(record))
        .collect();
    let receipts = join_all(receipts).await.into_iter();
    receipts
        .map(|receipt| {
            let receipt = receipt.unwrap();
            assert!(receipt.is_spooled());
            (receipt.lane(), receipt.number())
        })
        .collect()
}

impl Template {
    pub(crate) async fn make(seed: u64) -> Self {
        let mut dice = dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let far = Far::out();
        let mut truth = Truth::default();
        let queues = dice.random_range(1..=4);
        let mut id = 0;
        for _ in 0..dice.random_range(1..=4) {
            let (spool, mut line) = open(options(&path), &far).await.unwrap();
            for _ in 0..dice.random_range(1..=4) {
                let records = records(&mut dice, queues, &mut id);
                let places = hand_in(&mut line, records.clone()).await;
                for (record, place) in records.iter().zip(places) {
                    let queue = record.queue().to_owned();
                    truth.waiting.insert(place, (queue, record.id().unwrap()));
                }
                if dice.random_bool(0.4) {
                    far.take(dice.random_range(1..100));
                    wait_until("deliveries", PLENTY, || async {
                        far.has_taken_all() || spool.stats().records == 0
                    })
                    .await
                    .unwrap();
                    far.take(0);
                }
            }
            let _ = spool.shutdown(Duration::ZERO).await.unwrap();
            drop(line);
        }
        truth
            .waiting
            .retain(|(lane, number), _| *number > far.last(*lane));
        let (spool, line) = open(options(&path), &far).await.unwrap();
        for parked in spool.parked(usize::MAX).await.unwrap() {
            let place = (parked.lane(), parked.number());
            truth.waiting.remove(&place);
            truth.parked.insert(place);
        }
        let left = spool.shutdown(Duration::ZERO).await.unwrap();
        drop(line);
        assert_eq!(left, truth.waiting.len() as u64, "seed {seed}");
        Self { dir, far, truth }
    }

    /// A copy of it, at `path`.
    pub(crate) fn copy_to(&self, path: &Path) -> Far {
        copied::copy(&self.dir.path().join("spool"), path);
        self.far.copy()
    }
}

/// Some records, a few of them of several chunks, a few that the far end will not take.
pub(crate) fn records(dice: &mut SmallRng, queues: usize, id: &mut u64) -> Vec<Record> {
    let count = dice.random_range(1..150);
    let mut long = dice.random_range(0..4);
    (0..count)
        .map(|_| {
            *id += 1;
            let queue = format!("queue-{}", dice.random_range(0..queues));
            let is_long = long > 0 && dice.random_bool(0.05);
            long -= u32::from(is_long);
            let padding = if is_long {
                dice.random_range(30_000..200_000)
            } else {
                dice.random_range(0..3000)
            };
            Record::new(&queue, *id, dice.random_bool(0.97), padding)
        })
        .collect()
}

/// All files below, with what is in them.
pub(crate) fn contents(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            all.insert(path, Some(bytes));
        }
    }
    all
}

//! A far end that takes each number of a lane once, as Redis does, and writes down what it was given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use seawall::{
    Error,
    classify::{Class, Landed, Verdict},
    spool::{Applied, Batch, LaneId},
};
use tower::{service_fn, util::BoxCloneSyncService};

use crate::record::Record;

/// A handle; clones are the same far end.
#[derive(Clone, Default)]
pub(crate) struct Far(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    /// How many records more it takes before it is gone.
    takes: u64,
    last: HashMap<LaneId, u64>,
    /// By queue, in the order in which they came.
    delivered: BTreeMap<String, Vec<u64>>,
    damaged: u64,
    tells: bool,
}

impl Far {
    /// Gone, as Redis is in an outage.
    pub(crate) fn out() -> Self {
        Self::default()
    }

    /// Another one, in the state that this one is in.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Takes so many records, and is gone again.
    pub(crate) fn take(&self, records: u64) {
        self.0.lock().takes = records;
    }

    pub(crate) fn has_taken_all(&self) -> bool {
        self.0.lock().takes == 0
    }

    /// Says each delivery on the standard output.
    pub(crate) fn tell(&self) {
        self.0.lock().tells = true;
    }

    /// Has had this from an earlier run.
    pub(crate) fn had(&self, queue: &str, lane: LaneId, number: u64, id: u64) {
        let mut state = self.0.lock();
        let last = state.last.entry(lane).or_default();
        *last = number.max(*last);
        state
            .delivered
            .entry(queue.to_owned())
            .or_default()
            .push(id);
    }

    /// What it has been given, by queue.
    pub(crate) fn delivered(&self) -> BTreeMap<String, Vec<u64>> {
        self.0.lock().delivered.clone()
    }

    /// How many records were not what they were when they were handed in.
    pub(crate) fn damaged(&self) -> u64 {
        self.0.lock().damaged
    }

    /// The last number of the lane that it knows.
    pub(crate) fn last(&self, lane: LaneId) -> u64 {
        self.0.lock().last.get(&lane).copied().unwrap_or(0)
    }

    pub(crate) fn service(&self) -> BoxCloneSyncService<Batch<Record>, Applied, Error> {
        let far = self.clone();
        BoxCloneSyncService::new(service_fn(move |batch: Batch<Record>| {
            let applied = far.apply(&batch);
            async move { applied }
        }))
    }

    fn apply(&self, batch: &Batch<Record>) -> Result<Applied, Error> {
        let mut state = self.0.lock();
        let State {
            takes,
            last,
            delivered,
            damaged,
            tells,
        } = &mut *state;
        if batch.ends_lane() {
            return Ok(Applied::all());
        }
        if *takes == 0 {
            return Err(gone());
        }
        let last = last.entry(batch.lane()).or_default();
        for (number, record) in batch.iter() {
            if number <= *last {
                continue;
            }
            if *takes == 0 {
                return Ok(Applied::stopped(number - 1, gone()));
            }
            let record = record.expect("no record of these expires");
            if record.id().is_some() && !record.is_welcome() {
                let never = Verdict::new(Class::Permanent, Landed::No);
                return Ok(Applied::refused(number - 1, 1, Error::foreign(never, "no")));
            }
            *takes -= 1;
            *last = number;
            match record.id() {
                Some(id) => {
                    let queue = delivered.entry(batch.queue().to_owned()).or_default();
                    queue.push(id);
                    if *tells {
                        println!(
                            "@ delivered {} {} {number} {id}",
                            batch.queue(),
                            batch.lane()
                        );
                    }
                }
                None => *damaged += 1,
            }
        }
        Ok(Applied::all())
    }
}

fn gone() -> Error {
    Error::foreign(Verdict::new(Class::Outage, Landed::No), "gone")
}

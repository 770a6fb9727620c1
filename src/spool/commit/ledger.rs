//! What is on disk, counted: the counts that each commit is stamped with.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::Done;
use crate::spool::{
    audit::Verdict,
    chunk::{Chunk, Key, Kind, LaneId, Mark, SpoolId, Stamp, gone},
    dir::Clean,
    parking::ParkedId,
    store::Live,
};

/// The spool as of the last commit. No file is touched here.
#[derive(Debug)]
pub(super) struct Ledger {
    id: SpoolId,
    commit: u64,
    waiting: u64,
    lanes: BTreeMap<LaneId, Lane>,
    parked: BTreeSet<(LaneId, u64)>,
}

#[derive(Clone, Debug)]
struct Lane {
    queue: Arc<str>,
    waiting: u64,
    done: u64,
}

/// What one commit is to change.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) put: Vec<Chunk>,
    pub(super) done: BTreeMap<LaneId, Done>,
    /// Parked records that are gone.
    pub(super) gone: Vec<Key>,
    /// Lanes whose state is to be said again.
    pub(super) again: Vec<LaneId>,
    /// Something to be said by itself.
    pub(super) mark: Option<Mark>,
}

impl Draft {
    pub(super) fn note(&mut self, done: impl IntoIterator<Item = Done>) {
        for done in done {
            let sum = self
                .done
                .entry(done.lane)
                .or_insert(Done { records: 0, ..done });
            sum.through = sum.through.max(done.through);
            sum.records += done.records;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty()
            && self.done.is_empty()
            && self.gone.is_empty()
            && self.again.is_empty()
            && self.mark.is_none()
    }
}

impl Ledger {
    pub(super) fn new(id: SpoolId, verdict: &Verdict) -> Self {
        let mut lanes: BTreeMap<LaneId, Lane> = verdict
            .lanes
            .iter()
            .map(|(lane, (queue, done))| {
                let lane_now = Lane {
                    queue: queue.clone(),
                    waiting: 0,
                    done: *done,
                };
                (*lane, lane_now)
            })
            .collect();
        let mut waiting = 0;
        for left in &verdict.left.lanes {
            waiting += left.records;
            if let Some(lane) = lanes.get_mut(&left.lane) {
                lane.waiting = left.records;
            }
        }
        Self {
            id,
            commit: verdict.commit,
            waiting,
            lanes,
            parked: verdict.parked.clone(),
        }
    }

    /// Number of the last commit that was begun.
    pub(super) fn commit(&self) -> u64 {
        self.commit
    }

    /// The parked records that follow `after`, the oldest lane first.
    pub(super) fn parked_after(&self, after: Option<ParkedId>) -> impl Iterator<Item = ParkedId> {
        let after = after.map(|id| (id.lane(), id.number()));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.parked.range((from, Bound::Unbounded));
        found.map(|(lane, number)| ParkedId::new(*lane, *number))
    }

    pub(super) fn clean(&self) -> Clean {
        let lanes = self.lanes.iter();
        Clean {
            commit: self.commit,
            waiting: self.waiting,
            parked: self.parked.len() as u64,
            lanes: lanes
                .map(|(id, lane)| (*id, lane.waiting, lane.done))
                .collect(),
        }
    }

    /// Begins a commit: counts what it changes, and gives all chunks it takes, stamped.
    pub(super) fn stamp(&mut self, draft: Draft) -> Vec<Chunk> {
        self.commit += 1;
        let Draft {
            mut put,
            done,
            gone: gone_keys,
            again,
            mark,
        } = draft;
        let mut told: BTreeSet<LaneId> = again.into_iter().collect();
        for (id, done) in done {
            if let Some(lane) = self.lanes.get_mut(&id) {
                let records = done.records.min(lane.waiting);
                lane.waiting -= records;
                lane.done = lane.done.max(done.through);
                self.waiting -= records;
                told.insert(id);
            }
        }
        for chunk in &put {
            self.count(chunk);
        }
        for key in gone_keys {
            self.parked.remove(&(key.lane(), key.number()));
            put.push(gone(key));
        }
        // A chunk of records says of its lane what a mark would.
        let told_by_records: BTreeSet<LaneId> = put
            .iter()
            .filter(|chunk| chunk.key.kind() == Kind::Waiting)
            .map(|chunk| chunk.key.lane())
            .collect();
        for id in told.difference(&told_by_records) {
            if let Some(lane) = self.lanes.get(id) {
                put.push(Mark::default().encode(*id, &lane.queue, self.commit));
            }
        }
        if let Some(mark) = mark {
            put.push(mark.encode(LaneId::NONE, "", self.commit));
        }
        let chunks = u32::try_from(put.len()).unwrap_or(u32::MAX);
        for chunk in &mut put {
            let lane = self.lanes.get(&chunk.key.lane());
            let stamp = Stamp {
                commit: self.commit,
                chunks,
                waiting: self.waiting,
                parked: self.parked.len() as u64,
                lane_waiting: lane.map_or(0, |lane| lane.waiting),
                done: lane.map_or(0, |lane| lane.done),
            };
            chunk.stamp(self.id, &stamp);
        }
        put
    }

    fn count(&mut self, chunk: &Chunk) {
        let id = chunk.key.lane();
        match chunk.key.kind() {
            Kind::Waiting => {
                let records = u64::from(chunk.records);
                let lane = self.lanes.entry(id).or_insert_with(|| Lane {
                    queue: chunk.queue().into(),
                    waiting: 0,
                    done: 0,
                });
                lane.waiting += records;
                self.waiting += records;
            }
            Kind::Parked => {
                self.parked.insert((id, chunk.key.number()));
            }
            Kind::Mark | Kind::Gone => {}
        }
    }

    /// Forgets lanes that are done with and of which no generation has anything.
    pub(super) fn forget(&mut self, kept: impl Fn(LaneId) -> bool) {
        self.lanes.retain(|id, lane| lane.waiting > 0 || kept(*id));
    }
}

impl Live for Ledger {
    fn done(&self, lane: LaneId) -> u64 {
        self.lanes.get(&lane).map_or(u64::MAX, |lane| lane.done)
    }

    fn is_parked(&self, lane: LaneId, number: u64) -> bool {
        self.parked.contains(&(lane, number))
    }
}

//! What is in a generation, in short: enough to know whether it is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::Live;
use crate::spool::{
    chunk::{Key, Kind, LaneId},
    crypt::KeyId,
};

/// The lanes and the parked records of a generation.
#[derive(Clone, Debug, Default)]
pub(in crate::spool) struct Contents {
    /// Lanes of which it says something, if only how many of their records waited once.
    told: BTreeSet<LaneId>,
    lanes: BTreeMap<LaneId, Extent>,
    parked: BTreeMap<(LaneId, u64), u64>,
    keys: BTreeSet<KeyId>,
}

/// What there is of a lane.
#[derive(Clone, Copy, Debug)]
struct Extent {
    first: u64,
    last: u64,
    bytes: u64,
}

impl Contents {
    pub(in crate::spool) fn add(&mut self, key: Key, records: u32, bytes: u64) {
        let (lane, first) = (key.lane(), key.number());
        self.told.insert(lane);
        match key.kind() {
            Kind::Waiting => {
                let last = first.saturating_add(u64::from(records.max(1)) - 1);
                let extent = self.lanes.entry(lane).or_insert(Extent {
                    first,
                    last,
                    bytes: 0,
                });
                extent.first = extent.first.min(first);
                extent.last = extent.last.max(last);
                extent.bytes += bytes;
            }
            Kind::Parked => *self.parked.entry((lane, first)).or_default() += bytes,
            Kind::Mark | Kind::Gone => {}
        }
    }

    /// Nothing of it is wanted, but what its stamps say.
    pub(super) fn only_told(&self) -> Self {
        Self {
            told: self.told.clone(),
            ..Self::default()
        }
    }

    /// Some of it is encrypted with this key.
    pub(super) fn needs(&mut self, key: KeyId) {
        self.keys.insert(key);
    }

    /// The keys that something of it is encrypted with.
    pub(super) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().copied()
    }

    /// Whether it says anything of this lane.
    pub(super) fn has(&self, lane: LaneId) -> bool {
        self.told.contains(&lane)
    }

    /// Whether it says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The lanes of which it says anything.
    pub(super) fn lanes(&self) -> impl Iterator<Item = LaneId> {
        self.told.iter().copied()
    }

    /// Parked records that were here, and are gone.
    pub(in crate::spool) fn gone(&self, live: &dyn Live) -> Vec<Key> {
        let parked = self.parked.keys();
        let gone = parked.filter(|(lane, number)| !live.is_parked(*lane, *number));
        gone.map(|(lane, number)| Key::new(Kind::Parked, *lane, *number, 0))
            .collect()
    }

    /// About how many bytes of it are still wanted; 0 exactly if none are.
    pub(in crate::spool) fn live_bytes(&self, live: &dyn Live) -> u64 {
        let waiting = self.lanes.iter().map(|(lane, extent)| {
            let done = live.done(*lane);
            if done >= extent.last {
                return 0;
            }
            let left = (extent.last - done.max(extent.first - 1)) as f64;
            let all = (extent.last - extent.first + 1) as f64;
            (extent.bytes as f64 * left / all).ceil() as u64
        });
        let parked = self.parked.iter().map(|((lane, number), bytes)| {
            if live.is_parked(*lane, *number) {
                *bytes
            } else {
                0
            }
        });
        waiting.chain(parked).sum()
    }

    /// The first number of the lane that is here, if there are any from `from` on.
    pub(in crate::spool) fn first(&self, kind: Kind, lane: LaneId, from: u64) -> Option<u64> {
        match kind {
            Kind::Waiting => {
                let extent = self.lanes.get(&lane)?;
                (extent.last >= from).then_some(extent.first)
            }
            Kind::Parked => {
                let mut later = self.parked.range((lane, from)..=(lane, u64::MAX));
                later.next().map(|((_, number), _)| *number)
            }
            Kind::Mark | Kind::Gone => None,
        }
    }
}

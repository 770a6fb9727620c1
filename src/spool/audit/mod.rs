//! What a spool holds after it was closed, killed, or damaged: decided from the chunks that were found.
//!
//! No file is touched here. Every chunk carries a [`Stamp`] with the counts of the spool and of its lane as of
//! the commit that wrote it, so the newest one says how much there must be, and the numbers say what. One
//! commit alone may be there in part: the last one, which nobody had an answer for. If the spool was closed
//! in order there is none such, and [`Clean`] has the counts.

mod report;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::report::{LaneLoss, Recovery};
use super::{
    chunk::{Frame, Key, Kind, LaneId, Stamp, Void, Voids},
    commit::{Left, LeftLane},
    crypt::KeyId,
    dir::Clean,
    tail::queue_of,
};

/// Takes note of all chunks, generation by generation.
#[derive(Debug, Default)]
pub(super) struct Audit {
    found: Vec<Found>,
    /// Where the generation begins that is being seen.
    generation: usize,
    queues: Vec<Arc<str>>,
    lanes: BTreeMap<LaneId, History>,
    /// The newest stamps, by commit.
    commits: BTreeMap<u64, Stamp>,
    voids: Voids,
    /// The oldest commit of which anything is there, be it a part of a record.
    oldest: Option<u64>,
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) count: u32,
    pub(super) bytes: u32,
    pub(super) encrypted_with: Option<KeyId>,
    parts: u16,
    all_or_nothing: bool,
    pub(super) commit: u64,
    written_ms: u64,
    acknowledged: u64,
    refused: u32,
}

impl Found {
    /// Whether they are parts of the same.
    fn is_with(&self, other: &Self) -> bool {
        self.key.first_part() == other.key.first_part() && self.commit == other.commit
    }
}

/// What the chunks of a lane say about it.
#[derive(Debug, Default)]
struct History {
    queue: usize,
    /// By commit, the newest ones.
    stamps: BTreeMap<u64, Stamp>,
}

/// What is there, what is missing, and how to go on.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) left: Left,
    /// How far each lane that was heard of is done with, and its queue.
    pub(super) lanes: BTreeMap<LaneId, (Arc<str>, u64)>,
    /// The parked records.
    pub(super) parked: BTreeSet<(LaneId, u64)>,
    /// The keys it takes to read what waits and what is parked.
    pub(super) keys: BTreeSet<KeyId>,
    /// The last commit that was heard of.
    pub(super) commit: u64,
    /// The commits that do not count.
    pub(super) voids: Voids,
    /// That is to be written before anything else.
    pub(super) is_news: bool,
    /// The lanes whose own stamps are not what is there now: to be said again next.
    pub(super) again: Vec<LaneId>,
    pub(super) recovery: Recovery,
}

impl Audit {
    /// Takes note of a chunk. The same one may be shown any number of times.
    pub(super) fn see(&mut self, frame: &Frame) {
        let commit = frame.stamp.commit;
        self.oldest = Some(self.oldest.map_or(commit, |oldest| oldest.min(commit)));
        keep_newest(&mut self.commits, frame.stamp);
        let queue = frame.queue();
        let lane = self.lanes.entry(frame.key.lane()).or_default();
        keep_newest(&mut lane.stamps, frame.stamp);
        if !queue.is_empty() {
            lane.queue = match self.queues.iter().position(|known| &**known == queue) {
                Some(at) => at,
                None => {
                    self.queues.push(queue.into());
                    self.queues.len() - 1
                }
            } + 1;
        }
        self.voids.extend(&Voids::said_by(frame));
        self.found.push(Found {
            key: frame.key,
            count: frame.count,
            bytes: u32::try_from(frame.bytes).unwrap_or(u32::MAX),
            encrypted_with: frame.encrypted_with(),
            parts: frame.parts,
            all_or_nothing: frame.all_or_nothing,
            commit,
            written_ms: frame.written_ms,
            acknowledged: frame.acknowledged,
            refused: frame.refused,
        });
    }

    /// All chunks of a generation have been shown: these they are, each once, but those of which parts are
    /// missing. The parts of a record are of one generation.
    pub(super) fn end_generation(&mut self) -> &[Found] {
        let mut seen = self.found.split_off(self.generation);
        seen.sort_unstable_by_key(|chunk| {
            let (commit, part) = (Reverse(chunk.commit), chunk.key.part());
            (chunk.key.first_part(), commit, part)
        });
        seen.dedup_by_key(|chunk| (chunk.key, chunk.commit));
        let written = seen.chunk_by(|a, b| a.is_with(b));
        let whole = written.filter(|parts| parts.len() == usize::from(parts[0].parts));
        let mut seen: Vec<Found> = whole.flatten().copied().collect();
        // However often a write has failed, the stamps before it stay known.
        self.forget_void_stamps();
        let begin = self.found.len();
        self.found.append(&mut seen);
        self.generation = self.found.len();
        &self.found[begin..]
    }

    /// What follows from it all. `withdraw_from` is the commit that failed, if the process
    /// is the same: then no other one can be torn.
    pub(super) fn conclude(mut self, clean: Option<&Clean>, withdraw_from: Option<u64>) -> Verdict {
        let newest = self.last();
        let closed = clean.map_or(0, |clean| clean.commit);
        // What has failed may still come to be there.
        let commit = newest.max(closed).max(withdraw_from.unwrap_or(0));
        let is_in_part = withdraw_from.is_none() && self.is_in_part(newest);
        // What was closed was whole, and has been damaged since.
        let is_torn = is_in_part && clean.is_none();
        if let Some(from) = withdraw_from.or(is_torn.then_some(newest)) {
            self.voids.add(Void {
                from,
                before: commit + 1,
                withdrawn: withdraw_from.is_some(),
            });
        }
        self.forget_void_stamps();
        let unsaid = clean.map_or_else(Vec::new, |clean| self.unsaid(clean));
        for (lane, ..) in clean.iter().flat_map(|clean| &clean.lanes) {
            self.lanes.entry(*lane).or_default();
        }
        let found = self.what_counts();

        let mut verdict = Verdict {
            commit,
            // Also so that the newest commit is there, and whole.
            is_news: is_in_part || withdraw_from.is_some() || newest < closed,
            lanes: self.how_far(clean),
            ..Verdict::default()
        };
        let done = verdict.lanes.iter().map(|(lane, (_, done))| (*lane, *done));
        verdict.left.done = done.collect();
        let there = self.take_stock(&found, clean.is_some(), &mut verdict);
        self.find_loss(clean, &there, &mut verdict);
        let recovery = &mut verdict.recovery;
        recovery.clean = clean.is_some();
        recovery.torn = is_torn;
        for lane in &verdict.left.lanes {
            match queue_of(&lane.queue) {
                Some(_) => recovery.tail += lane.records,
                None => recovery.records += lane.records,
            }
        }
        recovery.parked = verdict.left.parked;
        // So that a loss is reported once, and what was found out is not lost with `CLEAN`.
        verdict.is_news |= recovery.has_loss() || !unsaid.is_empty();
        let lost = recovery.lanes.iter().map(|loss| loss.lane);
        verdict.again.extend(lost.chain(unsaid));
        verdict.voids = self.voids;
        verdict
    }

    /// Whether the newest commit is there only in part.
    fn is_in_part(&self, newest: u64) -> bool {
        let Some(stamp) = self.commits.get(&newest) else {
            return false;
        };
        let there = self.found.iter().filter(|chunk| chunk.commit == newest);
        let keys: BTreeSet<Key> = there.map(|chunk| chunk.key).collect();
        keys.len() < stamp.chunks as usize
    }

    /// The last commit that counts.
    fn last(&self) -> u64 {
        self.commits.keys().next_back().copied().unwrap_or(0)
    }

    fn forget_void_stamps(&mut self) {
        self.commits.retain(|commit, _| !self.voids.has(*commit));
        for lane in self.lanes.values_mut() {
            lane.stamps.retain(|commit, _| !self.voids.has(*commit));
        }
    }

    /// The lanes that were closed in another state than their stamps say: these are damaged.
    fn unsaid(&self, clean: &Clean) -> Vec<LaneId> {
        let lanes = clean.lanes.iter().filter(|(lane, waiting, done)| {
            self.lanes.get(lane).is_some_and(|history| {
                let stamp = history.stamps.values().next_back();
                stamp.map_or((0, 0), |it| (it.lane_waiting, it.done)) != (*waiting, *done)
            })
        });
        lanes.map(|(lane, ..)| *lane).collect()
    }

    /// In the order of the keys: of each those first that the stamps know of, the newest first.
    fn what_counts(&mut self) -> Vec<Found> {
        let mut found = std::mem::take(&mut self.found);
        if let Some(oldest) = self.oldest {
            self.voids.forget_before(oldest);
        }
        found.retain(|chunk| {
            self.voids
                .let_count(chunk.key.kind(), chunk.all_or_nothing, chunk.commit)
        });
        let last = self.last();
        found.sort_unstable_by_key(|chunk| {
            let is_behind = chunk.commit > last;
            let (commit, part) = (Reverse(chunk.commit), chunk.key.part());
            (chunk.key.first_part(), is_behind, commit, part)
        });
        found.dedup_by_key(|chunk| (chunk.key, chunk.commit));
        found
    }

    /// How far each lane is done with.
    fn how_far(&self, clean: Option<&Clean>) -> BTreeMap<LaneId, (Arc<str>, u64)> {
        let lanes = self.lanes.iter().map(|(id, lane)| {
            let said = lane.stamps.values().map(|stamp| stamp.done).max();
            let closed = clean.and_then(|clean| clean.lane(*id));
            let done = said.unwrap_or(0).max(closed.map_or(0, |(_, done)| done));
            let queue = lane.queue.checked_sub(1);
            let queue = queue.map_or_else(|| "".into(), |at| self.queues[at].clone());
            (*id, (queue, done))
        });
        lanes.collect()
    }

    /// Adds all that is there to the verdict, and says how much of it the stamps know of.
    fn take_stock(&self, found: &[Found], is_clean: bool, verdict: &mut Verdict) -> Stock {
        let mut gone = BTreeMap::<(LaneId, u64), u64>::new();
        for chunk in found.iter().filter(|it| it.key.kind() == Kind::Gone) {
            let at = gone
                .entry((chunk.key.lane(), chunk.key.number()))
                .or_default();
            *at = chunk.commit.max(*at);
        }
        // What a torn commit has left is behind the stamps that count.
        let knows = |stamps: &BTreeMap<u64, Stamp>, commit| {
            is_clean || stamps.keys().next_back().is_some_and(|at| *at >= commit)
        };
        let mut there = Stock::default();
        for same in found.chunk_by(|a, b| a.key.first_part() == b.key.first_part()) {
            let id = (same[0].key.lane(), same[0].key.number());
            let mut written = same.chunk_by(|a, b| a.is_with(b));
            let there_is = written.find(|parts| {
                let gone = gone.get(&id).filter(|at| **at >= parts[0].commit);
                parts[0].key.kind() != Kind::Parked || gone.is_none()
            });
            let Some(parts) = there_is else { continue };
            let head = parts[0];
            let bytes = parts.iter().map(|part| u64::from(part.bytes)).sum();
            let keys = parts.iter().filter_map(|part| part.encrypted_with);
            let is_known = knows(&self.commits, head.commit);
            match head.key.kind() {
                Kind::Waiting => {
                    let records = verdict.add_waiting(&head, bytes);
                    if records > 0 {
                        verdict.keys.extend(keys);
                    }
                    if is_known {
                        there.waiting += records;
                    }
                    if knows(&self.lanes[&id.0].stamps, head.commit) {
                        *there.lanes.entry(id.0).or_default() += records;
                    } else if records > 0 && verdict.again.last() != Some(&id.0) {
                        verdict.again.push(id.0);
                    }
                }
                Kind::Parked => {
                    verdict.keys.extend(keys);
                    verdict.parked.insert(id);
                    verdict.left.parked += 1;
                    verdict.left.parked_bytes += bytes;
                    there.parked += u64::from(is_known);
                }
                Kind::Mark | Kind::Gone => {}
            }
        }
        there
    }

    /// Compares what is there with what the last close, or the newest stamp that counts, says.
    fn find_loss(&self, clean: Option<&Clean>, there: &Stock, verdict: &mut Verdict) {
        let newest = self.commits.values().next_back();
        let (waiting, parked) = match (clean, newest) {
            (Some(clean), _) => (clean.waiting, clean.parked),
            (None, Some(stamp)) => (stamp.waiting, stamp.parked),
            (None, None) => (0, 0),
        };
        let mut attributed = 0;
        for (lane, history) in &self.lanes {
            let stamp = history.stamps.values().next_back();
            let expected = match clean {
                Some(clean) => clean.lane(*lane).map_or(0, |(waiting, _)| waiting),
                None => stamp.map_or(0, |stamp| stamp.lane_waiting),
            };
            let there = there.lanes.get(lane).copied().unwrap_or(0);
            let lost = expected.saturating_sub(there);
            if lost > 0 {
                attributed += lost;
                let name = verdict.lanes.get(lane).map_or("", |(name, _)| &**name);
                let tail_of = queue_of(name);
                verdict.recovery.lanes.push(LaneLoss {
                    lane: *lane,
                    queue: tail_of.unwrap_or(name).to_owned(),
                    tail: tail_of.is_some(),
                    records: lost,
                });
            }
        }
        verdict.recovery.lost = waiting.saturating_sub(there.waiting).max(attributed);
        verdict.recovery.lost_parked = parked.saturating_sub(there.parked);
    }
}

/// How much there is of what the stamps know of.
#[derive(Default)]
struct Stock {
    waiting: u64,
    lanes: BTreeMap<LaneId, u64>,
    parked: u64,
}

impl Verdict {
    /// Says how many of the chunk's records wait.
    fn add_waiting(&mut self, chunk: &Found, bytes: u64) -> u64 {
        let lane = chunk.key.lane();
        let Some((queue, done)) = self.lanes.get(&lane) else {
            return 0;
        };
        let begin = chunk.key.number();
        let last = begin.saturating_add(u64::from(chunk.count.max(1)) - 1);
        if last <= *done {
            return 0;
        }
        let first = begin.max(done + 1);
        let records = last - first + 1;
        let lanes = &mut self.left.lanes;
        match lanes.last_mut().filter(|left| left.lane == lane) {
            Some(left) => {
                left.last = left.last.max(last);
                left.records += records;
                left.bytes += bytes;
                left.acknowledged = left.acknowledged.max(chunk.acknowledged);
                left.oldest_ms = left.oldest_ms.min(chunk.written_ms);
            }
            None => lanes.push(LeftLane {
                lane,
                queue: queue.to_string(),
                first,
                last,
                records,
                acknowledged: chunk.acknowledged,
                refused: chunk.refused,
                bytes,
                oldest_ms: chunk.written_ms,
            }),
        }
        records
    }
}

fn keep_newest(stamps: &mut BTreeMap<u64, Stamp>, stamp: Stamp) {
    let known = stamps.entry(stamp.commit).or_insert(stamp);
    known.done = known.done.max(stamp.done);
    if stamps.len() > MOST_STAMPS {
        stamps.pop_first();
    }
}

/// More commits in a row than one generation has that are void.
const MOST_STAMPS: usize = 64;

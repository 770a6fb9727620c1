//! What a spool holds after it was closed, killed, or damaged: decided from the chunks that were found.
//!
//! No file is touched here. Every chunk carries a [`Stamp`] with the counts of the spool and of its lane as of
//! the commit that wrote it, so the newest one says how much there must be, and the numbers say what. One
//! commit alone may be there in part: the last one, which nobody had an answer for. If the spool was closed
//! in order there is none such, and [`Clean`] has the counts.

mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::report::{LaneLoss, Recovery};
use super::{
    chunk::{Frame, Key, Kind, LaneId, Mark, Stamp},
    commit::{Left, LeftLane},
    dir::Clean,
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
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) count: u32,
    pub(super) bytes: u32,
    parts: u16,
    all_or_nothing: bool,
    commit: u64,
    written_ms: u64,
    acknowledged: u64,
    refused: u32,
}

/// What the chunks of a lane say about it.
#[derive(Debug, Default)]
struct History {
    queue: usize,
    /// By commit, the newest ones.
    stamps: BTreeMap<u64, Stamp>,
}

/// Which commits do not count.
#[derive(Clone, Debug, Default)]
pub(super) struct Voids(BTreeSet<Void>);

impl Voids {
    /// Records that were written count, if nobody was told that they failed; all else only if its commit
    /// does.
    pub(super) fn spare(&self, kind: Kind, commit: u64, all_or_nothing: bool) -> bool {
        let mut voids = self
            .0
            .iter()
            .filter(|void| (void.from..void.before).contains(&commit));
        match kind {
            Kind::Waiting | Kind::Parked if !all_or_nothing => voids.all(|void| !void.withdrawn),
            _ => voids.next().is_none(),
        }
    }
}

/// Commits that do not count, from the first to before the last: see [`Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Void {
    from: u64,
    before: u64,
    withdrawn: bool,
}

/// What is there, what is missing, and how to go on.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) left: Left,
    /// How far each lane that was heard of is done with, and its queue.
    pub(super) lanes: BTreeMap<LaneId, (Arc<str>, u64)>,
    /// The parked records.
    pub(super) parked: BTreeSet<(LaneId, u64)>,
    /// The last commit that was heard of.
    pub(super) commit: u64,
    /// What is to be written before anything else, if something has to be.
    pub(super) mark: Option<Mark>,
    /// What was found and is not to be read.
    pub(super) voids: Voids,
    pub(super) recovery: Recovery,
}

impl Audit {
    /// Takes note of a chunk. The same one may be shown any number of times.
    pub(super) fn see(&mut self, frame: &Frame) {
        let commit = frame.stamp.commit;
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
        if let Some(mark) = Mark::of(frame)
            && mark.void_from > 0
        {
            self.voids.0.insert(Void {
                from: mark.void_from,
                before: commit,
                withdrawn: mark.withdrawn,
            });
        }
        self.found.push(Found {
            key: frame.key,
            count: frame.count,
            bytes: u32::try_from(frame.bytes).unwrap_or(u32::MAX),
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
        once(&mut seen);
        let mut seen = whole(&seen);
        let begin = self.found.len();
        self.found.append(&mut seen);
        self.generation = self.found.len();
        &self.found[begin..]
    }

    /// What follows from it all. `withdraw_from` is the commit that failed, if the process is the same.
    pub(super) fn conclude(mut self, clean: Option<&Clean>, withdraw_from: Option<u64>) -> Verdict {
        let newest = self
            .commits
            .last_key_value()
            .map_or(0, |(commit, _)| *commit);
        let mut found = std::mem::take(&mut self.found);
        let commit = newest.max(clean.map_or(0, |clean| clean.commit));
        let mut mark = None;
        if let Some(from) = withdraw_from.filter(|from| *from <= newest) {
            mark = Some(Mark {
                void_from: from,
                withdrawn: true,
            });
        } else if clean.is_none() && self.is_torn(newest, &found) {
            mark = Some(Mark {
                void_from: newest,
                withdrawn: false,
            });
        }
        if let Some(mark) = mark {
            self.voids.0.insert(Void {
                from: mark.void_from,
                before: commit + 1,
                withdrawn: mark.withdrawn,
            });
        }
        once(&mut found);
        found.retain(|chunk| {
            self.voids
                .spare(chunk.key.kind(), chunk.commit, chunk.all_or_nothing)
        });
        let torn_before = self
            .voids
            .0
            .iter()
            .map(|void| (void.from, void.before))
            .collect::<Vec<_>>();
        let is_void = |commit: u64| {
            torn_before
                .iter()
                .any(|(from, before)| (*from..*before).contains(&commit))
        };

        let mut verdict = Verdict {
            commit,
            mark,
            voids: self.voids.clone(),
            ..Verdict::default()
        };
        let none: Arc<str> = Arc::from("");
        for (lane, history) in &self.lanes {
            let stamps = history
                .stamps
                .values()
                .filter(|stamp| !is_void(stamp.commit));
            let mut done = stamps.map(|stamp| stamp.done).max().unwrap_or(0);
            if let Some(clean) = clean.and_then(|clean| clean.lane(*lane)) {
                done = done.max(clean.1);
            }
            let queue = history
                .queue
                .checked_sub(1)
                .map_or(&none, |at| &self.queues[at]);
            verdict.lanes.insert(*lane, (queue.clone(), done));
        }
        let mut counted = BTreeMap::<LaneId, u64>::new();
        let mut counted_parked = 0;
        let gone: BTreeMap<(LaneId, u64), u64> = found
            .iter()
            .filter(|chunk| chunk.key.kind() == Kind::Gone)
            .map(|chunk| ((chunk.key.lane(), chunk.key.number()), chunk.commit))
            .collect();
        for parts in found.chunk_by(|a, b| a.key.first_part() == b.key.first_part()) {
            let head = parts[0];
            // One that was written again may have fewer parts than before.
            let parts: Vec<_> = parts
                .iter()
                .filter(|part| part.commit == head.commit)
                .collect();
            let is_whole = head.key.part() == 0 && parts.len() == usize::from(head.parts);
            if !is_whole {
                continue;
            }
            let bytes = parts.iter().map(|part| u64::from(part.bytes)).sum();
            let id = (head.key.lane(), head.key.number());
            match head.key.kind() {
                Kind::Waiting => {
                    if let Some(records) = verdict.add_waiting(&head, bytes)
                        && !is_void(head.commit)
                    {
                        *counted.entry(id.0).or_default() += records;
                    }
                }
                Kind::Parked if gone.get(&id).is_none_or(|at| *at < head.commit) => {
                    verdict.parked.insert(id);
                    verdict.left.parked += 1;
                    verdict.left.parked_bytes += bytes;
                    counted_parked += u64::from(!is_void(head.commit));
                }
                _ => {}
            }
        }
        self.find_loss(clean, &is_void, &counted, counted_parked, &mut verdict);
        verdict.recovery.clean = clean.is_some();
        verdict.recovery.torn = mark.is_some_and(|mark| !mark.withdrawn);
        verdict.recovery.records = verdict.left.lanes.iter().map(|lane| lane.records).sum();
        verdict.recovery.parked = verdict.left.parked;
        if verdict.mark.is_none() && verdict.recovery.has_loss() {
            // So that it is reported once.
            verdict.mark = Some(Mark::default());
        }
        verdict
    }

    /// Whether the newest commit is there only in part.
    fn is_torn(&self, newest: u64, found: &[Found]) -> bool {
        let Some(stamp) = self.commits.get(&newest) else {
            return false;
        };
        let keys: BTreeSet<Key> = found
            .iter()
            .filter(|chunk| chunk.commit == newest)
            .map(|chunk| chunk.key)
            .collect();
        keys.len() < stamp.chunks as usize
    }

    /// Compares what was counted with what the last close, or the newest stamp that counts, says.
    fn find_loss(
        &self,
        clean: Option<&Clean>,
        is_void: &dyn Fn(u64) -> bool,
        counted: &BTreeMap<LaneId, u64>,
        counted_parked: u64,
        verdict: &mut Verdict,
    ) {
        let newest = self
            .commits
            .values()
            .rev()
            .find(|stamp| !is_void(stamp.commit));
        let (waiting, parked) = match (clean, newest) {
            (Some(clean), _) => (clean.waiting, clean.parked),
            (None, Some(stamp)) => (stamp.waiting, stamp.parked),
            (None, None) => (0, 0),
        };
        let mut attributed = 0;
        for (lane, history) in &self.lanes {
            let stamp = history
                .stamps
                .values()
                .rev()
                .find(|stamp| !is_void(stamp.commit));
            let expected = match clean {
                Some(clean) => clean.lane(*lane).map_or(0, |(waiting, _)| waiting),
                None => stamp.map_or(0, |stamp| stamp.lane_waiting),
            };
            let there = counted.get(lane).copied().unwrap_or(0);
            let lost = expected.saturating_sub(there);
            if lost > 0 {
                attributed += lost;
                let queue = verdict.lanes.get(lane).map(|(queue, _)| queue.to_string());
                verdict.recovery.lanes.push(LaneLoss {
                    lane: *lane,
                    queue: queue.unwrap_or_default(),
                    records: lost,
                });
            }
        }
        let all: u64 = counted.values().sum();
        verdict.recovery.lost = waiting.saturating_sub(all).max(attributed);
        verdict.recovery.lost_parked = parked.saturating_sub(counted_parked);
    }
}

impl Verdict {
    /// Says how many of the chunk's records wait, if any do.
    fn add_waiting(&mut self, chunk: &Found, bytes: u64) -> Option<u64> {
        let lane = chunk.key.lane();
        let (queue, done) = self.lanes.get(&lane)?;
        let begin = chunk.key.number();
        let last = begin.saturating_add(u64::from(chunk.count.max(1)) - 1);
        if last <= *done {
            return None;
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
        Some(records)
    }
}

/// In the order of the keys, and of each key the newest.
fn once(found: &mut Vec<Found>) {
    found.sort_unstable_by_key(|chunk| (chunk.key, std::cmp::Reverse(chunk.commit)));
    found.dedup_by_key(|chunk| chunk.key);
}

/// What is there with all of its parts, of what is in the order of the keys.
fn whole(found: &[Found]) -> Vec<Found> {
    let mut whole = Vec::with_capacity(found.len());
    for parts in found.chunk_by(|a, b| a.key.first_part() == b.key.first_part()) {
        let head = parts[0];
        // One that was written again may have fewer parts than before.
        let parts = parts.iter().filter(|part| part.commit == head.commit);
        let begin = whole.len();
        whole.extend(parts);
        if head.key.part() > 0 || whole.len() - begin != usize::from(head.parts) {
            whole.truncate(begin);
        }
    }
    whole
}

fn keep_newest(stamps: &mut BTreeMap<u64, Stamp>, stamp: Stamp) {
    let known = stamps.entry(stamp.commit).or_insert(stamp);
    known.done = known.done.max(stamp.done);
    if stamps.len() > MOST_STAMPS {
        stamps.pop_first();
    }
}

/// More commits in a row than can be void.
const MOST_STAMPS: usize = 64;

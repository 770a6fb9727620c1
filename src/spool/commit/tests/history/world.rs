//! The ledger and the audit over a disk that is a list.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::sample::Index;

use super::{
    super::{
        super::ledger::{Draft, Ledger},
        *,
    },
    Act, Step,
};
use crate::spool::{
    audit::{Audit, Verdict},
    chunk::{Gather, SpoolId},
    dir::Clean,
    store::{Contents, Live as _, Reclaim},
};

/// What must be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) waiting: BTreeMap<(LaneId, u64), Vec<u8>>,
    pub(super) parked: BTreeSet<(LaneId, u64)>,
}

/// What is on the disk.
#[derive(Default)]
struct Generation {
    number: u64,
    chunks: Vec<(Key, Bytes)>,
    contents: Contents,
}

pub(super) struct World {
    generations: Vec<Generation>,
    pub(super) ledger: Ledger,
    pub(super) model: Model,
    /// All there ever were; appended to are only those of this run, the last two.
    lanes: Vec<LaneId>,
    next: BTreeMap<LaneId, u64>,
    /// What was to be noted by a commit that failed.
    pending: BTreeMap<LaneId, Done>,
    /// So that no two records are alike.
    salt: u64,
}

const ID: SpoolId = SpoolId::from_bytes(*b"of tests");

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            generations: Vec::new(),
            ledger: Ledger::new(ID, &Verdict::default()),
            model: Model::default(),
            lanes: Vec::new(),
            next: BTreeMap::new(),
            pending: BTreeMap::new(),
            salt: 0,
        };
        world.begin_generation();
        world.begin_lanes();
        world
    }

    fn begin_generation(&mut self) {
        let number = self.generations.last().map_or(1, |last| last.number + 1);
        self.generations.push(Generation {
            number,
            ..Generation::default()
        });
    }

    fn begin_lanes(&mut self) {
        for _ in 0..2 {
            let lane = LaneId::fresh();
            self.lanes.push(lane);
            self.next.insert(lane, 1);
        }
    }

    fn oldest(&self, lane: LaneId, count: usize) -> Vec<u64> {
        let all = self.model.waiting.range((lane, 0)..=(lane, u64::MAX));
        all.map(|((_, number), _)| *number).take(count).collect()
    }

    fn write_records(&mut self, lane: LaneId, sizes: &[usize], after: &mut Model) -> Vec<Chunk> {
        let first = self.next[&lane];
        let mut writer = Writer::new(lane, "q", first, 0, 1, 0);
        for (number, size) in (first..).zip(sizes) {
            self.salt += 1;
            let mut record = self.salt.to_le_bytes().to_vec();
            record.resize(8 + size, 1);
            writer.push_if(|buffer| buffer.extend_from_slice(&record), |_| true);
            after.waiting.insert((lane, number), record);
        }
        self.next.insert(lane, first + sizes.len() as u64);
        writer.finish()
    }

    /// The draft of a commit, and what there is after it.
    fn draft(&mut self, acts: &[Act]) -> (Draft, Model) {
        let mut draft = Draft {
            done: std::mem::take(&mut self.pending),
            ..Draft::default()
        };
        let mut after = self.model.clone();
        let run = self.lanes.len() - 2;
        for act in acts {
            match act {
                Act::Append(lane, sizes) => {
                    let put = self.write_records(self.lanes[run + lane], sizes, &mut after);
                    draft.put.extend(put);
                }
                Act::Finish(lane, count) => {
                    let lane = *lane.get(&self.lanes);
                    let already = draft.done.get(&lane).map_or(0, |done| done.through);
                    let mut finished = self.oldest(lane, usize::MAX);
                    finished.retain(|number| *number > already);
                    finished.truncate(*count);
                    if let Some(through) = finished.last() {
                        let sum = draft.done.entry(lane).or_insert(done(lane, 0, 0));
                        sum.through = *through;
                        sum.records += finished.len() as u64;
                    }
                }
                Act::Park(lane) => {
                    let lane = *lane.get(&self.lanes);
                    if let Some(number) = self.oldest(lane, 1).first() {
                        let size = if number % 3 == 0 { 40_000 } else { 10 };
                        let parked = Parked {
                            record: vec![7; size].into(),
                            ..parked(lane, *number)
                        };
                        let put = parked.encode().into_iter();
                        draft.put.extend(put.map(Chunk::all_or_nothing));
                        after.parked.insert((lane, *number));
                    }
                }
                Act::Unpark(lane, count) => {
                    let which: Vec<_> = self.model.parked.iter().copied().take(*count).collect();
                    let sizes = vec![5; which.len()];
                    let put = self.write_records(self.lanes[run + lane], &sizes, &mut after);
                    draft.put.extend(put.into_iter().map(Chunk::all_or_nothing));
                    for (lane, number) in which {
                        draft.gone.push(Key::new(Kind::Parked, lane, number, 0));
                        after.parked.remove(&(lane, number));
                    }
                }
            }
        }
        // As in the ledger, what is gone is gone although the same commit parks it.
        for key in &draft.gone {
            after.parked.remove(&(key.lane(), key.number()));
        }
        for done in draft.done.values() {
            let lane = done.lane;
            after
                .waiting
                .retain(|(at, number), _| *at != lane || *number > done.through);
        }
        (draft, after)
    }

    /// Writes those chunks of a commit that the mask has. Says whether that is all.
    fn put(&mut self, chunks: Vec<Chunk>, mask: u64) -> bool {
        let mut all = true;
        let generation = self.generations.last_mut().unwrap();
        for (at, chunk) in chunks.into_iter().enumerate() {
            if mask >> (at % 64) & 1 == 1 {
                generation
                    .contents
                    .add(chunk.key, chunk.records, chunk.bytes());
                generation.chunks.push((chunk.key, chunk.value.into()));
            } else {
                all = false;
            }
        }
        all
    }

    /// As the thread does it. Says whether all was written.
    fn commit(&mut self, draft: Draft, mask: u64) -> bool {
        if draft.is_empty() {
            return true;
        }
        let chunks = self.ledger.stamp(draft);
        self.put(chunks, mask)
    }

    fn reclaim(&mut self) {
        loop {
            let (active, sealed) = self.generations.split_last().unwrap();
            let sizes: Vec<_> = sealed
                .iter()
                .map(|generation| {
                    let bytes = generation.chunks.iter().map(|(_, value)| value.len());
                    // What else is in sled's files makes it likely that something is copied.
                    (
                        generation.number,
                        3 * bytes.sum::<usize>() as u64,
                        &generation.contents,
                    )
                })
                .collect();
            let Some(reclaim) = Reclaim::plan(
                &sizes,
                Some(&active.contents),
                u64::MAX,
                u64::MAX,
                &self.ledger,
            ) else {
                return;
            };
            self.commit(
                Draft {
                    again: reclaim.lanes.clone(),
                    gone: reclaim.gone.clone(),
                    voids: reclaim.others_stay,
                    ..Draft::default()
                },
                u64::MAX,
            );
            let at = self
                .generations
                .iter()
                .position(|it| it.number == reclaim.generation);
            let gone = self.generations.remove(at.unwrap());
            for (key, value) in gone.chunks {
                let frame = Frame::parse(key, &value).unwrap();
                let is_live = match key.kind() {
                    Kind::Waiting => {
                        let last = key.number() + u64::from(frame.count.max(1)) - 1;
                        last > self.ledger.done(key.lane())
                    }
                    Kind::Parked => self.ledger.is_parked(key.lane(), key.number()),
                    _ => false,
                };
                if is_live {
                    let active = self.generations.last_mut().unwrap();
                    active.contents.add(key, frame.count, frame.bytes);
                    active.chunks.push((key, value));
                }
            }
        }
    }

    pub(super) fn audit(&self, clean: Option<&Clean>, withdraw_from: Option<u64>) -> Verdict {
        let mut audit = Audit::default();
        for generation in &self.generations {
            for (key, value) in &generation.chunks {
                audit.see(&Frame::parse(*key, value).unwrap());
            }
            audit.end_generation();
        }
        audit.conclude(clean, withdraw_from)
    }

    /// What would be read, given the verdict.
    pub(super) fn readable(&self, verdict: &Verdict) -> Model {
        let mut written = BTreeMap::<(Key, u64), BTreeMap<u16, Frame>>::new();
        for (key, value) in self.generations.iter().flat_map(|it| &it.chunks) {
            let frame = Frame::parse(*key, value).unwrap();
            if verdict.voids.let_count_frame(&frame) {
                let parts = written.entry((key.first_part(), frame.stamp.commit));
                parts.or_default().insert(key.part(), frame);
            }
        }
        let mut there = Model::default();
        for ((first, _), parts) in written {
            let (kind, all) = (first.kind(), parts.into_values().collect::<Vec<_>>());
            if !matches!(kind, Kind::Waiting | Kind::Parked)
                || all.len() != usize::from(all[0].parts)
            {
                continue;
            }
            if kind == Kind::Parked {
                // Whether it is gone is for the audit to say.
                there.parked.insert((first.lane(), first.number()));
                continue;
            }
            let mut gather = Gather::default();
            let whole = all
                .into_iter()
                .find_map(|part| gather.push(part).unwrap())
                .unwrap();
            let held = Held::of(whole).unwrap();
            let done = verdict.lanes[&held.lane].1;
            for (number, record) in (held.first..).zip(held.records) {
                if number > done {
                    there.waiting.insert((held.lane, number), record.to_vec());
                }
            }
        }
        assert!(there.parked.is_superset(&verdict.parked));
        there.parked.clone_from(&verdict.parked);
        there
    }

    /// Says what the audit has found, as the thread does, and goes on from there.
    pub(super) fn settle_in(&mut self, verdict: &Verdict, mask: u64) -> bool {
        self.ledger = Ledger::new(ID, verdict);
        self.begin_generation();
        // The first is one chunk, there or not.
        let told = Draft {
            voids: verdict.is_news,
            ..Draft::default()
        };
        if !self.commit(told, mask) {
            return false;
        }
        let again = Draft {
            again: verdict.again.clone(),
            done: std::mem::take(&mut self.pending),
            ..Draft::default()
        };
        let noted = again.done.clone();
        if !self.commit(again, mask >> 1) {
            self.pending = noted;
            return false;
        }
        self.apply_done(&noted);
        true
    }

    fn apply_done(&mut self, noted: &BTreeMap<LaneId, Done>) {
        for done in noted.values() {
            self.model
                .waiting
                .retain(|(at, number), _| *at != done.lane || *number > done.through);
        }
    }

    pub(super) fn check(&self, verdict: &Verdict, what: &str) {
        let recovery = &verdict.recovery;
        assert!(!recovery.has_loss(), "{what}: {recovery:?}");
        assert!(recovery.lanes.is_empty(), "{what}: {recovery:?}");
        let there = self.readable(verdict);
        assert_eq!(there.parked, self.model.parked, "{what}");
        let numbers = |model: &Model| model.waiting.keys().copied().collect::<Vec<_>>();
        assert_eq!(numbers(&there), numbers(&self.model), "{what}");
        assert!(there == self.model, "{what}: other records");
        assert_eq!(verdict.left.parked, self.model.parked.len() as u64);
        let waiting = self.model.waiting.len() as u64;
        assert_eq!(recovery.records, waiting, "{what}");
        for left in &verdict.left.lanes {
            let numbers = self.oldest(left.lane, usize::MAX);
            assert_eq!(numbers.len() as u64, left.records, "{what}");
            assert_eq!(numbers.first(), Some(&left.first), "{what}");
            assert_eq!(numbers.last(), Some(&left.last), "{what}");
        }
        let clean = Ledger::new(ID, verdict).clean();
        assert_eq!(clean.waiting, waiting, "{what}");
    }

    /// What a torn commit leaves: whole records, unless they are to be exchanged for something.
    fn take_torn(&mut self, chunks: &[Chunk], mask: u64, after: Model) {
        let is_there = |at: usize| mask >> (at % 64) & 1 == 1;
        let keys = |at: &dyn Fn(usize) -> bool| -> BTreeSet<Key> {
            let chunks = chunks.iter().enumerate();
            chunks
                .filter(|(n, _)| at(*n))
                .map(|(_, it)| it.key)
                .collect()
        };
        if keys(&is_there) == keys(&|_| true) {
            self.model = after;
            return;
        }
        let mut records = BTreeMap::<Key, BTreeMap<u16, Frame>>::new();
        for (at, chunk) in chunks.iter().enumerate() {
            let value = Bytes::copy_from_slice(&chunk.value);
            let frame = Frame::find(&value).unwrap();
            let holds_records = matches!(frame.key.kind(), Kind::Waiting | Kind::Parked);
            if is_there(at) && holds_records && !frame.all_or_nothing {
                records
                    .entry(frame.key.first_part())
                    .or_default()
                    .insert(frame.key.part(), frame);
            }
        }
        for (key, parts) in records {
            let parts: Vec<_> = parts.into_values().collect();
            if parts.len() != usize::from(parts[0].parts) || parts[0].key.part() != 0 {
                continue;
            }
            let (lane, first) = (key.lane(), key.number());
            if key.kind() == Kind::Parked {
                self.model.parked.insert((lane, first));
                continue;
            }
            for number in first..first + u64::from(parts[0].count) {
                let record = after.waiting[&(lane, number)].clone();
                self.model.waiting.insert((lane, number), record);
            }
        }
    }

    /// Takes a chunk away, all copies of it, unless it is the only one that tells how much there must be.
    pub(super) fn spoil(&mut self, index: Index, is_closed: bool) {
        let all = self.generations.iter().flat_map(|it| &it.chunks);
        let frames: Vec<_> = all
            .map(|(key, value)| Frame::parse(*key, value).unwrap())
            .collect();
        let Some(last) = frames.iter().map(|frame| frame.stamp.commit).max() else {
            return;
        };
        let victim = index.get(&frames);
        let (key, commit) = (victim.key, victim.stamp.commit);
        let voids = self.audit(None, None).voids;
        let is_last_of_lane = frames.iter().all(|frame| {
            let (lane, at) = (frame.key.lane(), frame.stamp.commit);
            lane != key.lane() || at <= commit || voids.has(at)
        });
        let tells_alone = match key.kind() {
            Kind::Gone => true,
            Kind::Mark if key.lane() == LaneId::NONE => true,
            _ => !is_closed && (commit == last || is_last_of_lane),
        };
        if !tells_alone {
            for generation in &mut self.generations {
                let chunks = &mut generation.chunks;
                chunks.retain(|(at, value)| {
                    *at != key || Frame::parse(*at, value).unwrap().stamp.commit != commit
                });
            }
        }
    }

    /// The process dies in this commit; of its chunks those of the mask are there.
    pub(super) fn die(&mut self, acts: &[Act], mask: u64) {
        let (draft, after) = self.draft(acts);
        let chunks = self.ledger.stamp(draft);
        self.take_torn(&chunks, mask, after);
        self.put(chunks, mask);
        self.pending.clear();
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(acts) => {
                let (draft, after) = self.draft(acts);
                self.commit(draft, u64::MAX);
                self.model = after;
            }
            Step::RollOver => self.begin_generation(),
            Step::Reclaim => self.reclaim(),
            Step::Restart => {
                let clean = self.ledger.clean();
                let verdict = self.audit(Some(&clean), None);
                self.check(&verdict, "closed");
                self.settle_in(&verdict, u64::MAX);
                self.begin_lanes();
            }
            Step::Crash(acts, masks) => {
                self.die(acts, masks[0]);
                for mask in masks[1..].iter().chain([&u64::MAX]) {
                    let verdict = self.audit(None, None);
                    self.check(&verdict, "crashed");
                    self.settle_in(&verdict, *mask);
                }
                self.begin_lanes();
            }
            Step::Fail(acts, masks) => {
                let next = self.next.clone();
                let (draft, _) = self.draft(acts);
                // The numbers are free again.
                self.next = next;
                let noted = draft.done.clone();
                let chunks = self.ledger.stamp(draft);
                let mut from = self.ledger.commit();
                let late: Vec<(Key, Bytes)> = chunks
                    .iter()
                    .map(|chunk| (chunk.key, Bytes::copy_from_slice(&chunk.value)))
                    .collect();
                let failed = self.generations.len() - 1;
                self.put(chunks, masks[0]);
                self.pending = noted;
                for mask in masks[1..].iter().chain([&u64::MAX]) {
                    let verdict = self.audit(None, Some(from));
                    self.check(&verdict, "failed");
                    if self.settle_in(&verdict, *mask) {
                        break;
                    }
                    from = from.min(self.ledger.commit());
                }
                // What has failed may come to be there although it was not when it was looked for.
                self.generations[failed].chunks.extend(late);
            }
        }
    }
}

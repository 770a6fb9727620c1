//! A tail's way to disk and back: what is too much for memory, and what an earlier run has left.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Queue, unix_ms};
use crate::spool::{
    Batch, LaneId, Spoolable,
    chunk::{Held, Writer},
    commit::Done,
    error::StoreError,
    tail::{Gone, OnDisk, Piece, tail_of},
};

/// Entries of the tail that are being written.
pub(super) struct Spilling {
    /// The lane and the last number of each, and where they will be.
    entries: Vec<(LaneId, u64, OnDisk)>,
    records: u64,
    bytes: u64,
    /// From then on nobody is to wait for it.
    pub(super) give_up: Instant,
    answer: BoxFuture<'static, Result<(), StoreError>>,
}

/// Records of a tail that are being read.
pub(super) type Reading = BoxFuture<'static, Result<Vec<Held>, StoreError>>;

impl Spilling {
    pub(super) fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), StoreError>> {
        self.answer.as_mut().poll(cx)
    }
}

impl<T: Spoolable> Queue<T> {
    // ===== there =====

    /// Writes down the oldest entries if there are too many in memory, and those that somebody has waited
    /// for for too long.
    pub(super) fn start_spill(&mut self, now: Instant) {
        let keeping = &self.keeping;
        let Some(options) = keeping.options.filter(|_| keeping.spills()) else {
            return;
        };
        if keeping.spilling.is_some() || keeping.spill_failed.is_some_and(|until| until > now) {
            return;
        }
        let overdue = self.overdue_confirmation(now);
        let too_much = self.shared.tail_bytes.load(Relaxed) > options.max_memory;
        if !too_much && overdue.is_none() {
            return;
        }
        self.make_room_on_disk(options.max_disk);
        let bytes = if too_much { SPILL_BYTES } else { 0 };
        let wanted = self.keeping.tail.to_spill(bytes, overdue).next().is_some();
        self.keeping.spill_failed = None;
        if !wanted && overdue.is_none() {
            // It is another queue's.
            return;
        }
        self.keeping.spilling = self.spill(bytes, overdue, now);
        if self.keeping.spilling.is_none() {
            self.keeping.spill_failed = Some(now + SPILL_PAUSE);
        }
    }

    /// The oldest on disk are given up for those that come.
    fn make_room_on_disk(&mut self, most: u64) {
        let mut given_up = 0;
        while self.keeping.tail.size().disk_bytes > most
            && let Some(((_, first, last), gone)) = self.keeping.tail.shed()
        {
            given_up += last - first + 1;
            self.off_the_disk(&[gone]);
        }
        self.note_given_up(given_up);
    }

    fn spill(
        &mut self,
        bytes: usize,
        through: Option<(LaneId, u64)>,
        now: Instant,
    ) -> Option<Spilling> {
        let name = tail_of(&self.name)?;
        let own = self.keeping.own;
        let (lane, mut next) = own.unwrap_or_else(|| (LaneId::fresh(), 0));
        let (shared, slot) = (&self.shared, self.slot);
        let overhead = shared.disk.overhead();
        let written = unix_ms(SystemTime::now());
        let mut writer = Writer::new(lane, &name, next + 1, 0, written, overhead);
        shared.usage.measured(shared.disk.bytes());
        let mut entries: Vec<(LaneId, u64, OnDisk)> = Vec::new();
        let (mut total, begun) = (0, next);
        for entry in self.keeping.tail.to_spill(bytes, through) {
            let Some(batch) = &entry.memory else { continue };
            let (first, mut taken, mut full) = (next + 1, 0, false);
            for (number, record) in (batch.first()..).zip(batch.records()) {
                let write = |into: &mut Vec<u8>| {
                    Piece::begin(batch.lane(), number, into);
                    record.encode(into);
                };
                let fits = |more| {
                    let fits = shared.usage.admit(slot, more, []).is_ok();
                    taken += if fits { more } else { 0 };
                    fits
                };
                if !writer.push_if(write, fits) {
                    full = true;
                    break;
                }
                next += 1;
            }
            total += taken;
            let disk = OnDisk {
                lane,
                first,
                last: next,
                bytes: taken,
            };
            match entries.last_mut() {
                // What there is of an entry that is not there whole goes with the one before it.
                Some((_, _, before)) if full => {
                    before.last = next;
                    before.bytes += taken;
                }
                _ if full => {}
                _ => entries.push((entry.lane, entry.last, disk)),
            }
            if full {
                break;
            }
        }
        let records = next - begun;
        shared.usage.note_tail(records);
        if entries.is_empty() {
            // Whoever waits for room is not to be woken for nothing.
            if records > 0 {
                shared.usage.settle(total);
                shared.usage.free_tail(slot, records, total);
            }
            return None;
        }
        self.keeping.own = Some((lane, next));
        let (disk, chunks) = (shared.disk.clone(), writer.finish());
        Some(Spilling {
            entries,
            records,
            bytes: total,
            give_up: now + shared.options.disk_timeout,
            answer: async move { disk.append(chunks).await }.boxed(),
        })
    }

    pub(super) fn on_spilled(&mut self, answer: &Result<(), StoreError>, now: Instant) {
        let Some(spilling) = self.keeping.spilling.take() else {
            return;
        };
        self.shared.usage.settle(spilling.bytes);
        match answer {
            Ok(()) => {
                for (lane, last, disk) in spilling.entries {
                    // One that is safe by now is not wanted there, and neither are those before it.
                    let unwanted = Gone {
                        disk: Some(disk),
                        mark: None,
                    };
                    let spilled = self.keeping.tail.spilled(lane, last, disk);
                    self.off_the_disk(&[spilled.unwrap_or(unwanted)]);
                }
            }
            Err(_) => {
                let usage = &self.shared.usage;
                usage.free_tail(self.slot, spilling.records, spilling.bytes);
                // What is on disk of it has these numbers.
                self.keeping.own = None;
                self.keeping.spill_failed = Some(now + SPILL_PAUSE);
            }
        }
        self.show_tail();
    }

    /// These are not wanted any more.
    pub(super) fn off_the_disk(&self, gone: &[Gone]) {
        for Gone { disk, mark } in gone {
            if let Some(disk) = disk {
                self.shared
                    .usage
                    .free_tail(self.slot, disk.records(), disk.bytes);
                self.shared.disk.done(Done {
                    lane: disk.lane,
                    through: disk.last,
                    records: disk.records(),
                });
            }
            if let Some(mark) = mark {
                self.shared.disk.done(*mark);
            }
        }
    }

    /// At the end of the queue: waits a moment for the replicas, and leaves on disk for the next run what
    /// they lack.
    pub(super) async fn end_tail(&mut self, until: Instant) {
        let patience = until.min(Instant::now() + END_PATIENCE);
        let changes = self.keeping.watch();
        if let Some(mut changes) = changes.filter(|_| self.keeping.spills()) {
            loop {
                self.on_replicas();
                self.trim(Instant::now());
                if self.keeping.tail.is_empty() {
                    break;
                }
                self.keeping.hurry();
                let changed = timeout_at(patience, changes.changed()).await;
                if !matches!(changed, Ok(Ok(()))) {
                    break;
                }
            }
        }
        let disk_timeout = self.shared.options.disk_timeout;
        // What is known to be lost is worth it in any case.
        while self.keeping.spills() || self.keeping.loses() {
            if self.keeping.spilling.is_none() {
                self.keeping.spilling = self.spill(SPILL_BYTES, None, Instant::now());
            }
            let Some(spilling) = &mut self.keeping.spilling else {
                break;
            };
            let Ok(answer) = timeout(disk_timeout, &mut spilling.answer).await else {
                break;
            };
            self.on_spilled(&answer, Instant::now());
            if answer.is_err() {
                break;
            }
        }
        if !self.keeping.spills() {
            // Nobody will ask for them, and Redis may forget the lane.
            let marks = self.keeping.tail.take_marks();
            self.off_the_disk(&marks);
        }
    }

    // ===== and back =====

    /// Reads an entry that is missing.
    pub(super) fn load(&mut self, from: OnDisk) {
        if self.keeping.reading.is_none() {
            let disk = self.shared.disk.clone();
            let records = usize::try_from(from.records()).unwrap_or(usize::MAX);
            let reading = async move {
                let (mut read, mut next) = (Vec::new(), from.first);
                // Each reading ends with a chunk, of which the first may begin in front of it.
                while next <= from.last {
                    let more = disk.read(from.lane, next, records, usize::MAX).await?;
                    let Some(last) = more.last() else { break };
                    next = last.end();
                    read.extend(more);
                }
                Ok(read)
            };
            self.keeping.reading = Some(reading.boxed());
        }
    }

    /// Reads on in what an earlier run has left, to see what it is.
    pub(super) fn index_left(&mut self, now: Instant) {
        if self.keeping.reading.is_some() || self.keeping.pace.wait_until(now).is_some() {
            return;
        }
        if let Some(left) = self.keeping.left.front() {
            let (lane, from) = (left.lane, left.front);
            let disk = self.shared.disk.clone();
            let reading = async move { disk.read(lane, from, INDEX_RECORDS, SPILL_BYTES).await };
            self.keeping.reading = Some(reading.boxed());
        }
    }

    pub(super) fn on_tail_read(&mut self, read: Result<Vec<Held>, StoreError>, now: Instant) {
        self.keeping.reading = None;
        match read {
            Err(error) => {
                tracing::warn!(queue = &*self.name, %error, "a tail on disk cannot be read");
                self.keeping.pace.failed(None, now, rand::random());
            }
            Ok(chunks) if self.keeping.left.is_empty() => self.on_loaded(&chunks),
            Ok(chunks) => self.on_indexed(&chunks, now),
        }
        self.show_tail();
    }

    fn on_loaded(&mut self, chunks: &[Held]) {
        let Some(entry) = self.keeping.tail.first_missing() else {
            return;
        };
        let (lane, first, last) = (entry.lane, entry.first, entry.last);
        let pieces = chunks.iter().flat_map(|chunk| &chunk.records);
        let mut records = Vec::new();
        let mut size = 0;
        for piece in pieces.filter_map(|bytes| Piece::read(bytes.clone())) {
            let next = first + records.len() as u64;
            if piece.lane == lane && piece.number == next && next <= last {
                let Ok(record) = T::decode(&self.name, piece.record) else {
                    break;
                };
                size += record.size();
                records.push(record);
            }
        }
        if records.len() as u64 != last - first + 1 {
            let lost = self.keeping.tail.give_up_missing(last);
            self.count_lost(lost, "it cannot be read back");
            return;
        }
        let batch = Batch::new(lane, self.name.clone(), first, records);
        self.keeping.tail.loaded(batch, size);
    }

    /// Takes note of where everything is; the records themselves are read again if they are missing.
    fn on_indexed(&mut self, chunks: &[Held], now: Instant) {
        let options = &self.shared.options;
        let keeping = &mut self.keeping;
        let Some(left) = keeping.left.front_mut() else {
            return;
        };
        let Some(end) = chunks.last().map(Held::end) else {
            keeping.left.pop_front();
            if keeping.left.is_empty() {
                keeping.passed = None;
            }
            return;
        };
        let from = left.front;
        left.front = end;
        let mut group: Option<Group> = None;
        for chunk in chunks {
            let numbered = (chunk.first..).zip(&chunk.records);
            for (at, bytes) in numbered.filter(|(at, _)| *at >= from) {
                // One that is no piece is counted with those before it, and is not asked for.
                let piece = Piece::read(bytes.clone());
                let open = group.as_ref();
                let goes_on = open.is_some_and(|group| {
                    group.size + bytes.len() <= options.max_batch_bytes
                        && group.records() < options.max_batch_records as u64
                        && piece
                            .as_ref()
                            .is_none_or(|piece| group.is_followed_by(piece))
                });
                if !goes_on && let Some(full) = group.take() {
                    keeping
                        .tail
                        .left(full.lane, full.first, full.last, full.disk, now);
                }
                let last_of_chunk = at + 1 == chunk.end();
                let worth = if last_of_chunk { chunk.bytes } else { 0 };
                group = Group::with(group, piece, left.lane, at, worth, bytes);
            }
        }
        if let Some(last) = group {
            keeping
                .tail
                .left(last.lane, last.first, last.last, last.disk, now);
        }
    }
}

/// Consecutive records that make one entry.
struct Group {
    lane: LaneId,
    first: u64,
    last: u64,
    disk: OnDisk,
    size: usize,
}

impl Group {
    fn with(
        open: Option<Self>,
        piece: Option<Piece>,
        tail: LaneId,
        at: u64,
        worth: u64,
        bytes: &Bytes,
    ) -> Option<Self> {
        let mut group = match (open, &piece) {
            (Some(group), _) => group,
            (None, Some(piece)) => Self {
                lane: piece.lane,
                first: piece.number,
                last: piece.number,
                disk: OnDisk {
                    lane: tail,
                    first: at,
                    last: at,
                    bytes: 0,
                },
                size: 0,
            },
            (None, None) => return None,
        };
        if let Some(piece) = piece {
            group.last = piece.number;
        }
        group.disk.last = at;
        group.disk.bytes += worth;
        group.size += bytes.len();
        Some(group)
    }

    fn is_followed_by(&self, piece: &Piece) -> bool {
        piece.lane == self.lane && piece.number == self.last + 1
    }

    fn records(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// How much is written at once.
const SPILL_BYTES: usize = 1 << 20;

const INDEX_RECORDS: usize = 4096;

/// Before what the disk did not take is tried again.
const SPILL_PAUSE: Duration = Duration::from_millis(500);

/// Replicas that follow as they should have everything within this.
const END_PATIENCE: Duration = Duration::from_secs(1);

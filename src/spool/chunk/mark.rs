//! Chunks that hold no records: what is said about other chunks.

use std::{collections::BTreeSet, ops::RangeInclusive};

use bytes::Buf;

use super::{Chunk, Frame, Header, Key, Kind, LaneId};

/// Commits from the first to before the last that do not count, but for the records that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::spool) struct Void {
    pub(in crate::spool) from: u64,
    pub(in crate::spool) before: u64,
    /// Those records do not count either: their callers were told that they failed.
    pub(in crate::spool) withdrawn: bool,
}

/// All commits that do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Voids(BTreeSet<Void>);

impl Voids {
    pub(in crate::spool) fn add(&mut self, void: Void) {
        let is_covered = |known: &Void| {
            void.from <= known.from
                && known.before <= void.before
                && known.withdrawn <= void.withdrawn
        };
        self.0.retain(|known| !is_covered(known));
        self.0.insert(void);
        if self.0.len() > MOST_VOIDS {
            self.0.pop_first();
        }
    }

    pub(in crate::spool) fn extend(&mut self, more: &Self) {
        more.0.iter().for_each(|void| self.add(*void));
    }

    /// Nothing is left of the commits before this one.
    pub(in crate::spool) fn forget_before(&mut self, commit: u64) {
        self.0.retain(|void| void.before > commit);
    }

    /// Whether this commit is one of them.
    pub(in crate::spool) fn has(&self, commit: u64) -> bool {
        self.of(commit).next().is_some()
    }

    /// Whether any of these commits is.
    pub(in crate::spool) fn meet(&self, commits: &RangeInclusive<u64>) -> bool {
        let mut all = self.0.iter();
        all.any(|void| void.from <= *commits.end() && *commits.start() < void.before)
    }

    /// Whether a chunk counts that this commit has written. Records do, if nobody was told that they
    /// failed; all else only if its commit does.
    pub(in crate::spool) fn let_count(
        &self,
        kind: Kind,
        all_or_nothing: bool,
        commit: u64,
    ) -> bool {
        match kind {
            Kind::Waiting | Kind::Parked if !all_or_nothing => {
                self.of(commit).all(|void| !void.withdrawn)
            }
            _ => !self.has(commit),
        }
    }

    /// The same, of a chunk that was read.
    pub(in crate::spool) fn let_count_frame(&self, frame: &Frame) -> bool {
        self.let_count(frame.key.kind(), frame.all_or_nothing, frame.stamp.commit)
    }

    /// What a mark says of them.
    pub(in crate::spool) fn said_by(frame: &Frame) -> Self {
        let mut voids = Self::default();
        if frame.key.kind() == Kind::Mark {
            let mut body = frame.body.clone();
            while let (Ok(from), Ok(before), Ok(withdrawn)) = (
                body.try_get_u64_le(),
                body.try_get_u64_le(),
                body.try_get_u8(),
            ) {
                voids.add(Void {
                    from,
                    before,
                    withdrawn: withdrawn != 0,
                });
            }
        }
        voids
    }

    fn of(&self, commit: u64) -> impl Iterator<Item = &Void> {
        let all = self.0.iter();
        all.filter(move |void| (void.from..void.before).contains(&commit))
    }
}

/// So many that all fit into one mark, and more than disks fail before somebody looks.
const MOST_VOIDS: usize = 1000;

/// Says in its stamp how far the lane is done with, and in its body which commits do not count.
///
/// Its key has the number of the commit, so that no mark ever replaces another.
pub(in crate::spool) fn mark(lane: LaneId, queue: &str, voids: &Voids, commit: u64) -> Chunk {
    let header = header(Kind::Mark, lane, queue);
    let mut value = header.begin(voids.0.len() * 17);
    for void in &voids.0 {
        value.extend_from_slice(&void.from.to_le_bytes());
        value.extend_from_slice(&void.before.to_le_bytes());
        value.push(u8::from(void.withdrawn));
    }
    header.seal(value, commit, 0, 0, 1)
}

/// Says that a chunk, with all its parts, is gone, although its lane is not done with it: a parked record
/// that was sent again or deleted.
pub(in crate::spool) fn gone(chunk: Key) -> Chunk {
    let header = header(Kind::Gone, chunk.lane(), "");
    header.seal(header.begin(0), chunk.number(), 0, 0, 1)
}

fn header(kind: Kind, lane: LaneId, queue: &str) -> Header<'_> {
    Header {
        kind,
        lane,
        queue,
        written_ms: 0,
        acknowledged: 0,
        refused: 0,
    }
}

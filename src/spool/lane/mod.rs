//! The decisions of one lane: which number a record gets, and what may move next, to Redis or to disk.
//!
//! No clock, no I/O, no records: numbers only. Two things can be under way at once, one request to
//! Redis and one write to disk, and the rules below keep the order whatever comes back from either:
//!
//! - Records get consecutive numbers as they are taken, and nothing ever renumbers them.
//! - *Direct*: nothing of the lane is on disk or on its way there. What has gathered goes to Redis.
//! - A batch that did not get through *returns*, and goes to disk with the numbers it has.
//! - *Spooling*: whatever has gathered goes to disk, behind what waits there; replay takes from the
//!   front. When the front has met the back, the lane is direct again.
//! - Replay never passes a record that is not on disk yet: see [`Lane::barrier`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    /// Nothing.
    Nothing,
    /// What has gathered in memory.
    Gathered,
    /// The front of the other lanes' disk.
    Older,
    /// The front of this lane's disk.
    Replay,
}

/// What may be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Append {
    /// Nothing.
    Nothing,
    /// A batch that did not get through.
    Returned,
    /// What has gathered in memory.
    Gathered,
}

#[derive(Debug)]
pub(super) struct Lane {
    write_ahead: bool,
    /// Records of other lanes wait on disk, an earlier run's or those sent again, and go first.
    older: bool,
    next: u64,
    acknowledged: u64,
    sending: bool,
    /// Nothing may be sent before something else has been.
    held_up: bool,
    /// In order.
    returned: VecDeque<Span>,
    appending: Option<Span>,
    /// From the first number that waits on disk to the last one written there.
    disk: Option<Span>,
}

impl Lane {
    pub(super) fn new(write_ahead: bool, older: bool) -> Self {
        Self {
            write_ahead,
            older,
            next: 1,
            acknowledged: 0,
            sending: false,
            held_up: false,
            returned: VecDeque::new(),
            appending: None,
            disk: None,
        }
    }

    /// Whether what gathers goes to Redis without touching the disk.
    pub(super) fn is_direct(&self) -> bool {
        !self.write_ahead && self.is_drained()
    }

    /// Whether nothing is on disk or on its way there.
    pub(super) fn is_drained(&self) -> bool {
        !self.older && self.disk.is_none() && self.returned.is_empty() && self.appending.is_none()
    }

    /// Whether nothing is under way anywhere.
    pub(super) fn is_idle(&self) -> bool {
        self.is_drained() && !self.sending
    }

    /// The last number that Redis has acknowledged, or 0.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The last number that waits on disk.
    pub(super) fn back(&self) -> Option<u64> {
        self.disk.map(|disk| disk.last)
    }

    /// The first number that waits on disk.
    pub(super) fn front(&self) -> Option<u64> {
        self.disk.map(|disk| disk.first)
    }

    /// Replay may send numbers below this: those from here on are not on disk yet, although later ones
    /// may be.
    pub(super) fn barrier(&self) -> u64 {
        let first = |span: Option<&Span>| span.map_or(u64::MAX, |span| span.first);
        first(self.returned.front()).min(first(self.appending.as_ref()))
    }

    /// What waits on disk may be done with unsent below this: no lower number can come to disk any more.
    /// The disk keeps one number up to which a lane is done, and would take what comes later for done.
    pub(super) fn settled(&self) -> u64 {
        if self.sending { 0 } else { self.barrier() }
    }

    /// What may be sent, with `gathered` records in memory.
    pub(super) fn may_send(&self, gathered: usize) -> Send {
        if self.sending || self.held_up {
            Send::Nothing
        } else if self.is_direct() {
            if gathered > 0 {
                Send::Gathered
            } else {
                Send::Nothing
            }
        } else if self.older {
            Send::Older
        } else if self.front().is_some_and(|front| front < self.barrier()) {
            Send::Replay
        } else {
            Send::Nothing
        }
    }

    /// What may be written, with `gathered` records in memory, `overdue` if the first of them has
    /// waited for as long as a record may.
    ///
    /// `few` says that what waits on disk fits into one more request. Writing more behind it would keep a
    /// busy lane on disk for ever, so what has gathered waits for that request, as long as it may.
    pub(super) fn may_append(&self, gathered: usize, overdue: bool, few: bool) -> Append {
        if self.appending.is_some() {
            Append::Nothing
        } else if !self.returned.is_empty() {
            Append::Returned
        } else if gathered == 0 {
            Append::Nothing
        } else if self.write_ahead {
            Append::Gathered
        } else if self.is_direct() || (few && self.sending && !self.older) {
            if (self.sending || self.held_up) && overdue {
                Append::Gathered
            } else {
                Append::Nothing
            }
        } else {
            Append::Gathered
        }
    }

    /// Numbers `count` records, at least one.
    pub(super) fn take(&mut self, count: usize) -> Span {
        let first = self.next;
        self.next += count as u64;
        Span {
            first,
            last: self.next - 1,
        }
    }

    /// A request is on its way.
    pub(super) fn sending(&mut self) {
        self.sending = true;
    }

    /// Whether something else has to be sent before anything of this.
    pub(super) fn hold_up(&mut self, held_up: bool) {
        self.held_up = held_up;
    }

    /// The request is over.
    pub(super) fn sent(&mut self) {
        self.sending = false;
    }

    /// Redis has acknowledged this lane up to `through`.
    pub(super) fn acknowledge(&mut self, through: u64) {
        self.acknowledged = self.acknowledged.max(through);
    }

    /// Redis turns out to know this lane only up to `last`. Says how many records it has lost.
    pub(super) fn lost_after(&mut self, last: u64) -> u64 {
        let lost = self.acknowledged.saturating_sub(last);
        self.acknowledged = self.acknowledged.min(last);
        lost
    }

    /// These numbers did not get through, and go to disk. Says at which place among the returned ones.
    pub(super) fn returned(&mut self, span: Span) -> usize {
        let place = self
            .returned
            .partition_point(|other| other.first < span.first);
        self.returned.insert(place, span);
        place
    }

    /// The first of the returned spans is about to be written, or refused to its callers.
    pub(super) fn take_returned(&mut self) {
        self.returned.pop_front();
    }

    /// These numbers are being written.
    pub(super) fn appending(&mut self, span: Span) {
        self.appending = Some(span);
    }

    /// The write is over; `kept` says whether the disk has the numbers.
    pub(super) fn appended(&mut self, kept: bool) {
        let Some(span) = self.appending.take() else {
            return;
        };
        if kept {
            self.disk = Some(match self.disk {
                None => span,
                Some(disk) => Span {
                    first: disk.first.min(span.first),
                    last: disk.last.max(span.last),
                },
            });
        }
    }

    /// The numbers on disk up to `through` are done with.
    pub(super) fn removed(&mut self, through: u64) {
        self.disk = self.disk.and_then(|disk| {
            let first = disk.first.max(through + 1);
            (first <= disk.last).then_some(Span {
                first,
                last: disk.last,
            })
        });
    }

    /// Another lane's records wait on disk, and go first, as those of an earlier run do.
    pub(super) fn adopted(&mut self) {
        self.older = true;
    }

    /// Nothing of another lane waits any more.
    pub(super) fn older_drained(&mut self) {
        self.older = false;
    }

    /// Starts over with number 1, for a lane with a new id. Only while [idle](Self::is_idle).
    pub(super) fn renew(&mut self) {
        *self = Self {
            held_up: self.held_up,
            ..Self::new(self.write_ahead, false)
        };
    }
}

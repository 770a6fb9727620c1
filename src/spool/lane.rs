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
    /// The front of what an earlier run left.
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
    /// Records of an earlier run wait on disk, and go first.
    older: bool,
    next: u64,
    acknowledged: u64,
    sending: bool,
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

    /// What may be sent, with `gathered` records in memory.
    pub(super) fn may_send(&self, gathered: usize) -> Send {
        if self.sending {
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
            if self.sending && overdue {
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

    /// Nothing of an earlier run waits any more.
    pub(super) fn older_drained(&mut self) {
        self.older = false;
    }

    /// Starts over with number 1, for a lane with a new id. Only while [idle](Self::is_idle).
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.write_ahead, false);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// What happens next, as far as there is a choice.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive(usize),
        Overdue(bool),
        /// The request under way ends.
        Answer(Answer),
        /// The write under way ends; whether the disk has kept it, and whether it says so.
        Written {
            kept: bool,
            ok: bool,
        },
        /// A request that was given up reaches Redis after all.
        Late,
        /// A returned batch finds no room on disk, and is refused to its callers.
        NoRoom,
    }

    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Ok,
        NeverSent,
        ReplyLost,
        GivenUp,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let answer = prop_oneof![
            3 => Just(Answer::Ok),
            1 => Just(Answer::NeverSent),
            1 => Just(Answer::ReplyLost),
            1 => Just(Answer::GivenUp),
        ];
        let step = prop_oneof![
            4 => (1usize..5).prop_map(Step::Arrive),
            1 => any::<bool>().prop_map(Step::Overdue),
            4 => answer.prop_map(Step::Answer),
            4 => Just(Step::Written { kept: true, ok: true }),
            1 => any::<bool>().prop_map(|kept| Step::Written { kept, ok: false }),
            1 => Just(Step::Late),
            1 => Just(Step::NoRoom),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// Redis as the script sees it.
    #[derive(Debug, Default)]
    struct Far {
        list: Vec<u64>,
        last: u64,
    }

    impl Far {
        fn apply(&mut self, numbers: &[u64]) {
            let fresh = numbers.iter().copied().filter(|number| *number > self.last);
            self.list.extend(fresh);
            self.last = self.last.max(numbers.last().copied().unwrap_or(0));
        }
    }

    /// The queue's task, without its clocks and its bytes.
    struct Task {
        lane: Lane,
        gathered: usize,
        overdue: bool,
        sending: Option<(Vec<u64>, bool)>,
        returned: VecDeque<Vec<u64>>,
        appending: Option<Vec<u64>>,
        disk: BTreeSet<u64>,
        far: Far,
        late: VecDeque<Vec<u64>>,
        receipts: BTreeSet<u64>,
    }

    impl Task {
        fn new(write_ahead: bool) -> Self {
            Self {
                lane: Lane::new(write_ahead, false),
                gathered: 0,
                overdue: false,
                sending: None,
                returned: VecDeque::new(),
                appending: None,
                disk: BTreeSet::new(),
                far: Far::default(),
                late: VecDeque::new(),
                receipts: BTreeSet::new(),
            }
        }

        fn take(&mut self) -> Vec<u64> {
            let span = self.lane.take(std::mem::take(&mut self.gathered));
            (span.first..=span.last).collect()
        }

        fn start(&mut self) {
            let few = self.lane.back().is_some_and(
                |back| matches!(&self.sending, Some((numbers, true)) if numbers.ends_with(&[back])),
            );
            let writes = match self.lane.may_append(self.gathered, self.overdue, few) {
                Append::Nothing => None,
                Append::Returned => {
                    self.lane.take_returned();
                    self.returned.pop_front()
                }
                Append::Gathered => Some(self.take()),
            };
            if let Some(numbers) = writes {
                self.lane.appending(span(&numbers));
                self.appending = Some(numbers);
            }
            let sends = match self.lane.may_send(self.gathered) {
                Send::Nothing => None,
                Send::Gathered => Some((self.take(), false)),
                Send::Older => unreachable!("there is no earlier run here"),
                Send::Replay => {
                    let barrier = self.lane.barrier();
                    let front = self.lane.front().expect("there is something to replay");
                    let waits = self.disk.range(front..).copied();
                    let numbers: Vec<_> = waits
                        .take_while(|number| *number < barrier)
                        .take(4)
                        .collect();
                    // Batches have no holes; this test's scripts cope, so a hole only ends one here.
                    let run = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1);
                    let len = run.map_or(numbers.len(), |hole| hole + 1);
                    Some((numbers[..len].to_vec(), true))
                }
            };
            if let Some((numbers, from_disk)) = sends
                && !numbers.is_empty()
            {
                self.lane.sending();
                self.sending = Some((numbers, from_disk));
            }
        }

        fn answer(&mut self, answer: Answer) {
            let Some((numbers, from_disk)) = self.sending.take() else {
                return;
            };
            self.lane.sent();
            match answer {
                Answer::Ok | Answer::ReplyLost => self.far.apply(&numbers),
                Answer::GivenUp => self.late.push_back(numbers.clone()),
                Answer::NeverSent => {}
            }
            let last = *numbers.last().expect("a batch is not empty");
            match (matches!(answer, Answer::Ok), from_disk) {
                (true, true) => {
                    self.lane.acknowledge(last);
                    self.lane.removed(last);
                    self.disk.retain(|number| *number > last);
                }
                (true, false) => {
                    self.lane.acknowledge(last);
                    self.receipts.extend(numbers);
                }
                (false, true) => {}
                (false, false) => {
                    let place = self.lane.returned(span(&numbers));
                    self.returned.insert(place, numbers);
                }
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Arrive(count) => self.gathered += count,
                Step::Overdue(overdue) => self.overdue = overdue,
                Step::Answer(answer) => self.answer(answer),
                Step::Written { kept, ok } => {
                    let Some(numbers) = self.appending.take() else {
                        return;
                    };
                    self.lane.appended(ok);
                    if kept {
                        self.disk.extend(&numbers);
                    }
                    if ok {
                        self.receipts.extend(numbers);
                    }
                }
                Step::Late => {
                    if let Some(numbers) = self.late.pop_front() {
                        self.far.apply(&numbers);
                    }
                }
                Step::NoRoom => {
                    if self.returned.pop_front().is_some() {
                        self.lane.take_returned();
                    }
                }
            }
        }
    }

    fn span(numbers: &[u64]) -> Span {
        Span {
            first: numbers[0],
            last: numbers[numbers.len() - 1],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever comes back from Redis and the disk, and whenever the process dies.
        #[test]
        fn what_has_a_receipt_arrives_once_and_in_order(
            write_ahead in any::<bool>(),
            steps in steps(),
        ) {
            let mut task = Task::new(write_ahead);
            for step in steps {
                task.step(step);
                task.start();
            }
            // The process dies; the next one replays what is on disk, and late requests may come before
            // or after.
            let waits: Vec<_> = task.disk.iter().copied().collect();
            for numbers in task.late.drain(..).take(1) {
                task.far.apply(&numbers);
            }
            task.far.apply(&waits);
            let list = &task.far.list;
            prop_assert!(list.is_sorted_by(|a, b| a < b), "twice, or out of order: {list:?}");
            let arrived: BTreeSet<_> = list.iter().copied().collect();
            let lost: Vec<_> = task.receipts.difference(&arrived).collect();
            prop_assert!(lost.is_empty(), "lost {lost:?} of {:?}", task.receipts);
        }

        #[test]
        fn a_lane_left_alone_becomes_direct_again(steps in steps()) {
            let mut task = Task::new(false);
            for step in steps {
                task.step(step);
                task.start();
            }
            for _ in 0..2_000 {
                task.step(Step::Written { kept: true, ok: true });
                task.start();
                task.step(Step::Answer(Answer::Ok));
                task.start();
            }
            prop_assert!(task.lane.is_idle() && task.lane.is_direct(), "{:?}", task.lane);
            prop_assert_eq!(task.gathered, 0);
        }
    }
}

//! The decisions against a Redis, a disk and a network that do whatever they like.

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
    /// Another lane's records are to be sent.
    Adopt,
    /// A pass over the tail is due, or over.
    HoldUp(bool),
    /// So many of the oldest on disk are dropped, or expire.
    Drop(usize),
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
        1 => Just(Step::Adopt),
        1 => any::<bool>().prop_map(Step::HoldUp),
        1 => (1usize..6).prop_map(Step::Drop),
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Memory,
    Disk,
    Other,
}

/// The queue's task, without its clocks and its bytes.
struct Task {
    lane: Lane,
    gathered: usize,
    overdue: bool,
    sending: Option<(Vec<u64>, Source)>,
    /// Batches of another lane that wait on disk.
    older: usize,
    returned: VecDeque<Vec<u64>>,
    appending: Option<Vec<u64>>,
    disk: BTreeSet<u64>,
    far: Far,
    late: VecDeque<Vec<u64>>,
    receipts: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    /// The disk takes everything up to here for done.
    done: u64,
}

impl Task {
    fn new(write_ahead: bool) -> Self {
        Self {
            lane: Lane::new(write_ahead, false),
            gathered: 0,
            overdue: false,
            sending: None,
            older: 0,
            returned: VecDeque::new(),
            appending: None,
            disk: BTreeSet::new(),
            far: Far::default(),
            late: VecDeque::new(),
            receipts: BTreeSet::new(),
            dropped: BTreeSet::new(),
            done: 0,
        }
    }

    fn take(&mut self) -> Vec<u64> {
        let span = self.lane.take(std::mem::take(&mut self.gathered));
        (span.first..=span.last).collect()
    }

    fn start(&mut self) {
        let few = self.lane.back().is_some_and(
            |back| matches!(&self.sending, Some((numbers, Source::Disk)) if numbers.ends_with(&[back])),
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
            Send::Gathered => Some((self.take(), Source::Memory)),
            Send::Older => {
                assert!(self.older > 0, "there is nothing of another lane");
                Some((vec![0], Source::Other))
            }
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
                assert_eq!(self.older, 0, "another lane goes first");
                Some((numbers[..len].to_vec(), Source::Disk))
            }
        };
        if let Some((numbers, source)) = sends
            && !numbers.is_empty()
        {
            self.lane.sending();
            self.sending = Some((numbers, source));
        }
    }

    fn answer(&mut self, answer: Answer) {
        let Some((numbers, source)) = self.sending.take() else {
            return;
        };
        self.lane.sent();
        if source == Source::Other {
            if matches!(answer, Answer::Ok) {
                self.older -= 1;
                if self.older == 0 {
                    self.lane.older_drained();
                }
            }
            return;
        }
        match answer {
            Answer::Ok | Answer::ReplyLost => self.far.apply(&numbers),
            Answer::GivenUp => self.late.push_back(numbers.clone()),
            Answer::NeverSent => {}
        }
        let last = *numbers.last().expect("a batch is not empty");
        match (matches!(answer, Answer::Ok), source == Source::Disk) {
            (true, true) => {
                self.lane.acknowledge(last);
                self.lane.removed(last);
                self.disk.retain(|number| *number > last);
                self.done = last;
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
                let passed = "what the disk takes for done comes to disk";
                assert!(
                    numbers[0] > self.done,
                    "{passed}: {numbers:?}, {}",
                    self.done
                );
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
            Step::Adopt => {
                self.older += 1;
                self.lane.adopted();
            }
            Step::HoldUp(held_up) => self.lane.hold_up(held_up),
            Step::NoRoom => {
                if self.returned.pop_front().is_some() {
                    self.lane.take_returned();
                }
            }
            Step::Drop(count) => {
                let settled = self.lane.settled();
                let Some(front) = self.lane.front().filter(|front| *front < settled) else {
                    return;
                };
                let oldest = self.disk.range(front..settled).copied().take(count);
                let oldest: Vec<_> = oldest.collect();
                if let Some(last) = oldest.last() {
                    self.lane.removed(*last);
                    self.disk.retain(|number| number > last);
                    self.done = *last;
                    self.dropped.extend(oldest);
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
        let waits: Vec<_> = task.disk.range(task.done + 1..).copied().collect();
        for numbers in task.late.drain(..).take(1) {
            task.far.apply(&numbers);
        }
        task.far.apply(&waits);
        let list = &task.far.list;
        prop_assert!(list.is_sorted_by(|a, b| a < b), "twice, or out of order: {list:?}");
        let arrived: BTreeSet<_> = list.iter().copied().collect();
        let kept: BTreeSet<_> = task.receipts.difference(&task.dropped).copied().collect();
        let lost: Vec<_> = kept.difference(&arrived).collect();
        prop_assert!(lost.is_empty(), "lost {lost:?} of {:?}", task.receipts);
    }

    #[test]
    fn a_lane_left_alone_becomes_direct_again(steps in steps()) {
        let mut task = Task::new(false);
        for step in steps {
            task.step(step);
            task.start();
        }
        // However long a pass takes, nobody waits for it in memory for longer than a record may.
        task.step(Step::HoldUp(true));
        for _ in 0..200 {
            task.step(Step::Answer(Answer::Ok));
            task.step(Step::Written { kept: true, ok: true });
            task.step(Step::Overdue(true));
            task.start();
        }
        prop_assert!(task.gathered == 0 && task.sending.is_none(), "{:?}", task.lane);
        task.step(Step::HoldUp(false));
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

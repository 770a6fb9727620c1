//! The books against a model that is a list of records for each queue.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A record that is refused when there is no room.
    Admit {
        queue: usize,
        bytes: u64,
    },
    /// A record for which the oldest of its queue are dropped.
    Replace {
        queue: usize,
        bytes: u64,
    },
    /// The oldest are done with.
    Free {
        queue: usize,
        count: usize,
    },
    /// The oldest is parked, if there is room: for three.
    Park {
        queue: usize,
    },
    /// The last parked one is deleted, or waits again.
    Unpark {
        deletes: bool,
    },
    /// The oldest are dropped for a record that may come.
    Hold {
        queue: usize,
    },
    Release {
        queue: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let queue = 0..QUEUES;
    let step = prop_oneof![
        6 => (queue.clone(), 0u64..60).prop_map(|(queue, bytes)| Step::Admit { queue, bytes }),
        4 => (queue.clone(), 0u64..60).prop_map(|(queue, bytes)| Step::Replace { queue, bytes }),
        2 => (queue.clone(), 0usize..5).prop_map(|(queue, count)| Step::Free { queue, count }),
        1 => queue.clone().prop_map(|queue| Step::Park { queue }),
        1 => any::<bool>().prop_map(|deletes| Step::Unpark { deletes }),
        1 => queue.clone().prop_map(|queue| Step::Hold { queue }),
        1 => queue.prop_map(|queue| Step::Release { queue }),
    ];
    proptest::collection::vec(step, 1..200)
}

const QUEUES: usize = 3;

/// What the spool may hold, and the second queue by itself.
const MAX: Amount = Amount {
    records: 8,
    bytes: 200,
};
const OWN: Amount = Amount {
    records: 4,
    bytes: 90,
};

#[derive(Default)]
struct Model {
    queues: [VecDeque<u64>; QUEUES],
    held: [Vec<u64>; QUEUES],
    parked: Vec<u64>,
}

impl Model {
    fn of(&self, queue: usize) -> Amount {
        let there = self.queues[queue].iter().chain(&self.held[queue]);
        amount(there)
    }

    fn all(&self) -> Amount {
        let there = self.queues.iter().flatten();
        amount(there.chain(self.held.iter().flatten()).chain(&self.parked))
    }

    fn fits(&self, queue: usize, bytes: u64) -> bool {
        let held = amount(&self.held[queue]);
        let within = |used: Amount, max: Amount| {
            used.records < max.records + held.records
                && used.bytes + bytes <= max.bytes + held.bytes
        };
        within(self.all(), MAX) && (queue != 1 || within(self.of(queue), OWN))
    }

    fn push(&mut self, queue: usize, bytes: u64) {
        self.held[queue].clear();
        self.queues[queue].push_back(bytes);
    }
}

fn amount<'a>(records: impl IntoIterator<Item = &'a u64>) -> Amount {
    let records = records.into_iter();
    records.fold(Amount::default(), |sum, bytes| sum.plus(1, *bytes))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn as_many_of_the_oldest_go_as_it_takes_and_no_more_and_no_bound_is_passed(steps in steps()) {
        let mut books = Books::new(MAX.records, MAX.bytes, u64::MAX);
        let mut model = Model::default();
        let slots: Vec<_> = (0..QUEUES)
            .map(|queue| {
                let own = (queue == 1).then_some(OWN);
                books.open(own.map(|own| own.records), own.map(|own| own.bytes))
            })
            .collect();
        for step in steps {
            match step {
                Step::Admit { queue, bytes } => {
                    let fits = model.fits(queue, bytes);
                    let admitted = books.admit(slots[queue], bytes, []);
                    prop_assert_eq!(admitted.is_ok(), fits);
                    if fits {
                        model.push(queue, bytes);
                    }
                }
                Step::Replace { queue, bytes } => {
                    let oldest: Vec<_> = model.queues[queue].iter().copied().collect();
                    let answer = books.admit(slots[queue], bytes, oldest.iter().copied());
                    // One by one, until it fits or there is none left.
                    let mut dropped = 0;
                    while !model.fits(queue, bytes) && !model.queues[queue].is_empty() {
                        let oldest = model.queues[queue].pop_front().unwrap();
                        model.held[queue].push(oldest);
                        dropped += 1;
                    }
                    if model.fits(queue, bytes) {
                        prop_assert_eq!(answer, Ok(dropped));
                        model.push(queue, bytes);
                    } else {
                        prop_assert!(answer.is_err());
                        let kept = model.held[queue].len() - dropped as usize;
                        model.held[queue].truncate(kept);
                        model.queues[queue] = oldest.into();
                    }
                }
                Step::Free { queue, count } => {
                    let count = count.min(model.queues[queue].len());
                    let gone: Vec<_> = model.queues[queue].drain(..count).collect();
                    books.free(slots[queue], amount(&gone));
                }
                Step::Park { queue } => {
                    if let Some(bytes) = model.queues[queue].pop_front() {
                        let one = Amount { records: 1, bytes };
                        let room = 3_u64.saturating_sub(model.parked.len() as u64);
                        prop_assert_eq!(books.reserve_parked(5, 3), room);
                        if room == 0 {
                            model.queues[queue].push_front(bytes);
                            continue;
                        }
                        books.release_parked(room - 1);
                        books.park(slots[queue], one, one);
                        model.parked.push(bytes);
                    }
                }
                Step::Unpark { deletes } => {
                    if let Some(bytes) = model.parked.pop() {
                        let one = Amount { records: 1, bytes };
                        if deletes {
                            books.delete_parked(one);
                        } else {
                            // To the first queue, which has no bounds of its own.
                            books.unpark(one, bytes);
                            books.assign(slots[0], one);
                            model.queues[0].push_back(bytes);
                        }
                    }
                }
                Step::Hold { queue } => {
                    if let Some(bytes) = model.queues[queue].pop_front() {
                        books.hold(slots[queue], Amount { records: 1, bytes });
                        model.held[queue].push(bytes);
                    }
                }
                Step::Release { queue } => {
                    books.release(slots[queue]);
                    model.held[queue].clear();
                }
            }
            prop_assert_eq!(books.all, model.all());
            prop_assert_eq!(books.parked, model.parked.len() as u64);
            prop_assert!(books.all.records <= MAX.records && books.all.bytes <= MAX.bytes);
            for queue in 0..QUEUES {
                prop_assert_eq!(books.queues[queue].waiting, model.of(queue));
            }
            prop_assert!(model.of(1).records <= OWN.records && model.of(1).bytes <= OWN.bytes);
        }
    }

    /// What is on its way to disk counts as if it were there, as many times as it may be written.
    #[test]
    fn the_files_bound_is_not_passed_by_what_is_on_its_way(
        records in proptest::collection::vec(1u64..4 << 20, 1..200),
    ) {
        let max = 256 << 20;
        let mut books = Books::new(u64::MAX, u64::MAX, max);
        let slot = books.open(None, None);
        let mut files = 0;
        for bytes in records {
            if books.admit(slot, bytes, []) == Ok(0) {
                // The worst there is.
                files += bytes * AMPLIFICATION;
            }
            prop_assert!(files + GROWTH_STEP <= max);
            if bytes % 3 == 0 {
                books.measured(files);
                books.settle(u64::MAX);
            }
        }
    }
}

#[test]
fn dropping_does_not_get_a_record_past_the_bound_on_the_files() {
    let mut books = Books::new(10, 1 << 20, 64 << 20);
    let slot = books.open(None, None);
    assert_eq!(books.admit(slot, 1, []), Ok(0));
    books.measured(60 << 20);
    assert_eq!(books.admit(slot, 1, [1]), Err(Bound::DiskBytes));
    assert!(!books.could_admit(slot, 1));
}

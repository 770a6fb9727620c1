//! Executions that Redis takes for this worker's, and that are none: [`Strays`].

use std::collections::HashMap;

use crate::job::JobId;

/// What looks at all executions have found. No clock: a look goes over all of them in some turns, and the next one
/// comes a good while later. Most looks are for dead workers alone, and need not go over anything.
///
/// An execution may be found that has just ended, and one may be missing that has just begun. What two looks in a row
/// have found is neither: Redis has lost how it ended, say, or somebody has thrown that away.
#[derive(Debug, Default)]
pub(super) struct Strays {
    found: HashMap<(JobId, u32), Found>,
    /// Begun since the last one that went over everything.
    begun: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    looks: u32,
    /// By the look that is under way.
    now: bool,
}

impl Strays {
    /// Whether the look that begins now is to go over everything.
    pub(super) fn looks_at_all(&mut self) -> bool {
        self.begun = (self.begun + 1) % SELDOM;
        self.begun == 0
    }

    /// Notes what a part of a look has found; those that the look before has found too.
    pub(super) fn found(&mut self, executions: Vec<(JobId, u32)>) -> Vec<(JobId, u32)> {
        let mut strays = Vec::new();
        for execution in executions {
            let found = self.found.entry(execution).or_default();
            // A look may come across the same one twice.
            if found.now {
                continue;
            }
            found.now = true;
            found.looks += 1;
            // Once: what is done about it may take its time.
            if found.looks == 2 {
                strays.push(execution);
            }
        }
        strays
    }

    /// The look is over.
    pub(super) fn looked(&mut self) {
        self.found.retain(|_, found| std::mem::take(&mut found.now));
    }

    /// Nothing is known any more: the worker has another token.
    pub(super) fn begin_anew(&mut self) {
        self.found.clear();
    }
}

const SELDOM: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn executions<const N: usize>(numbers: [u8; N]) -> Vec<(JobId, u32)> {
        let one = |number| (JobId::from_bytes([number; 16]), 1);
        numbers.map(one).into()
    }

    #[test]
    fn what_two_looks_in_a_row_have_found_is_a_stray_and_once() {
        let mut strays = Strays::default();
        assert_eq!(strays.found(executions([1, 2, 1])), []);
        assert_eq!(strays.found(executions([3, 1])), []);
        strays.looked();
        assert_eq!(strays.found(executions([1, 4])), executions([1]));
        assert_eq!(strays.found(executions([3])), executions([3]));
        strays.looked();
        assert_eq!(strays.found(executions([1, 2, 3, 4])), executions([4]));
        strays.looked();
        strays.looked();
        assert_eq!(strays.found(executions([1])), []);
        strays.looked();
        strays.begin_anew();
        assert_eq!(strays.found(executions([1])), []);
    }

    #[test]
    fn one_look_in_ten_goes_over_everything() {
        let mut strays = Strays::default();
        let looks: Vec<_> = (1..=30).filter(|_| strays.looks_at_all()).collect();
        assert_eq!(looks, [10, 20, 30]);
    }
}

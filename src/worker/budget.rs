//! When a retry gets its turn, so that a broken dependency does not fill every slot of a worker: [`Pace`].
//!
//! A job is not to die from it: a retry that the [`RetryBudget`] has no token for is put off until there will be one.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::RetryBudget;

/// The retries of all jobs of a worker, in turn.
///
/// The turns in any stretch of time are at most
///
/// > `ratio` x executions + `per_second` x seconds + `burst` (+ 1, for a turn at its edge)
///
/// and no retry is due before its turn, nor before its delay is over. So many retries are therefore due in any stretch
/// of time, if it is counted from one delay earlier; but those that would have been put off for more than an
/// [`HORIZON`] are due then, however many they are.
#[derive(Clone, Debug)]
pub(super) struct Pace(RetryBudget);

/// When a retry is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// From now.
    pub(super) after: Duration,
    /// How much of that is more than the delay it came with.
    pub(super) put_off: Duration,
}

impl Pace {
    pub(super) const fn new(budget: RetryBudget) -> Self {
        Self(budget)
    }

    /// Counts an execution, a first one or a later one.
    pub(super) fn started(&self, now: Instant) {
        self.0.deposit(now);
    }

    /// Takes a turn for a retry that is to wait for `delay` at least.
    pub(super) fn turn(&self, now: Instant, delay: Duration) -> Turn {
        let after = delay.max(self.0.reserve(now, HORIZON));
        Turn {
            after,
            put_off: after - delay,
        }
    }

    /// How many retries could still have their turn at once, when it was last used.
    pub(super) fn tokens(&self) -> f64 {
        self.0.tokens()
    }
}

impl Default for Pace {
    /// One retry for five executions, 10 a second, and a burst of 100.
    fn default() -> Self {
        Self(RetryBudget::default().with_burst(BURST))
    }
}

const BURST: u32 = 100;

/// No retry is put off for longer: whatever was broken is worth another look.
pub(super) const HORIZON: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_few_retries_come_when_they_want_and_a_crowd_in_turn() {
        let (pace, now) = (Pace::default(), Instant::now());
        let turns: Vec<_> = (0..210).map(|_| pace.turn(now, s(1))).collect();
        let as_wanted = Turn {
            after: s(1),
            put_off: Duration::ZERO,
        };
        // The burst, and what the second until they are due brings.
        assert!(turns[..110].iter().all(|turn| *turn == as_wanted));
        assert_eq!(turns[110].put_off, Duration::from_millis(100));
        assert_eq!((turns[209].after, turns[209].put_off), (s(11), s(10)));
        assert_eq!(pace.tokens(), 0.0);
    }

    #[test]
    fn five_executions_pay_for_a_retry() {
        let budget = RetryBudget::new(0.2, 1).unwrap().with_burst(100);
        let (pace, now) = (Pace::new(budget), Instant::now());
        let free = (0..1_000).filter(|_| pace.turn(now, s(1)).put_off.is_zero());
        assert_eq!(free.count(), 101);
        (0..50).for_each(|_| pace.started(now));
        let at_once = (0..20).filter(|_| pace.turn(now, s(1)).put_off.is_zero());
        assert_eq!(at_once.count(), 10);
    }

    #[test]
    fn no_retry_is_put_off_for_longer_than_an_hour() {
        let (pace, now) = (Pace::default(), Instant::now());
        let longest = (0..100_000).map(|_| pace.turn(now, s(1)).after).max();
        assert_eq!(longest, Some(HORIZON));
        assert_eq!(pace.turn(now, HORIZON * 2).after, HORIZON * 2);
    }

    /// A dependency breaks, and all of 1,000 jobs a second fail, for two minutes.
    #[test]
    fn a_broken_dependency_leaves_four_slots_in_five_to_other_jobs() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut due = [0; 1_000];
        for second in 0..120 {
            for job in 0..1_000 {
                let at = Duration::from_millis(second * 1_000 + job);
                pace.started(start + at);
                let turn = pace.turn(start + at, s(4));
                if let Some(slot) = due.get_mut((at + turn.after).as_secs() as usize) {
                    *slot += 1;
                }
            }
        }
        let most = due.into_iter().max().unwrap();
        assert!(most <= 200 + 10 + 100 + 40, "{most} in one second");
        assert!(due[60..120].iter().all(|due| *due >= 200), "{due:?}");
        // Those that were put off come by and by.
        assert!(due[130..].iter().all(|due| *due <= 11), "{due:?}");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Execute,
        /// And tries again after this share of the longest delay.
        Fail(f64),
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Execute),
            (0.0..=1.0).prop_map(Step::Fail),
            (0.0..=1.0).prop_map(Step::Fail),
            (0..1_000_000_000u32).prop_map(Step::Wait)
        ]
    }

    proptest! {
        #[test]
        fn retries_that_are_due_keep_to_the_bound_in_any_stretch_of_time(
            percent in 0..=300u32,
            per_second in 1..20u32,
            burst in 0..10u32,
            longest in prop_oneof![Just(0u64), 0..5_000_000_000u64],
            steps in proptest::collection::vec(step(), 0..150),
        ) {
            let ratio = f64::from(percent) / 100.0;
            let budget = RetryBudget::new(ratio, per_second).unwrap().with_burst(burst);
            let (pace, start) = (Pace::new(budget), Instant::now());
            let (mut now, mut executions, mut due) = (0u64, Vec::new(), Vec::new());
            for step in steps {
                let moment = start + Duration::from_nanos(now);
                match step {
                    Step::Execute => {
                        pace.started(moment);
                        executions.push(now);
                    }
                    Step::Fail(share) => {
                        let delay = Duration::from_nanos((longest as f64 * share) as u64);
                        let turn = pace.turn(moment, delay);
                        prop_assert_eq!(turn.after, delay + turn.put_off);
                        prop_assert!(turn.after < HORIZON);
                        due.push(now + turn.after.as_nanos() as u64);
                    }
                    Step::Wait(nanos) => now += u64::from(nanos),
                }
            }
            due.sort_unstable();
            for (first, from) in due.iter().enumerate() {
                for (last, until) in due.iter().enumerate().skip(first) {
                    let counted = from.saturating_sub(longest)..=*until;
                    let paid = executions.iter().filter(|at| counted.contains(at)).count();
                    let seconds = (until + longest - from) as f64 / 1e9;
                    let bound = ratio * paid as f64
                        + f64::from(per_second) * seconds
                        + f64::from(burst + 1);
                    prop_assert!((last - first + 1) as f64 <= bound + 1e-6);
                }
            }
        }
    }
}

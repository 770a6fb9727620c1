//! How long to wait before the next attempt to connect: a pure decision.

use std::time::Duration;

/// Delays that double from the first to the longest and stay there.
///
/// Half of each delay is fixed and half is drawn, so that the clients of a Redis that comes back do
/// not all come back in the same millisecond.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The delay after an attempt that led to no usable connection. `sample` is uniform in `0..1`.
    pub(super) fn after_failure(&mut self, sample: f64) -> Duration {
        let doubled = 2u32.saturating_pow(self.failures.min(31));
        self.failures = self.failures.saturating_add(1);
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        whole.mul_f64(0.5 + sample / 2.0)
    }

    /// The delay after a connection that had been in use for `held`.
    ///
    /// One that lasted is replaced at once. One that was given up soon after it was made counts as
    /// one more failure: it led, say, to a replica that hides its role.
    pub(super) fn after_loss(&mut self, held: Duration, sample: f64) -> Duration {
        if held >= self.longest {
            self.failures = 0;
            Duration::ZERO
        } else {
            self.after_failure(sample)
        }
    }
}

/// The delay after news that reach all clients in the same moment.
///
/// Half of the first delay at most, and 25 ms, all of it drawn: short beside what a failover takes, and
/// enough that a server which has just become the master is not met by all of them at once.
pub(super) fn spread(first: Duration, sample: f64) -> Duration {
    first.min(Duration::from_millis(50)).mul_f64(sample / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut pace = Pace::new(FIRST, LONGEST);
        let delays: Vec<_> = (0..8)
            .map(|_| pace.after_failure(1.0).as_millis())
            .collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn a_connection_that_lasted_is_replaced_at_once_and_starts_over() {
        let mut pace = Pace::new(FIRST, LONGEST);
        for _ in 0..5 {
            pace.after_failure(0.5);
        }
        assert_eq!(pace.after_loss(LONGEST, 1.0), Duration::ZERO);
        assert_eq!(pace.after_failure(1.0), FIRST);
    }

    #[test]
    fn connections_that_do_not_last_wait_longer_each_time() {
        let mut pace = Pace::new(FIRST, LONGEST);
        assert_eq!(pace.after_loss(Duration::ZERO, 1.0).as_millis(), 50);
        assert_eq!(pace.after_loss(Duration::ZERO, 1.0).as_millis(), 100);
    }

    #[test]
    fn news_for_all_spread_over_a_moment() {
        assert_eq!(spread(FIRST, 0.0), Duration::ZERO);
        assert_eq!(spread(FIRST / 5, 1.0), FIRST / 10);
        assert_eq!(spread(LONGEST, 1.0), Duration::from_millis(25));
    }

    proptest! {
        #[test]
        fn a_delay_is_between_half_of_the_first_and_the_longest(
            failures in 0usize..100,
            sample in 0.0f64..1.0,
        ) {
            let mut pace = Pace::new(FIRST, LONGEST);
            for _ in 0..failures {
                pace.after_failure(sample);
            }
            let delay = pace.after_failure(sample);
            prop_assert!(delay >= FIRST / 2 && delay <= LONGEST);
        }
    }
}

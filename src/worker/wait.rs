//! How long to wait for what. Random samples, from 0 to 1, are arguments.

use std::time::Duration;

/// After so many failures in a row: 50 ms, doubling to 1 s, half of it random. Longer than a second only if Redis
/// or the breaker said when to come back.
pub(super) fn after_failures(failures: u32, said: Option<Duration>, sample: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let longest = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let least = said.unwrap_or_default().min(LONGEST);
    longest.mul_f64(0.5 + sample / 2.0).max(least)
}

/// How long an idle worker waits to be woken before it looks by itself.
pub(super) fn to_be_woken(sample: f64) -> Duration {
    IDLE.mul_f64(0.8 + sample / 5.0)
}

/// How long an idle worker waits that can't be woken, after so many looks for nothing: 100 ms, doubling to 1 s.
pub(super) fn between_looks(looks: u32, sample: f64) -> Duration {
    let longest = FIRST_LOOK.saturating_mul(1 << looks.min(10)).min(LONGEST);
    longest.mul_f64(0.75 + sample / 4.0)
}

/// The longest anybody waits to be woken.
const IDLE: Duration = Duration::from_secs(5);
const FIRST: Duration = Duration::from_millis(50);
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: Duration) -> u128 {
        time.as_millis()
    }

    #[test]
    fn delays_grow_to_a_second_and_half_of_each_is_random() {
        let delays = |sample| [1, 2, 3, 4, 5, 6, 100].map(|n| ms(after_failures(n, None, sample)));
        assert_eq!(delays(1.0), [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delays(0.0), [25, 50, 100, 200, 400, 500, 500]);
        assert_eq!(ms(after_failures(0, None, 1.0)), 50);
    }

    #[test]
    fn a_breaker_that_says_when_is_obeyed_up_to_a_second() {
        let said = |ms| Some(Duration::from_millis(ms));
        assert_eq!(ms(after_failures(1, said(300), 0.0)), 300);
        assert_eq!(ms(after_failures(1, said(60_000), 0.0)), 1000);
        assert_eq!(ms(after_failures(9, said(1), 1.0)), 1000);
    }

    #[test]
    fn nobody_waits_for_no_time_at_all() {
        for sample in [0.0, 1.0] {
            assert!(to_be_woken(sample) >= Duration::from_secs(4));
            assert!(to_be_woken(sample) <= IDLE);
            assert!(between_looks(0, sample) >= Duration::from_millis(75));
            assert!(between_looks(u32::MAX, sample) <= LONGEST);
        }
    }
}

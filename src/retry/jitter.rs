//! How far a delay is moved at random, so that clients that failed together do not return together.

use std::time::Duration;

use crate::error::InvalidSetting;

/// The random part of a delay.
///
/// # Default
///
/// Proportional, 25 %: a delay of 8 s becomes one of 6 to 10 s.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Jitter(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    None,
    Proportional(f64),
    Full,
    Decorrelated,
}

impl Jitter {
    pub(super) const DEFAULT: Self = Self(Kind::Proportional(0.25));

    /// The delays as they are. For tests, and where a single client runs.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// Up to `ratio` of the delay less or more.
    ///
    /// # Errors
    ///
    /// If `ratio` is not a number from 0 to 1.
    pub fn proportional(ratio: f64) -> Result<Self, InvalidSetting> {
        if (0.0..=1.0).contains(&ratio) {
            Ok(Self(Kind::Proportional(ratio)))
        } else {
            Err(InvalidSetting::new(
                "jitter ratio",
                "must be a number from 0 to 1",
            ))
        }
    }

    /// Anything from nothing to the delay: spreads a crowd the widest, at half the delay on average.
    pub const fn full() -> Self {
        Self(Kind::Full)
    }

    /// Anything from the schedule's first delay to three times the delay before this one.
    ///
    /// The delays grow by themselves, so of the schedule only the first and the largest matter.
    pub const fn decorrelated() -> Self {
        Self(Kind::Decorrelated)
    }

    /// Moves `delay` by `sample`, which is at least 0 and at most 1.
    pub(super) fn apply(self, delay: Duration, range: Range, sample: f64) -> Duration {
        match self.0 {
            Kind::None => delay,
            Kind::Proportional(ratio) => scale(delay, 1.0 + ratio * (2.0 * sample - 1.0)),
            Kind::Full => scale(delay, sample),
            Kind::Decorrelated => {
                let highest = range.previous.max(range.first).saturating_mul(3);
                let above = scale(highest - range.first, sample);
                range.first.saturating_add(above).min(range.largest)
            }
        }
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What [`Jitter::decorrelated`] goes by instead of the delay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: Duration,
    pub(super) previous: Duration,
    pub(super) largest: Duration,
}

/// `factor` is not negative; what is too long for a `Duration` is the longest there is.
fn scale(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ratio_that_is_no_share_is_refused() {
        for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = Jitter::proportional(ratio).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "invalid jitter ratio: must be a number from 0 to 1"
            );
        }
        assert!(Jitter::proportional(0.0).is_ok() && Jitter::proportional(1.0).is_ok());
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..u64::MAX).prop_map(Duration::from_nanos),
            (0..u64::MAX).prop_map(Duration::from_secs),
            Just(Duration::MAX),
        ]
    }

    proptest! {
        #[test]
        fn any_delay_can_be_moved_and_stays_in_its_range(
            delay in duration(),
            first in duration(),
            previous in duration(),
            largest in duration(),
            ratio in 0.0..=1.0,
            sample in 0.0..=1.0,
        ) {
            let largest = largest.max(first);
            let range = Range { first, previous, largest };
            prop_assert_eq!(Jitter::none().apply(delay, range, sample), delay);

            let decorrelated = Jitter::decorrelated().apply(delay, range, sample);
            prop_assert!(first <= decorrelated && decorrelated <= largest);

            // Floating point is true to 1 part in 10^15 or so.
            let full = Jitter::full().apply(delay, range, sample).as_secs_f64();
            prop_assert!(full <= delay.as_secs_f64() * (1.0 + 1e-12) + 1e-9);

            let jitter = Jitter::proportional(ratio).unwrap();
            let moved = jitter.apply(delay, range, sample).as_secs_f64() - delay.as_secs_f64();
            prop_assert!(moved.abs() <= delay.as_secs_f64() * (ratio + 1e-12) + 1e-9);
        }
    }
}

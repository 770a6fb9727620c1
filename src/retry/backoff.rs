//! How long to wait before each retry.

use std::{sync::Arc, time::Duration};

use backoff::{ExponentialBackoffBuilder, backoff::Backoff as _};

use super::jitter::{Jitter, Range};
use crate::error::InvalidSetting;

/// The delays between attempts: a schedule, a cap and a [`Jitter`].
///
/// | | delays, before the jitter | how many, unless the policy says |
/// |---|---|---|
/// | [`fixed(d)`](Self::fixed) | d, d, d ... | the policy's default |
/// | [`delays([a, b, c])`](Self::delays) | a, b, c, c ... | as many as are listed |
/// | [`linear(d)`](Self::linear) | d, 2 d, 3 d ... | the policy's default |
/// | [`exponential(min, max)`](Self::exponential) | min, 2 min, 4 min ... max, max | the policy's default |
///
/// Sums too long for a `Duration` are the longest there is. Timers tick in milliseconds: a shorter
/// delay is one of a millisecond.
///
/// # Default
///
/// - Jitter: [`Jitter::default`], 25 % less or more.
/// - Cap: none beyond the schedule's own.
#[derive(Clone, Debug)]
#[must_use]
pub struct Backoff {
    schedule: Schedule,
    max_delay: Duration,
    jitter: Jitter,
}

#[derive(Clone, Debug)]
enum Schedule {
    Fixed(Duration),
    Linear(Duration),
    /// What is listed; the last one repeats.
    Listed(Arc<[Duration]>),
    /// Worked out beforehand up to the largest, which repeats.
    Exponential(Arc<[Duration]>),
}

impl Backoff {
    /// The same delay each time.
    pub const fn fixed(delay: Duration) -> Self {
        Self::of(Schedule::Fixed(delay))
    }

    /// These delays, in this order.
    ///
    /// The list says two things at once: without
    /// [`with_max_retries`](super::RetryPolicy::with_max_retries), `delays([10 s, 30 s, 60 s])` is
    /// three retries, and an empty list is none. If the policy allows more, the last delay repeats
    /// (after an empty list, no delay); if it allows fewer, the rest is not used.
    pub fn delays(delays: impl Into<Arc<[Duration]>>) -> Self {
        Self::of(Schedule::Listed(delays.into()))
    }

    /// `step` before the first retry, and `step` more before each further one.
    pub const fn linear(step: Duration) -> Self {
        Self::of(Schedule::Linear(step))
    }

    /// `min` before the first retry, and twice the last one before each further one, up to `max`.
    ///
    /// A `min` of zero stays zero; a `min` over `max` is `max`.
    pub fn exponential(min: Duration, max: Duration) -> Self {
        Self::of(Schedule::Exponential(multiplied(min, max, 2.0)))
    }

    /// As [`exponential`](Self::exponential), with another multiplier than 2.
    ///
    /// # Errors
    ///
    /// If `multiplier` is not a finite number of at least 1.1.
    pub fn exponential_by(
        multiplier: f64,
        min: Duration,
        max: Duration,
    ) -> Result<Self, InvalidSetting> {
        if multiplier.is_finite() && multiplier >= SLOWEST_GROWTH {
            let delays = multiplied(min, max, multiplier);
            Ok(Self::of(Schedule::Exponential(delays)))
        } else {
            Err(InvalidSetting::new(
                "backoff multiplier",
                "must be a finite number of at least 1.1",
            ))
        }
    }

    const fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            max_delay: Duration::MAX,
            jitter: Jitter::DEFAULT,
        }
    }

    /// Caps the schedule. The jitter comes after the cap, so that the capped delays are spread too:
    /// a proportional one goes as much over the cap as under it.
    pub const fn with_max_delay(mut self, max: Duration) -> Self {
        self.max_delay = max;
        self
    }

    /// Sets the random part.
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay before retry number `retry`; 1 is the first.
    ///
    /// It depends on nothing else: `previous` is the last delay this gave for the same call (zero
    /// before the first retry), which [`Jitter::decorrelated`] grows from; `sample` is one draw from
    /// 0 to 1, where 0 gives the shortest delay and 1 the longest.
    #[must_use]
    pub fn delay(&self, retry: u32, previous: Duration, sample: f64) -> Duration {
        let range = Range {
            first: self.scheduled(1),
            previous,
            largest: self.largest(),
        };
        // The shortest delay also for a sample that is no number.
        let sample = if sample > 0.0 { sample.min(1.0) } else { 0.0 };
        self.jitter.apply(self.scheduled(retry), range, sample)
    }

    /// How many retries the schedule itself stands for: the length of a list.
    pub(super) fn listed(&self) -> Option<u32> {
        match &self.schedule {
            Schedule::Listed(delays) => Some(u32::try_from(delays.len()).unwrap_or(u32::MAX)),
            Schedule::Fixed(_) | Schedule::Linear(_) | Schedule::Exponential(_) => None,
        }
    }

    fn scheduled(&self, retry: u32) -> Duration {
        let delay = match &self.schedule {
            Schedule::Fixed(delay) => *delay,
            Schedule::Linear(step) => step.saturating_mul(retry.max(1)),
            Schedule::Listed(delays) | Schedule::Exponential(delays) => {
                let index = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
                let delay = delays.get(index).or(delays.last());
                delay.copied().unwrap_or_default()
            }
        };
        delay.min(self.max_delay)
    }

    fn largest(&self) -> Duration {
        let largest = match &self.schedule {
            Schedule::Fixed(_) | Schedule::Linear(_) => Duration::MAX,
            Schedule::Listed(delays) | Schedule::Exponential(delays) => {
                delays.iter().max().copied().unwrap_or_default()
            }
        };
        largest.min(self.max_delay)
    }
}

/// With a multiplier nearer to 1 it takes thousands of retries to get anywhere, and as long a table.
const SLOWEST_GROWTH: f64 = 1.1;

/// The schedule, from `min` until it grows no more.
///
/// The `backoff` crate is asked for its intervals only: its answers carry a fraction of jitter even
/// at a factor of 0, and its clock is for a limit that is switched off here.
fn multiplied(min: Duration, max: Duration, multiplier: f64) -> Arc<[Duration]> {
    let mut exponential = ExponentialBackoffBuilder::new()
        .with_initial_interval(min.min(max))
        .with_multiplier(multiplier)
        .with_max_interval(max)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build();
    let mut delays = Vec::new();
    while delays
        .last()
        .is_none_or(|last| *last < exponential.current_interval)
    {
        delays.push(exponential.current_interval);
        exponential.next_backoff();
    }
    delays.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn table<const N: usize>(backoff: &Backoff, sample: f64) -> [Duration; N] {
        let mut previous = Duration::ZERO;
        std::array::from_fn(|done| {
            previous = backoff.delay(done as u32 + 1, previous, sample);
            previous
        })
    }

    fn plain<const N: usize>(backoff: Backoff) -> [Duration; N] {
        table(&backoff.with_jitter(Jitter::none()), 0.5)
    }

    #[test]
    fn the_schedules_are_what_their_names_say() {
        assert_eq!(plain(Backoff::fixed(s(5))), [s(5); 4]);
        assert_eq!(
            plain(Backoff::delays([s(10), s(30), s(60)])),
            [s(10), s(30), s(60), s(60), s(60)]
        );
        assert_eq!(plain(Backoff::delays([])), [s(0); 3]);
        assert_eq!(plain(Backoff::linear(s(2))), [s(2), s(4), s(6), s(8)]);
        assert_eq!(
            plain(Backoff::exponential(s(1), s(60))),
            [s(1), s(2), s(4), s(8), s(16), s(32), s(60), s(60), s(60)]
        );
        assert_eq!(
            plain(Backoff::exponential_by(3.0, ms(100), s(5)).unwrap()),
            [ms(100), ms(300), ms(900), ms(2_700), s(5), s(5)]
        );
    }

    #[test]
    fn a_cap_holds_for_every_schedule() {
        let capped = |backoff: Backoff| plain(backoff.with_max_delay(s(3)));
        assert_eq!(capped(Backoff::fixed(s(5))), [s(3); 3]);
        assert_eq!(capped(Backoff::delays([s(1), s(9)])), [s(1), s(3), s(3)]);
        assert_eq!(capped(Backoff::linear(s(2))), [s(2), s(3), s(3)]);
        assert_eq!(
            capped(Backoff::exponential(s(1), s(60))),
            [s(1), s(2), s(3)]
        );
        assert_eq!(plain(Backoff::exponential(s(9), s(3))), [s(3); 3]);
    }

    #[test]
    fn each_jitter_spans_its_range() {
        let draws = |backoff: Backoff| [0.0, 0.5, 1.0].map(|sample| table::<3>(&backoff, sample));
        let backoff = Backoff::exponential(s(1), s(6));
        assert_eq!(
            draws(backoff.clone()),
            [
                [ms(750), ms(1_500), ms(3_000)],
                [s(1), s(2), s(4)],
                [ms(1_250), ms(2_500), ms(5_000)]
            ]
        );
        assert_eq!(
            draws(backoff.clone().with_jitter(Jitter::full())),
            [[s(0); 3], [ms(500), s(1), s(2)], [s(1), s(2), s(4)]]
        );
        assert_eq!(
            draws(backoff.with_jitter(Jitter::decorrelated())),
            [[s(1); 3], [s(2), ms(3_500), ms(5_750)], [s(3), s(6), s(6)]]
        );
    }

    #[test]
    fn a_list_stands_for_as_many_retries() {
        assert_eq!(Backoff::delays([s(10), s(30), s(60)]).listed(), Some(3));
        assert_eq!(Backoff::delays([]).listed(), Some(0));
        assert_eq!(Backoff::fixed(s(1)).listed(), None);
    }

    #[test]
    fn a_multiplier_that_does_not_multiply_is_refused() {
        for multiplier in [0.0, 1.0, -2.0, f64::NAN, f64::INFINITY] {
            assert!(Backoff::exponential_by(multiplier, s(1), s(2)).is_err());
        }
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..10_000u64).prop_map(Duration::from_nanos),
            (0..u64::MAX).prop_map(Duration::from_nanos),
            (0..u64::MAX).prop_map(Duration::from_secs),
            Just(Duration::MAX),
        ]
    }

    proptest! {
        #[test]
        fn an_exponential_schedule_grows_and_ends_at_its_maximum(
            min in duration(),
            max in duration(),
            multiplier in 1.1..50.0,
        ) {
            let delays = multiplied(min, max, multiplier);
            prop_assert!(!delays.is_empty() && delays.len() < 1_000);
            prop_assert!(delays.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(delays[0], min.min(max));
            prop_assert!(delays.iter().all(|delay| *delay <= max));
            // 10 ns is the least that still grows by a whole one when multiplied by 1.1.
            if min >= Duration::from_nanos(10) {
                prop_assert_eq!(delays[delays.len() - 1], max);
            }
        }

        #[test]
        fn any_number_of_retries_and_any_sample_give_a_delay(
            step in duration(),
            retry: u32,
            previous in duration(),
            sample in prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY)],
        ) {
            for backoff in [
                Backoff::fixed(step),
                Backoff::linear(step),
                Backoff::delays([step]),
                Backoff::exponential(step, Duration::MAX),
            ] {
                let (low, high) = (
                    backoff.delay(retry, previous, 0.0),
                    backoff.delay(retry, previous, 1.0),
                );
                let delay = backoff.delay(retry, previous, sample);
                prop_assert!(low <= delay && delay <= high);
            }
        }
    }
}

//! When the breaker opens, for how long, and what closes it again: [`BreakerOptions`].

use std::time::Duration;

/// What the breaker goes by.
///
/// Settings out of range are moved to the nearest value in range; none is refused, none panics.
/// The [module docs](super) argue for the defaults.
///
/// # Default
///
/// - opens after 5 failures in a row
/// - or once 50 % of the last 100 calls have failed, judged from 10 calls on
/// - slow calls: not counted (a threshold of `None`; once set, 100 % of them opens it)
/// - open: 0.5 s, doubled by each opening in a row to at most 15 s, shortened by up to 25 % at random
/// - begins at 0.5 s again after it has been closed for 30 s
/// - half-open: 3 calls, for at most 1 s each
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a layer is made of them"]
pub struct BreakerOptions {
    pub(super) window: SlidingWindow,
    pub(super) minimum_calls: u32,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) failure_rate: Option<f64>,
    pub(super) slow_call: Option<Duration>,
    pub(super) slow_call_rate: f64,
    pub(super) open_time: Duration,
    pub(super) open_time_factor: f64,
    pub(super) open_time_cap: Duration,
    pub(super) open_time_jitter: f64,
    pub(super) healthy_after: Duration,
    pub(super) half_open_calls: u32,
    pub(super) half_open_max_wait: Option<Duration>,
}

/// Which calls the rates are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlidingWindow {
    /// The last so many calls, two bytes of memory each. From 1 to 65,536.
    Calls(u32),
    /// The calls of the last so long, forgotten a tenth of it at a time: each counts for nine to ten
    /// tenths. From 10 ms to one day.
    Time(Duration),
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            window: SlidingWindow::Calls(100),
            minimum_calls: 10,
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_call: None,
            slow_call_rate: 1.0,
            open_time: Duration::from_millis(500),
            open_time_factor: 2.0,
            open_time_cap: Duration::from_secs(15),
            open_time_jitter: 0.25,
            healthy_after: Duration::from_secs(30),
            half_open_calls: 3,
            half_open_max_wait: Some(Duration::from_secs(1)),
        }
    }
}

impl BreakerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which calls the failure rate and the slow-call rate are taken over.
    pub fn with_sliding_window(mut self, window: SlidingWindow) -> Self {
        self.window = match window {
            SlidingWindow::Calls(size) => SlidingWindow::Calls(size.clamp(1, 1 << 16)),
            SlidingWindow::Time(span) => {
                SlidingWindow::Time(span.clamp(Duration::from_millis(10), DAY))
            }
        };
        self
    }

    /// How many calls the window must hold before a rate means anything: below, no rate opens the
    /// breaker, not even one of 100 %.
    ///
    /// No more than the window can hold. Failures in a row need no such minimum: their number is one.
    pub fn with_minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Opens after this many failures in a row; `None` does not count them.
    ///
    /// At least 1.
    pub fn with_consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = failures.into().map(|failures| failures.max(1));
        self
    }

    /// Opens once this share of the window's calls, or more, has failed; `None` does not look.
    ///
    /// From 0 (any failure) to 1.
    pub fn with_failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = rate.into().map(share);
        self
    }

    /// Takes a call that lasts longer than `threshold` for a slow one, whether it fails or not;
    /// `None` measures no call, which saves reading the clock.
    pub fn with_slow_call(mut self, threshold: impl Into<Option<Duration>>) -> Self {
        self.slow_call = threshold.into();
        self
    }

    /// Opens once this share of the window's calls, or more, was slow.
    ///
    /// From 0 (any slow call) to 1.
    pub fn with_slow_call_rate(mut self, rate: f64) -> Self {
        self.slow_call_rate = share(rate);
        self
    }

    /// How long it stays open the first time.
    ///
    /// From 1 ms to one day.
    pub fn with_open_time(mut self, time: Duration) -> Self {
        self.open_time = time.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// By how much the open time grows at each opening in a row; 1 for no growth.
    pub fn with_open_time_factor(mut self, factor: f64) -> Self {
        // A NaN becomes 1, which `clamp` alone would keep.
        self.open_time_factor = factor.max(1.0).clamp(1.0, 1e6);
        self
    }

    /// The longest open time.
    ///
    /// From 1 ms to one day.
    pub fn with_open_time_cap(mut self, cap: Duration) -> Self {
        self.open_time_cap = cap.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// Up to which share of itself the open time is shortened at random, so that many processes do
    /// not knock at once. 0 for none.
    pub fn with_open_time_jitter(mut self, share_of_it: f64) -> Self {
        self.open_time_jitter = share(share_of_it);
        self
    }

    /// How long it must have been closed for the open time to begin small again.
    pub fn with_healthy_after(mut self, closed: Duration) -> Self {
        self.healthy_after = closed;
        self
    }

    /// How many calls are let through when the open time has passed. All of them must succeed; the
    /// first failure opens it again.
    ///
    /// At least 1.
    pub fn with_half_open_calls(mut self, calls: u32) -> Self {
        self.half_open_calls = calls.max(1);
        self
    }

    /// After how long without an answer the calls of a half-open breaker count as failed; `None`
    /// waits for ever.
    ///
    /// Measured from the last place given out, and acted on when a call finds none free. Give it more
    /// than an attempt may take: a call that is cancelled, or answers, needs no such limit. At least
    /// 1 ms.
    pub fn with_half_open_max_wait(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.half_open_max_wait = wait.into().map(|wait| wait.max(Duration::from_millis(1)));
        self
    }

    /// Whether anybody asks how long a call takes.
    pub(super) fn times_calls(&self) -> bool {
        self.slow_call.is_some()
    }
}

/// Long enough for any outage, short enough to be added to any time.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// NaN is no share, so it does as little as possible: it asks for all.
fn share(value: f64) -> f64 {
    if value.is_nan() {
        1.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_moved_into_it() {
        let options = BreakerOptions::new()
            .with_sliding_window(SlidingWindow::Calls(0))
            .with_consecutive_failures(0)
            .with_failure_rate(f64::NAN)
            .with_slow_call_rate(-1.0)
            .with_open_time(Duration::ZERO)
            .with_open_time_factor(f64::NAN)
            .with_open_time_cap(Duration::MAX)
            .with_open_time_jitter(7.0)
            .with_half_open_calls(0);
        assert_eq!(options.window, SlidingWindow::Calls(1));
        assert_eq!(options.consecutive_failures, Some(1));
        assert_eq!(options.failure_rate, Some(1.0));
        assert_eq!(options.slow_call_rate, 0.0);
        assert_eq!(options.open_time, Duration::from_millis(1));
        assert_eq!(options.open_time_factor, 1.0);
        assert_eq!(options.open_time_cap, DAY);
        assert_eq!(options.open_time_jitter, 1.0);
        assert_eq!(options.half_open_calls, 1);
    }
}

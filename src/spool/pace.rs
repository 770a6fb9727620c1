//! When replay may send, and how much: the slow start, the rate and the waits after a failure.
//!
//! No clock and no dice: every method is told the time and a uniform sample from 0 to 1.

use std::time::Duration;

use tokio::time::Instant;

use super::options::Replay;

#[derive(Debug)]
pub(super) struct Pace {
    options: Replay,
    phase: Phase,
    /// Not before this.
    next: Option<Instant>,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// No answer since the last failure, or since the start; how many failures in a row.
    Knocking { failures: u32 },
    /// Redis answers since then.
    Flowing { since: Instant },
}

impl Pace {
    pub(super) fn new(options: Replay) -> Self {
        Self {
            options,
            phase: Phase::Knocking { failures: 0 },
            next: None,
        }
    }

    /// When the next batch may go: `None` at once.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// How many of `most` records the next batch may hold: a slow start is not begun with a big one.
    pub(super) fn allowance(&self, most: usize, now: Instant) -> usize {
        match self.phase {
            Phase::Knocking { .. } => most.min(FIRST_BATCH),
            Phase::Flowing { .. } => match self.rate(now) {
                // Not more than a twentieth of a second's worth at a time.
                Some(rate) => most.min((rate / 20.0) as usize).max(1),
                None => most,
            },
        }
    }

    /// `records` were delivered.
    pub(super) fn delivered(&mut self, records: usize, now: Instant) {
        if let Phase::Knocking { .. } = self.phase {
            self.phase = Phase::Flowing { since: now };
        }
        self.next = self.rate(now).map(|rate| {
            let due = self.next.map_or(now, |next| next.max(now));
            due + Duration::from_secs_f64(records as f64 / rate)
        });
    }

    /// The way is shut; `hint` is when the failure itself says to come back.
    pub(super) fn failed(&mut self, hint: Option<Duration>, now: Instant, sample: f64) {
        let failures = match self.phase {
            Phase::Knocking { failures } => failures.saturating_add(1),
            Phase::Flowing { .. } => 1,
        };
        self.phase = Phase::Knocking { failures };
        let doubled = self
            .options
            .min_delay
            .saturating_mul(1 << (failures - 1).min(16));
        let delay = doubled.min(self.options.max_delay);
        let delay = delay.mul_f64(0.5 + sample / 2.0);
        // A breaker that says "in 30 s" is obeyed only so far: it may close earlier, and to be refused
        // by it again costs next to nothing.
        let hint = hint.unwrap_or_default().min(self.options.max_delay);
        self.next = Some(now + delay.max(hint));
    }

    /// Somebody else has seen Redis answer.
    pub(super) fn recovered(&mut self, now: Instant, sample: f64) {
        if let Phase::Knocking { .. } = self.phase {
            self.next = Some(now + self.options.jitter.mul_f64(sample));
        }
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        let limit = self.options.rate.map(f64::from);
        let started = match (&self.phase, self.options.start_rate) {
            (Phase::Flowing { since }, Some(start)) => {
                let steps = now.duration_since(*since).as_nanos() / self.options.step.as_nanos();
                (steps < SLOW_STEPS).then(|| f64::from(start) * f64::from(1u32 << steps as u32))
            }
            _ => None,
        };
        match (limit, started) {
            (Some(limit), Some(started)) => Some(limit.min(started)),
            (limit, started) => limit.or(started),
        }
    }
}

/// Enough to see whether Redis takes records again.
const FIRST_BATCH: usize = 64;

/// After eight doublings, 256 times the start, the rate is the configured one.
const SLOW_STEPS: u128 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_a_success_ends_them() {
        let now = Instant::now();
        let mut pace = Pace::new(Replay::new());
        let mut waits = Vec::new();
        for _ in 0..7 {
            pace.failed(None, now, 1.0);
            waits.push((pace.wait_until(now).unwrap() - now).as_millis());
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        pace.delivered(1, now);
        pace.failed(None, now, 0.0);
        assert_eq!(
            pace.wait_until(now).unwrap() - now,
            Duration::from_millis(25)
        );
    }

    #[test]
    fn a_recovery_seen_elsewhere_ends_the_wait_within_the_jitter() {
        let now = Instant::now();
        let mut pace = Pace::new(Replay::new().with_jitter(Duration::from_millis(100)));
        for _ in 0..10 {
            pace.failed(Some(Duration::from_secs(30)), now, 0.5);
        }
        assert!(pace.wait_until(now).unwrap() <= now + Duration::from_secs(1));
        pace.recovered(now, 0.25);
        assert_eq!(pace.wait_until(now), Some(now + Duration::from_millis(25)));
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_is_ever_let_through(
            rate in 1u32..50_000,
            start in 1u32..50_000,
            batches in proptest::collection::vec(1usize..2_000, 1..100),
        ) {
            let begin = Instant::now();
            let replay = Replay::new()
                .with_rate(rate)
                .with_slow_start(start, Duration::from_millis(200));
            let mut pace = Pace::new(replay);
            let (mut now, mut sent, mut last) = (begin, 0, 0);
            for most in batches {
                now = pace.wait_until(now).unwrap_or(now);
                let batch = pace.allowance(most, now);
                prop_assert!(batch >= 1 && batch <= most);
                pace.delivered(batch, now);
                sent += batch;
                last = batch;
            }
            let allowed = (now - begin).as_secs_f64() * f64::from(rate);
            prop_assert!((sent - last) as f64 <= allowed + 1.0, "{sent} in {:?}", now - begin);
        }
    }
}

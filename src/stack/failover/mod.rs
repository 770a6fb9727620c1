//! The decisions of a failover: which target is in use, from what is known of their health.
//!
//! No clock and no I/O: it is told who is healthy and what time it is.
//!
//! - A target's *illness* grows with the time for which it is unhealthy, and shrinks by a quarter of the time for
//!   which it is healthy. So one that is out, and one that comes and goes, both get to the threshold, and a short
//!   disturbance now and then does not.
//! - The active target is left once its illness is at the threshold, it is unhealthy, and another one is healthy.
//! - A target that is preferred to the active one is gone back to once it has been healthy for the grace period
//!   without a break. Each time it fails again soon after that, the period doubles: its *hold*.
//! - With nobody healthy nothing changes.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How much illness the active target may have.
    pub(super) threshold: Duration,
    /// For how long a preferred target must have been healthy; `None`: it is not gone back to.
    pub(super) grace: Option<Duration>,
    /// What the hold grows to.
    pub(super) longest_hold: Duration,
}

/// The active target, and what is known of all of them, the most preferred one first.
#[derive(Debug)]
pub(super) struct Failover {
    rules: Rules,
    targets: Box<[Track]>,
    active: usize,
    seen: Instant,
}

/// One target's past.
#[derive(Clone, Copy, Debug)]
struct Track {
    healthy: bool,
    /// Since when it is healthy, or not.
    since: Instant,
    illness: Duration,
    /// How often in a row it has been left soon after it had been entered.
    failures: u32,
    entered: Instant,
}

/// A decision to use another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The active one is out.
    Unhealthy,
    /// One that is preferred is back.
    Recovered,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Recovered => "recovered",
        }
    }
}

impl Failover {
    /// With the first of `count` targets in use, and none of them known to be healthy.
    pub(super) fn new(rules: Rules, count: usize, now: Instant) -> Self {
        let unknown = Track {
            healthy: false,
            since: now,
            illness: Duration::ZERO,
            failures: 0,
            entered: now,
        };
        Self {
            rules,
            targets: vec![unknown; count].into(),
            active: 0,
            seen: now,
        }
    }

    /// The target in use.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Takes note of who is healthy at `now`, and decides.
    pub(super) fn observe(&mut self, healthy: &[bool], now: Instant) -> Option<Switch> {
        let passed = now.saturating_duration_since(self.seen);
        self.seen = self.seen.max(now);
        for (track, healthy) in self.targets.iter_mut().zip(healthy) {
            track.pass(passed, self.rules.threshold);
            if track.healthy != *healthy {
                track.healthy = *healthy;
                track.since = now;
            }
        }
        let (to, reason) = match self.refuge() {
            Some(to) => (to, Reason::Unhealthy),
            None => (self.preferred(now)?, Reason::Recovered),
        };
        Some(self.switch(to, reason, now))
    }

    /// When something is to be decided, if nobody's health changes before that.
    pub(super) fn due(&self) -> Option<Instant> {
        let active = self.targets.get(self.active)?;
        let others_healthy = self.targets.iter().any(|track| track.healthy);
        let leave = (!active.healthy && others_healthy)
            .then(|| self.seen + self.rules.threshold.saturating_sub(active.illness));
        let back = self
            .better()
            .filter_map(|(_, track)| track.since.checked_add(self.hold(track)?))
            .min();
        leave.into_iter().chain(back).min()
    }

    /// Where to go from an active target that is out.
    fn refuge(&self) -> Option<usize> {
        let active = self.targets.get(self.active)?;
        if active.healthy || active.illness < self.rules.threshold {
            return None;
        }
        let healthy = self
            .targets
            .iter()
            .enumerate()
            .filter(|(_, track)| track.healthy);
        // One that comes and goes is better than none.
        let ill = self.rules.threshold / 2;
        let best = healthy.min_by_key(|(at, track)| (track.illness >= ill, *at));
        best.map(|(at, _)| at)
    }

    /// A better one that has been healthy for long enough.
    fn preferred(&self, now: Instant) -> Option<usize> {
        let mut better = self.better();
        let back = better.find(|(_, track)| {
            let healthy_for = now.saturating_duration_since(track.since);
            self.hold(track).is_some_and(|hold| healthy_for >= hold)
        });
        back.map(|(at, _)| at)
    }

    /// The healthy ones that are preferred to the active one.
    fn better(&self) -> impl Iterator<Item = (usize, &Track)> {
        let better = self.targets.iter().enumerate().take(self.active);
        better.filter(|(_, track)| track.healthy)
    }

    /// For how long a target must be healthy before it is gone back to.
    fn hold(&self, track: &Track) -> Option<Duration> {
        let grace = self.rules.grace?;
        let doublings = track.failures.saturating_sub(1).min(20);
        Some(
            grace
                .saturating_mul(1 << doublings)
                .min(self.rules.longest_hold.max(grace)),
        )
    }

    fn switch(&mut self, to: usize, reason: Reason, now: Instant) -> Switch {
        let from = self.active;
        let hold = self.targets.get(from).and_then(|track| self.hold(track));
        if let Some(left) = self
            .targets
            .get_mut(from)
            .filter(|_| reason == Reason::Unhealthy)
        {
            let served = now.saturating_duration_since(left.entered);
            let soon = hold.is_some_and(|hold| served <= hold);
            left.failures = if soon {
                left.failures.saturating_add(1)
            } else {
                1
            };
        }
        if let Some(entered) = self.targets.get_mut(to) {
            entered.entered = now;
            // What it has been through before is what the hold was for.
            entered.illness = Duration::ZERO;
        }
        self.active = to;
        Switch { from, to, reason }
    }
}

impl Track {
    /// Time passes, in the state it was in.
    fn pass(&mut self, passed: Duration, threshold: Duration) {
        self.illness = if self.healthy {
            self.illness.saturating_sub(passed / 4)
        } else {
            // No more, or a long outage would be held against it for long.
            self.illness.saturating_add(passed).min(threshold)
        };
    }
}

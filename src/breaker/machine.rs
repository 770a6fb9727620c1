//! The breaker's decisions. No clock, no chance, no I/O: each method is told the time, and one
//! uniform sample where it may have to draw an open time.
//!
//! Every change of state begins a new epoch, and an [`Entry`] carries the epoch it was given in. An
//! answer of another epoch says nothing about this one: it is ignored.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    options::{BreakerOptions, SlidingWindow},
    state::State,
    window::{Mark, Tally, Window},
};

/// What a call's answer says about the health of what was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// Nothing: it was never sent, or nobody waited for the answer.
    Ignored,
}

/// A call that was let in, as the machine will want to see it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    epoch: u64,
    /// When it was let in, where slow calls matter.
    at: Option<Instant>,
    takes_place: bool,
}

impl Entry {
    /// A call let in while closed, in `epoch`.
    pub(super) fn closed(epoch: u64, at: Option<Instant>) -> Self {
        Self {
            epoch,
            at,
            takes_place: false,
        }
    }

    /// Whether the machine must hear of it even if there is nothing to say.
    pub(super) fn takes_place(&self) -> bool {
        self.takes_place
    }
}

/// Whether a call may pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Admission {
    Counted(Entry),
    /// It may, and nobody wants to hear how it went.
    Uncounted,
    Refused(Refusal),
}

/// Why a call may not pass: until when, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) retry_after: Option<Duration>,
}

/// The state, and what it goes by.
#[derive(Debug)]
pub(super) struct Machine {
    options: BreakerOptions,
    phase: Phase,
    epoch: u64,
    since: Instant,
    window: Window,
    /// Failures since the last success.
    consecutive: u32,
    /// Openings since it last was healthy.
    trips: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen(Trial),
    ForcedOpen,
    ForcedClosed,
    Disabled,
}

/// How the few calls of a half-open breaker are doing.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Let through and not answered.
    out: u32,
    passed: u32,
    /// Of those that passed.
    slow: u32,
    /// When the last place was given out.
    given: Instant,
}

impl Machine {
    pub(super) fn new(options: BreakerOptions, now: Instant) -> Self {
        Self {
            window: Window::new(options.window, now),
            options,
            phase: Phase::Closed,
            epoch: 0,
            since: now,
            consecutive: 0,
            trips: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::ForcedClosed => State::ForcedClosed,
            Phase::Disabled => State::Disabled,
        }
    }

    /// How often the state has changed.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the state last changed.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// How long it stays open, if it is.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    pub(super) fn tally_at(&mut self, now: Instant) -> Tally {
        self.window.tally_at(now)
    }

    /// Why a call would not pass at `now`, if it would not.
    ///
    /// A half-open breaker whose calls have been out for too long opens again here: it is those who
    /// are refused that find it out.
    pub(super) fn refusal(&mut self, now: Instant, sample: f64) -> Option<Refusal> {
        if let Phase::HalfOpen(trial) = self.phase
            && let Some(limit) = self.options.half_open_max_wait
            && trial.is_full(&self.options)
            && now.saturating_duration_since(trial.given) >= limit
        {
            self.open(now, sample);
        }
        let retry_after = match self.phase {
            Phase::Closed | Phase::ForcedClosed | Phase::Disabled => return None,
            Phase::Open { until } if now >= until => return None,
            Phase::Open { .. } => self.open_for(now),
            Phase::HalfOpen(trial) if !trial.is_full(&self.options) => return None,
            // By then the calls that are out have been judged.
            Phase::HalfOpen(trial) => (self.options.half_open_max_wait)
                .map(|limit| limit.saturating_sub(now.saturating_duration_since(trial.given))),
            Phase::ForcedOpen => None,
        };
        Some(Refusal { retry_after })
    }

    /// Lets a call in, or not.
    pub(super) fn admit(&mut self, now: Instant, sample: f64) -> Admission {
        if let Some(refusal) = self.refusal(now, sample) {
            return Admission::Refused(refusal);
        }
        if let Phase::Open { .. } = self.phase {
            let trial = Trial {
                out: 0,
                passed: 0,
                slow: 0,
                given: now,
            };
            self.enter(Phase::HalfOpen(trial), now);
        }
        let takes_place = if let Phase::HalfOpen(trial) = &mut self.phase {
            trial.out += 1;
            trial.given = now;
            true
        } else if let Phase::Disabled = self.phase {
            return Admission::Uncounted;
        } else {
            false
        };
        Admission::Counted(Entry {
            epoch: self.epoch,
            at: self.options.times_calls().then_some(now),
            takes_place,
        })
    }

    /// Takes a success among successes into account: no time, no chance and no decision in it.
    ///
    /// `false` is for all else, and nothing has been done: [`record`](Self::record) it.
    pub(super) fn record_healthy(&mut self, entry: Entry) -> bool {
        let is_watching = matches!(self.phase, Phase::Closed | Phase::ForcedClosed);
        if !is_watching || entry.epoch != self.epoch || entry.at.is_some() {
            return false;
        }
        self.window.record_healthy()
    }

    /// Takes the answer of a call into account, once.
    pub(super) fn record(&mut self, entry: Entry, outcome: Outcome, now: Instant, sample: f64) {
        if entry.epoch != self.epoch {
            return;
        }
        let mark = Mark {
            failed: outcome == Outcome::Failure,
            slow: self.is_slow(entry, now),
        };
        match &mut self.phase {
            Phase::HalfOpen(trial) => {
                trial.out = trial.out.saturating_sub(1);
                match outcome {
                    Outcome::Ignored => {}
                    Outcome::Failure => self.open(now, sample),
                    Outcome::Success => {
                        trial.passed += 1;
                        trial.slow += u32::from(mark.slow);
                        self.judge(now, sample);
                    }
                }
            }
            Phase::Closed | Phase::ForcedClosed if outcome != Outcome::Ignored => {
                self.window.record(mark, now);
                self.consecutive = if mark.failed {
                    self.consecutive.saturating_add(1)
                } else {
                    0
                };
                if matches!(self.phase, Phase::Closed) && self.is_failing() {
                    self.open(now, sample);
                }
            }
            Phase::Closed
            | Phase::ForcedClosed
            | Phase::Open { .. }
            | Phase::ForcedOpen
            | Phase::Disabled => {}
        }
    }

    /// Opens, as failures would. An operator's word holds against it.
    pub(super) fn trip(&mut self, now: Instant, sample: f64) {
        if let Phase::Closed | Phase::HalfOpen(_) = self.phase {
            self.open(now, sample);
        }
    }

    /// Ends the open time: the next call is let in to find out.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Phase::Open { until } = &mut self.phase {
            *until = now.min(*until);
        }
    }

    /// Closes and forgets all it knew.
    pub(super) fn reset(&mut self, now: Instant) {
        self.trips = 0;
        self.forget(now);
        if !matches!(self.phase, Phase::Closed) {
            self.enter(Phase::Closed, now);
        }
    }

    pub(super) fn force_open(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.enter(Phase::ForcedOpen, now);
        }
    }

    pub(super) fn force_closed(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::ForcedClosed) {
            self.enter(Phase::ForcedClosed, now);
        }
    }

    pub(super) fn disable(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Disabled) {
            self.enter(Phase::Disabled, now);
        }
    }

    /// Ends a forced state, closed.
    pub(super) fn enable(&mut self, now: Instant) {
        if let Phase::ForcedOpen | Phase::ForcedClosed | Phase::Disabled = self.phase {
            self.enter(Phase::Closed, now);
        }
    }

    fn is_slow(&self, entry: Entry, now: Instant) -> bool {
        match (entry.at, self.options.slow_call) {
            (Some(at), Some(limit)) => now.saturating_duration_since(at) > limit,
            _ => false,
        }
    }

    fn is_failing(&self) -> bool {
        let options = &self.options;
        let tally = self.window.tally();
        let in_a_row = options.consecutive_failures;
        in_a_row.is_some_and(|limit| self.consecutive >= limit)
            || tally.calls >= self.minimum_calls()
                && (options
                    .failure_rate
                    .is_some_and(|rate| reaches(tally.failures, tally, rate))
                    || reaches(tally.slow, tally, options.slow_call_rate))
    }

    /// A minimum that the window cannot hold would never be met.
    fn minimum_calls(&self) -> u32 {
        match self.options.window {
            SlidingWindow::Calls(size) => self.options.minimum_calls.min(size),
            SlidingWindow::Time(_) => self.options.minimum_calls,
        }
    }

    /// Closes once all the calls of the trial have passed, unless too many of them were slow.
    fn judge(&mut self, now: Instant, sample: f64) {
        let Phase::HalfOpen(trial) = self.phase else {
            return;
        };
        if trial.passed < self.options.half_open_calls {
            return;
        }
        let tally = Tally {
            calls: trial.passed,
            failures: 0,
            slow: trial.slow,
        };
        if reaches(tally.slow, tally, self.options.slow_call_rate) {
            self.open(now, sample);
        } else {
            self.enter(Phase::Closed, now);
        }
    }

    fn open(&mut self, now: Instant, sample: f64) {
        let was_closed = matches!(self.phase, Phase::Closed);
        if was_closed && now.saturating_duration_since(self.since) >= self.options.healthy_after {
            self.trips = 0;
        }
        let until = now + open_time(&self.options, self.trips, sample);
        self.trips = self.trips.saturating_add(1);
        self.enter(Phase::Open { until }, now);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        // An operator who takes over, or gives back, does not change what the calls have shown.
        let was_watching = matches!(self.phase, Phase::Closed | Phase::ForcedClosed);
        let is_watching = matches!(phase, Phase::Closed | Phase::ForcedClosed);
        if is_watching && !was_watching {
            self.forget(now);
        }
        self.phase = phase;
        self.since = now;
        self.epoch += 1;
    }

    fn forget(&mut self, now: Instant) {
        self.window.clear(now);
        self.consecutive = 0;
    }
}

impl Trial {
    fn is_full(&self, options: &BreakerOptions) -> bool {
        self.out + self.passed >= options.half_open_calls
    }
}

/// Whether `part` is at least `rate` of the calls. None of them never is, whatever the rate.
///
/// The quotient, not the product, is compared: 7 of 100 is then exactly the 0.07 of the settings.
fn reaches(part: u32, tally: Tally, rate: f64) -> bool {
    part > 0 && f64::from(part) / f64::from(tally.calls) >= rate
}

/// How long to stay open after `trips` openings in a row; `sample` is from 0 to 1.
fn open_time(options: &BreakerOptions, trips: u32, sample: f64) -> Duration {
    let growth = options.open_time_factor.powi(trips.min(1_000) as i32);
    let grown = (options.open_time.as_secs_f64() * growth).min(options.open_time_cap.as_secs_f64());
    Duration::from_secs_f64(grown * (1.0 - options.open_time_jitter * sample))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

//! The machine against a model that keeps every answer and looks through all of them each time.

use proptest::prelude::*;

use super::{super::window::BUCKETS, *};

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    /// The answer of one of the calls that are out, or its being dropped.
    Answer(prop::sample::Index, Outcome),
    Wait(u64),
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    Disable,
    Enable,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Ignored),
    ];
    let step = prop_oneof![
        40 => Just(Step::Call),
        40 => (any::<prop::sample::Index>(), outcome).prop_map(|(of, how)| Step::Answer(of, how)),
        15 => (0_u64..60).prop_map(Step::Wait),
        1 => Just(Step::Trip),
        1 => Just(Step::Reset),
        1 => Just(Step::ForceOpen),
        1 => Just(Step::ForceClosed),
        1 => Just(Step::Disable),
        3 => Just(Step::Enable),
    ];
    prop::collection::vec(step, 0..400)
}

fn options() -> impl Strategy<Value = BreakerOptions> {
    let window = prop_oneof![
        (1_u32..12).prop_map(SlidingWindow::Calls),
        (50_u64..200).prop_map(|millis| SlidingWindow::Time(Duration::from_millis(millis))),
    ];
    let rates = (
        prop::option::of(prop::sample::select(vec![0.0, 0.25, 0.5, 1.0])),
        prop::sample::select(vec![0.5, 1.0]),
    );
    let counts = (1_u32..8, prop::option::of(1_u32..6), 1_u32..4);
    let times = (
        prop::option::of(0_u64..50),
        prop::option::of(1_u64..80),
        0_u64..100,
    );
    (window, rates, counts, times).prop_map(|(window, rates, counts, times)| {
        let millis = Duration::from_millis;
        BreakerOptions::new()
            .with_sliding_window(window)
            .with_failure_rate(rates.0)
            .with_slow_call_rate(rates.1)
            .with_minimum_calls(counts.0)
            .with_consecutive_failures(counts.1)
            .with_half_open_calls(counts.2)
            .with_slow_call(times.0.map(millis))
            .with_half_open_max_wait(times.1.map(millis))
            .with_healthy_after(millis(times.2))
            .with_open_time(millis(20))
            .with_open_time_cap(millis(90))
    })
}

struct Model {
    options: BreakerOptions,
    state: State,
    since: Instant,
    /// Changes of state so far.
    changes: u64,
    /// Every answer since the window was last empty, and when that was.
    answers: Vec<(Instant, Mark)>,
    emptied: Instant,
    /// The calls of this half-open period: when they were let in, and their answers.
    probes: Vec<(u64, Instant, Option<Outcome>, bool)>,
    trips: i32,
    until: Instant,
}

/// A call that is out: its number, when it was let in, and in which period.
#[derive(Clone, Copy)]
struct Out {
    number: u64,
    at: Instant,
    period: u64,
}

impl Model {
    fn new(options: BreakerOptions, now: Instant) -> Self {
        Self {
            options,
            state: State::Closed,
            since: now,
            changes: 0,
            answers: Vec::new(),
            emptied: now,
            probes: Vec::new(),
            trips: 0,
            until: now,
        }
    }

    fn go(&mut self, state: State, now: Instant) {
        let watched = |state| matches!(state, State::Closed | State::ForcedClosed);
        if watched(state) && !watched(self.state) {
            self.empty(now);
        }
        (self.state, self.since) = (state, now);
        self.changes += 1;
        self.probes.clear();
    }

    fn empty(&mut self, now: Instant) {
        self.answers.clear();
        self.emptied = now;
    }

    fn open(&mut self, now: Instant, sample: f64) {
        if self.state == State::Closed && now - self.since >= self.options.healthy_after {
            self.trips = 0;
        }
        let grown = self.options.open_time.as_secs_f64() * 2_f64.powi(self.trips);
        let capped = grown.min(self.options.open_time_cap.as_secs_f64());
        self.until = now + Duration::from_secs_f64(capped * (1.0 - 0.25 * sample));
        self.trips += 1;
        self.go(State::Open, now);
    }

    /// Whether a call passes.
    fn call(&mut self, number: u64, now: Instant, sample: f64) -> bool {
        if self.state == State::Open && now >= self.until {
            self.go(State::HalfOpen, now);
        }
        if self.state != State::HalfOpen {
            return self.state.lets_through();
        }
        let taken =
            |probe: &&(u64, Instant, Option<Outcome>, bool)| probe.2 != Some(Outcome::Ignored);
        if self.probes.iter().filter(taken).count() < self.options.half_open_calls as usize {
            self.probes.push((number, now, None, false));
            return true;
        }
        let last = self.probes.iter().map(|probe| probe.1).max().expect("full");
        if self
            .options
            .half_open_max_wait
            .is_some_and(|limit| now - last >= limit)
        {
            self.open(now, sample);
        }
        false
    }

    fn answer(&mut self, call: Out, outcome: Outcome, now: Instant, sample: f64) {
        if call.period != self.changes {
            return;
        }
        let slow = self
            .options
            .slow_call
            .is_some_and(|limit| now - call.at > limit);
        match self.state {
            State::HalfOpen => {
                for probe in &mut self.probes {
                    if probe.0 == call.number {
                        (probe.2, probe.3) = (Some(outcome), slow);
                    }
                }
                let passed: Vec<_> = (self.probes.iter())
                    .filter(|probe| probe.2 == Some(Outcome::Success))
                    .collect();
                let slow = passed.iter().filter(|probe| probe.3).count() as f64;
                if outcome == Outcome::Failure {
                    self.open(now, sample);
                } else if passed.len() == self.options.half_open_calls as usize {
                    if slow > 0.0 && slow / passed.len() as f64 >= self.options.slow_call_rate {
                        self.open(now, sample);
                    } else {
                        self.go(State::Closed, now);
                    }
                }
            }
            State::Closed | State::ForcedClosed if outcome != Outcome::Ignored => {
                let failed = outcome == Outcome::Failure;
                self.answers.push((now, Mark { failed, slow }));
                if self.state == State::Closed && self.is_failing(now) {
                    self.open(now, sample);
                }
            }
            _ => {}
        }
    }

    fn is_failing(&self, now: Instant) -> bool {
        let failures = self
            .answers
            .iter()
            .rev()
            .take_while(|(_, mark)| mark.failed)
            .count();
        if self
            .options
            .consecutive_failures
            .is_some_and(|limit| failures >= limit as usize)
        {
            return true;
        }
        let tally = self.tally(now);
        let minimum = match self.options.window {
            SlidingWindow::Calls(size) => size.min(self.options.minimum_calls),
            SlidingWindow::Time(_) => self.options.minimum_calls,
        };
        let share = |part: u32| f64::from(part) / f64::from(tally.calls);
        tally.calls >= minimum
            && (tally.failures > 0
                && self
                    .options
                    .failure_rate
                    .is_some_and(|rate| share(tally.failures) >= rate)
                || tally.slow > 0 && share(tally.slow) >= self.options.slow_call_rate)
    }

    fn tally(&self, now: Instant) -> Tally {
        let held: Vec<_> = match self.options.window {
            SlidingWindow::Calls(size) => self.answers.iter().rev().take(size as usize).collect(),
            SlidingWindow::Time(span) => {
                let tenth =
                    |at: Instant| (at - self.emptied).as_nanos() / (span / BUCKETS).as_nanos();
                let recent = |at| tenth(now) - tenth(at) < u128::from(BUCKETS);
                self.answers.iter().filter(|(at, _)| recent(*at)).collect()
            }
        };
        let count = |is: fn(&Mark) -> bool| held.iter().filter(|(_, mark)| is(mark)).count() as u32;
        Tally {
            calls: held.len() as u32,
            failures: count(|mark| mark.failed),
            slow: count(|mark| mark.slow),
        }
    }

    fn take(&mut self, step: Step, now: Instant, sample: f64) {
        match (step, self.state) {
            (Step::Trip, State::Closed | State::HalfOpen) => self.open(now, sample),
            (Step::Reset, state) => {
                self.trips = 0;
                self.empty(now);
                if state != State::Closed {
                    self.go(State::Closed, now);
                }
            }
            (Step::ForceOpen, state) if state != State::ForcedOpen => {
                self.go(State::ForcedOpen, now);
            }
            (Step::ForceClosed, state) if state != State::ForcedClosed => {
                self.go(State::ForcedClosed, now);
            }
            (Step::Disable, state) if state != State::Disabled => self.go(State::Disabled, now),
            (Step::Enable, State::ForcedOpen | State::ForcedClosed | State::Disabled) => {
                self.go(State::Closed, now);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn the_machine_does_what_a_naive_model_does(
        options in options(),
        steps in steps(),
        sample in 0.0_f64..1.0,
    ) {
        let mut now = Instant::now();
        let mut model = Model::new(options.clone(), now);
        let mut machine = Machine::new(options, now);
        let mut out: Vec<(Out, Entry)> = Vec::new();
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Call => {
                    let passes = model.call(number, now, sample);
                    let admission = machine.admit(now, sample);
                    prop_assert_eq!(passes, !matches!(admission, Admission::Refused(_)));
                    if let Admission::Counted(entry) = admission {
                        let period = model.changes;
                        out.push((Out { number, at: now, period }, entry));
                    }
                }
                Step::Answer(of, outcome) if !out.is_empty() => {
                    let (call, entry) = out.swap_remove(of.index(out.len()));
                    model.answer(call, outcome, now, sample);
                    let is_done = outcome == Outcome::Success && machine.record_healthy(entry);
                    if !is_done {
                        machine.record(entry, outcome, now, sample);
                    }
                }
                Step::Answer(..) => {}
                Step::Trip => machine.trip(now, sample),
                Step::Reset => machine.reset(now),
                Step::ForceOpen => machine.force_open(now),
                Step::ForceClosed => machine.force_closed(now),
                Step::Disable => machine.disable(now),
                Step::Enable => machine.enable(now),
            }
            model.take(step, now, sample);
            prop_assert_eq!(machine.state(), model.state, "after {:?}", step);
            prop_assert_eq!(machine.epoch(), model.changes);
            prop_assert_eq!(machine.since(), model.since);
            if model.state == State::Open {
                prop_assert_eq!(machine.open_for(now), Some(model.until.saturating_duration_since(now)));
            }
            if matches!(model.state, State::Closed | State::ForcedClosed) {
                prop_assert_eq!(machine.tally_at(now), model.tally(now));
            }
        }
    }
}

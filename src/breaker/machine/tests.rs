//! The machine's promises, one by one.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A machine and its present time; draws no jitter unless told.
struct Bench {
    machine: Machine,
    now: Instant,
    sample: f64,
}

impl Bench {
    fn new(options: BreakerOptions) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(options, now),
            now,
            sample: 0.0,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn enter(&mut self) -> Option<Entry> {
        match self.machine.admit(self.now, self.sample) {
            Admission::Counted(entry) => Some(entry),
            Admission::Uncounted | Admission::Refused(_) => None,
        }
    }

    fn settle(&mut self, entry: Entry, outcome: Outcome) {
        self.machine.record(entry, outcome, self.now, self.sample);
    }

    /// Calls that answer at once.
    fn run(&mut self, outcome: Outcome, times: u32) {
        for _ in 0..times {
            let entry = self.enter().expect("let in");
            self.settle(entry, outcome);
        }
    }

    fn run_slowly(&mut self, time: Duration) {
        let entry = self.enter().expect("let in");
        self.wait(time);
        self.settle(entry, Outcome::Success);
    }

    fn refused_for(&mut self) -> Option<Duration> {
        match self.machine.admit(self.now, self.sample) {
            Admission::Refused(refusal) => refusal.retry_after,
            other => panic!("{other:?}"),
        }
    }

    /// Opens it and waits until it is about to be half-open.
    fn opened(options: BreakerOptions) -> Self {
        let mut bench = Self::new(options);
        bench.machine.trip(bench.now, 0.0);
        let open_for = bench.machine.open_for(bench.now).expect("open");
        bench.wait(open_for);
        bench
    }

    fn state(&self) -> State {
        self.machine.state()
    }
}

fn by_rate() -> BreakerOptions {
    BreakerOptions::new().with_consecutive_failures(None)
}

#[test]
fn nothing_trips_before_the_minimum_even_if_all_fail() {
    let mut bench = Bench::new(by_rate().with_minimum_calls(10));
    bench.run(Outcome::Failure, 9);
    assert_eq!(bench.state(), State::Closed);
    bench.run(Outcome::Failure, 1);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_minimum_that_the_window_cannot_hold_is_lowered() {
    let window = SlidingWindow::Calls(4);
    let mut bench = Bench::new(
        by_rate()
            .with_minimum_calls(100)
            .with_sliding_window(window),
    );
    bench.run(Outcome::Failure, 4);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_rate_equal_to_the_threshold_trips() {
    let options = by_rate().with_failure_rate(0.07).with_minimum_calls(100);
    let mut bench = Bench::new(options.clone());
    bench.run(Outcome::Success, 94);
    bench.run(Outcome::Failure, 6);
    assert_eq!(bench.state(), State::Closed);
    let mut bench = Bench::new(options);
    bench.run(Outcome::Success, 93);
    bench.run(Outcome::Failure, 7);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_call_as_long_as_the_threshold_is_not_slow() {
    let options = by_rate().with_slow_call(SECOND).with_minimum_calls(1);
    let mut bench = Bench::new(options);
    bench.run_slowly(SECOND);
    assert_eq!(bench.state(), State::Closed);
    bench.machine.reset(bench.now);
    bench.run_slowly(SECOND + Duration::from_nanos(1));
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn slow_calls_trip_by_their_own_rate() {
    let options = by_rate()
        .with_slow_call(SECOND)
        .with_slow_call_rate(0.5)
        .with_minimum_calls(4);
    let mut bench = Bench::new(options);
    bench.run(Outcome::Success, 2);
    bench.run_slowly(SECOND * 2);
    assert_eq!(bench.state(), State::Closed);
    bench.run_slowly(SECOND * 2);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn only_failures_in_a_row_are_in_a_row() {
    let mut bench = Bench::new(BreakerOptions::new().with_failure_rate(None));
    for _ in 0..100 {
        bench.run(Outcome::Failure, 4);
        bench.run(Outcome::Success, 1);
    }
    bench.run(Outcome::Failure, 2);
    bench.run(Outcome::Ignored, 10);
    bench.run(Outcome::Failure, 2);
    assert_eq!(bench.state(), State::Closed);
    bench.run(Outcome::Failure, 1);
    assert_eq!(bench.state(), State::Open);
}

/// A published breaker needed 10,000 failures here.
#[test]
fn a_long_healthy_past_does_not_outvote_an_outage() {
    for window in [SlidingWindow::Calls(100), SlidingWindow::Time(SECOND)] {
        let mut bench = Bench::new(by_rate().with_sliding_window(window));
        bench.run(Outcome::Success, 10_000);
        bench.wait(SECOND * 2);
        let failures = (1..)
            .find(|_| {
                bench.run(Outcome::Failure, 1);
                bench.state() == State::Open
            })
            .expect("it opens");
        assert!(failures <= 50, "{window:?}: {failures}");
    }
}

#[test]
fn ignored_calls_are_neither_failures_nor_successes() {
    let mut bench = Bench::new(by_rate());
    bench.run(Outcome::Ignored, 1_000);
    assert_eq!(bench.machine.tally_at(bench.now), Tally::default());
}

#[test]
fn an_ignored_call_gives_its_place_back() {
    let mut bench = Bench::opened(BreakerOptions::new().with_half_open_calls(1));
    for _ in 0..10_000 {
        let probe = bench.enter().expect("the place is free");
        assert!(bench.enter().is_none());
        bench.settle(probe, Outcome::Ignored);
        assert_eq!(bench.state(), State::HalfOpen);
    }
    bench.run(Outcome::Success, 1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn half_open_admits_so_many_and_waits_for_all_of_them() {
    let mut bench = Bench::opened(BreakerOptions::new().with_half_open_calls(3));
    let probes: Vec<_> = (0..3).map(|_| bench.enter().expect("a place")).collect();
    assert!(bench.enter().is_none());
    bench.settle(probes[0], Outcome::Success);
    bench.settle(probes[1], Outcome::Success);
    // A place is for one answer, not for one call after the other.
    assert!(bench.enter().is_none());
    assert_eq!(bench.state(), State::HalfOpen);
    bench.settle(probes[2], Outcome::Success);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.machine.tally_at(bench.now), Tally::default());
}

#[test]
fn the_first_failed_probe_opens_it_again() {
    let mut bench = Bench::opened(BreakerOptions::new().with_half_open_calls(3));
    let first = bench.enter().expect("a place");
    let second = bench.enter().expect("a place");
    bench.settle(first, Outcome::Failure);
    assert_eq!(bench.state(), State::Open);
    bench.settle(second, Outcome::Success);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn slow_probes_open_it_again() {
    let options = BreakerOptions::new()
        .with_slow_call(SECOND)
        .with_half_open_calls(2);
    let mut bench = Bench::opened(options);
    bench.run_slowly(SECOND * 2);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.run_slowly(SECOND * 2);
    assert_eq!(bench.state(), State::Open);
}

/// A published breaker closed here, with the real probe still out.
#[test]
fn an_answer_from_before_the_trip_is_not_the_probes() {
    let mut bench = Bench::new(BreakerOptions::new().with_half_open_calls(1));
    let stale: Vec<_> = (0..6).map(|_| bench.enter().expect("closed")).collect();
    bench.run(Outcome::Failure, 5);
    let open_for = bench.machine.open_for(bench.now).expect("open");
    bench.settle(stale[0], Outcome::Success);
    bench.settle(stale[1], Outcome::Failure);
    assert_eq!(bench.machine.open_for(bench.now), Some(open_for));

    bench.wait(open_for);
    let probe = bench.enter().expect("its time has passed");
    bench.settle(stale[2], Outcome::Success);
    bench.settle(stale[3], Outcome::Failure);
    bench.settle(stale[4], Outcome::Ignored);
    assert_eq!(bench.state(), State::HalfOpen);
    assert!(
        bench.enter().is_none(),
        "a stale answer freed the probe's place"
    );
    bench.settle(probe, Outcome::Success);
    assert_eq!(bench.state(), State::Closed);
    bench.settle(stale[5], Outcome::Failure);
    assert_eq!(bench.machine.tally_at(bench.now).calls, 0);
}

#[test]
fn probes_that_hang_open_it_again_and_do_not_count_later() {
    let options = BreakerOptions::new()
        .with_half_open_calls(1)
        .with_half_open_max_wait(SECOND);
    let mut bench = Bench::opened(options);
    let hung = bench.enter().expect("a place");
    bench.wait(SECOND / 4);
    assert_eq!(bench.refused_for(), Some(SECOND * 3 / 4));
    bench.wait(SECOND * 3 / 4);
    assert_eq!(
        bench.refused_for(),
        Some(SECOND),
        "twice the first open time"
    );
    assert_eq!(bench.state(), State::Open);
    bench.wait(SECOND);
    let probe = bench.enter().expect("a new place");
    bench.settle(hung, Outcome::Success);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.settle(probe, Outcome::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_quiet_half_open_breaker_does_not_hold_it_against_redis() {
    let mut bench = Bench::opened(BreakerOptions::new().with_half_open_calls(2));
    bench.run(Outcome::Success, 1);
    bench.wait(SECOND * 3_600);
    bench.run(Outcome::Success, 1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn the_open_time_grows_to_its_cap_and_begins_again_after_health() {
    let options = BreakerOptions::new()
        .with_open_time(SECOND)
        .with_open_time_factor(2.0)
        .with_open_time_cap(SECOND * 5)
        .with_healthy_after(SECOND * 30)
        .with_half_open_calls(1);
    let mut bench = Bench::new(options);
    bench.run(Outcome::Failure, 5);
    for expected in [1, 2, 4, 5, 5] {
        assert_eq!(bench.refused_for(), Some(SECOND * expected));
        bench.wait(SECOND * expected);
        bench.run(Outcome::Failure, 1);
    }
    bench.wait(SECOND * 5);
    bench.run(Outcome::Success, 1);
    bench.wait(SECOND * 29);
    bench.run(Outcome::Failure, 5);
    assert_eq!(
        bench.refused_for(),
        Some(SECOND * 5),
        "not healthy for long enough"
    );
    bench.wait(SECOND * 5);
    bench.run(Outcome::Success, 1);
    bench.wait(SECOND * 30);
    bench.run(Outcome::Failure, 5);
    assert_eq!(bench.refused_for(), Some(SECOND));
}

#[test]
fn jitter_only_ever_shortens() {
    let options = BreakerOptions::new()
        .with_open_time(SECOND)
        .with_open_time_jitter(0.25);
    let times = [0.0, 0.5, 1.0].map(|sample| open_time(&options, 0, sample).as_millis());
    assert_eq!(times, [1_000, 875, 750]);
    assert_eq!(open_time(&options, u32::MAX, 0.0), Duration::from_secs(15));
}

#[test]
fn an_open_breaker_waits_for_a_call_to_become_half_open() {
    let mut bench = Bench::opened(BreakerOptions::new());
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.machine.refusal(bench.now, 0.0), None);
    assert_eq!(bench.state(), State::Open, "asking is not calling");
    assert!(bench.enter().is_some());
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn forced_open_refuses_whatever_the_calls_say() {
    let mut bench = Bench::new(BreakerOptions::new());
    let before = bench.enter().expect("closed");
    bench.machine.force_open(bench.now);
    bench.wait(SECOND * 3_600);
    bench.settle(before, Outcome::Success);
    assert_eq!(bench.refused_for(), None);
    bench.machine.trip(bench.now, 0.0);
    assert_eq!(bench.state(), State::ForcedOpen);
    bench.machine.enable(bench.now);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn forced_closed_watches_and_disabled_does_not() {
    let mut bench = Bench::new(BreakerOptions::new());
    bench.machine.force_closed(bench.now);
    bench.run(Outcome::Failure, 100);
    assert_eq!(bench.state(), State::ForcedClosed);
    assert_eq!(bench.machine.tally_at(bench.now).failures, 100);

    bench.machine.disable(bench.now);
    assert!(matches!(
        bench.machine.admit(bench.now, 0.0),
        Admission::Uncounted
    ));
    bench.machine.trip(bench.now, 0.0);
    assert_eq!(bench.state(), State::Disabled);
}

#[test]
fn what_was_seen_while_forced_closed_counts_once_enabled() {
    let mut bench = Bench::new(BreakerOptions::new());
    bench.machine.force_closed(bench.now);
    bench.run(Outcome::Failure, 100);
    bench.machine.enable(bench.now);
    assert_eq!(bench.state(), State::Closed);
    bench.run(Outcome::Failure, 1);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_reset_forgets_failures_and_growth() {
    let mut bench = Bench::opened(BreakerOptions::new().with_open_time(SECOND));
    bench.run(Outcome::Failure, 1);
    bench.machine.reset(bench.now);
    assert_eq!(bench.state(), State::Closed);
    bench.run(Outcome::Failure, 4);
    bench.machine.reset(bench.now);
    bench.run(Outcome::Failure, 4);
    assert_eq!(bench.state(), State::Closed);
    bench.run(Outcome::Failure, 1);
    assert_eq!(bench.refused_for(), Some(SECOND));
}

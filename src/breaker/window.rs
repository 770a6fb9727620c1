//! What the breaker remembers of its calls: the last so many, or those of the last so long.
//!
//! Both keep running totals, so that recording an outcome costs the same whatever the size. No
//! clock: the time is told.

use std::time::Duration;

use tokio::time::Instant;

use super::options::SlidingWindow;

/// How many calls were counted, and how many of them failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Calls that counted for or against.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that took longer than the slow-call threshold, failed or not.
    pub slow: u32,
}

impl Tally {
    pub(super) fn of(mark: Mark) -> Self {
        Self {
            calls: 1,
            failures: mark.failed.into(),
            slow: mark.slow.into(),
        }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// One outcome, as the window keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// The outcomes of one closed period, older ones forgotten.
#[derive(Debug)]
pub(super) enum Window {
    Calls(Ring),
    Time(Buckets),
}

impl Window {
    pub(super) fn new(size: SlidingWindow, now: Instant) -> Self {
        match size {
            SlidingWindow::Calls(size) => Self::Calls(Ring::new(size)),
            SlidingWindow::Time(span) => Self::Time(Buckets::new(span, now)),
        }
    }

    pub(super) fn record(&mut self, mark: Mark, now: Instant) {
        match self {
            Self::Calls(ring) => ring.record(mark),
            Self::Time(buckets) => buckets.record(mark, now),
        }
    }

    /// Records a success if there is nothing else in the window, and no time to look at.
    pub(super) fn record_healthy(&mut self) -> bool {
        match self {
            Self::Calls(ring) if ring.total.failures == 0 && ring.total.slow == 0 => {
                ring.record(Mark::default());
                true
            }
            Self::Calls(_) | Self::Time(_) => false,
        }
    }

    /// The totals as of the last outcome.
    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Calls(ring) => ring.total,
            Self::Time(buckets) => buckets.total,
        }
    }

    /// The totals as of `now`.
    pub(super) fn tally_at(&mut self, now: Instant) -> Tally {
        if let Self::Time(buckets) = self {
            buckets.slide_to(now);
        }
        self.tally()
    }

    pub(super) fn clear(&mut self, now: Instant) {
        match self {
            Self::Calls(ring) => ring.clear(),
            Self::Time(buckets) => *buckets = Buckets::new(buckets.width * BUCKETS, now),
        }
    }
}

/// The last `size` outcomes: each new one takes the place of the oldest.
#[derive(Debug)]
pub(super) struct Ring {
    marks: Vec<Mark>,
    size: usize,
    oldest: usize,
    total: Tally,
}

impl Ring {
    fn new(size: u32) -> Self {
        let size = size.max(1) as usize;
        Self {
            marks: Vec::with_capacity(size),
            size,
            oldest: 0,
            total: Tally::default(),
        }
    }

    fn record(&mut self, mark: Mark) {
        if self.marks.len() < self.size {
            self.marks.push(mark);
        } else {
            let forgotten = std::mem::replace(&mut self.marks[self.oldest], mark);
            self.total.subtract(Tally::of(forgotten));
            self.oldest += 1;
            if self.oldest == self.size {
                self.oldest = 0;
            }
        }
        self.total.add(Tally::of(mark));
    }

    fn clear(&mut self) {
        self.marks.clear();
        self.oldest = 0;
        self.total = Tally::default();
    }
}

/// The outcomes of the last span, forgotten a tenth of it at a time.
#[derive(Debug)]
pub(super) struct Buckets {
    tallies: [Tally; BUCKETS as usize],
    width: Duration,
    current: usize,
    /// When the current bucket began.
    began: Instant,
    total: Tally,
}

pub(super) const BUCKETS: u32 = 10;

impl Buckets {
    fn new(span: Duration, now: Instant) -> Self {
        Self {
            tallies: Default::default(),
            width: (span / BUCKETS).max(Duration::from_nanos(1)),
            current: 0,
            began: now,
            total: Tally::default(),
        }
    }

    fn record(&mut self, mark: Mark, now: Instant) {
        self.slide_to(now);
        self.tallies[self.current].add(Tally::of(mark));
        self.total.add(Tally::of(mark));
    }

    /// Turns to the bucket of `now`; at most once around, however long ago the last outcome was.
    fn slide_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < self.width {
            return;
        }
        let turns = passed.as_nanos() / self.width.as_nanos();
        for _ in 0..turns.min(u128::from(BUCKETS)) {
            self.current = (self.current + 1) % self.tallies.len();
            let forgotten = std::mem::take(&mut self.tallies[self.current]);
            self.total.subtract(forgotten);
        }
        self.began = now - remainder(passed, self.width);
    }
}

fn remainder(time: Duration, width: Duration) -> Duration {
    let nanos = time.as_nanos() % width.as_nanos();
    // A width is at most a day.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Mark { failed, slow })
    }

    fn tally(marks: impl Iterator<Item = Mark>) -> Tally {
        marks.fold(Tally::default(), |mut all, mark| {
            all.add(Tally::of(mark));
            all
        })
    }

    proptest! {
        #[test]
        fn a_count_window_holds_exactly_the_last_calls(
            size in 1_u32..20,
            marks in prop::collection::vec(marks(), 0..100),
        ) {
            let now = Instant::now();
            let mut window = Window::new(SlidingWindow::Calls(size), now);
            let mut all = VecDeque::new();
            for mark in marks {
                window.record(mark, now);
                all.push_front(mark);
                let expected = tally(all.iter().copied().take(size as usize));
                prop_assert_eq!(window.tally(), expected);
            }
        }

        /// Everything younger than nine tenths of the span counts; nothing older than it does.
        #[test]
        fn a_time_window_forgets_within_a_tenth_of_its_span(
            steps in prop::collection::vec((0_u64..400, marks()), 0..200),
        ) {
            let span = Duration::from_millis(1000);
            let mut now = Instant::now();
            let mut window = Window::new(SlidingWindow::Time(span), now);
            let mut all = VecDeque::new();
            for (millis, mark) in steps {
                now += Duration::from_millis(millis);
                window.record(mark, now);
                all.push_front((now, mark));
                let within = |age: Duration| {
                    tally(all.iter().filter(|(at, _)| now - *at < age).map(|(_, mark)| *mark))
                };
                let (least, most) = (within(span * 9 / 10), within(span));
                let held = window.tally_at(now);
                prop_assert!(least.calls <= held.calls && held.calls <= most.calls);
                prop_assert!(least.failures <= held.failures && held.failures <= most.failures);
                prop_assert!(least.slow <= held.slow && held.slow <= most.slow);
            }
        }
    }

    #[test]
    fn a_time_window_is_empty_once_its_span_has_passed() {
        let now = Instant::now();
        let mut window = Window::new(SlidingWindow::Time(Duration::from_secs(10)), now);
        let failure = Mark {
            failed: true,
            slow: false,
        };
        window.record(failure, now);
        assert_eq!(window.tally_at(now + Duration::from_millis(8_999)).calls, 1);
        assert_eq!(window.tally_at(now + Duration::from_secs(10)).calls, 0);
    }
}

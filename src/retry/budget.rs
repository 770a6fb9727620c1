//! How many retries all calls together may make.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::error::InvalidSetting;

/// A bucket of tokens, one per retry, that all clones share.
///
/// Each call puts a fraction of a token in, and so does time; each retry takes one out, or is not
/// made. Over any stretch of time the retries are therefore at most
///
/// > `ratio` x calls + `per_second` x seconds + `burst`
///
/// however many calls fail and whatever [`max_retries`](super::RetryPolicy::with_max_retries) says:
/// limits per call multiply the load just when it hurts, three retries make four times the calls.
///
/// That is how calls have it, which are told no. The retries of a [worker's](crate::worker) jobs are put off instead,
/// until there is a token.
///
/// Without locks. While the bucket is full, which it is while all is well, a call only looks at it.
///
/// # Default
///
/// - `ratio`: 0.2, one retry for five calls.
/// - `per_second`: 10, so that a quiet client may retry too.
/// - `burst`: 500, also what it starts with, so that the calls in flight on a connection that breaks
///   can all be tried again.
#[derive(Clone)]
#[must_use]
pub struct RetryBudget(Option<Arc<Bucket>>);

impl RetryBudget {
    /// A budget of its own: `ratio` tokens a call and `per_second` tokens a second, up to a `burst`
    /// of 500.
    ///
    /// # Errors
    ///
    /// If `ratio` is not a number from 0 to 10.
    pub fn new(ratio: f64, per_second: u32) -> Result<Self, InvalidSetting> {
        if (0.0..=10.0).contains(&ratio) {
            let per_call = (ratio * TOKEN as f64).round() as u64;
            Ok(Self::of(Bucket::full(per_call, per_second, BURST)))
        } else {
            Err(InvalidSetting::new(
                "retry budget ratio",
                "must be a number from 0 to 10",
            ))
        }
    }

    /// No bound on the retries of all calls together.
    ///
    /// For work that is bounded in another way, such as a single background task.
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// One call in ten, 1 a second, and a burst of 50.
    pub(super) fn small() -> Self {
        Self::of(Bucket::full(TOKEN / 10, 1, 50))
    }

    fn of(bucket: Bucket) -> Self {
        Self(Some(Arc::new(bucket)))
    }

    /// Sets how many tokens the bucket holds, and starts with; 0 allows no retry at all.
    ///
    /// This is another bucket: clones made before keep theirs.
    pub fn with_burst(self, burst: u32) -> Self {
        match self.0 {
            Some(bucket) => Self::of(Bucket::full(bucket.per_call, bucket.per_second, burst)),
            None => self,
        }
    }

    /// How many retries it would have allowed when it was last used; infinite if unlimited.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        match &self.0 {
            Some(bucket) => bucket.tokens.load(Relaxed) as f64 / TOKEN as f64,
            None => f64::INFINITY,
        }
    }

    /// Counts a new call; whether that changed the number of tokens.
    pub(crate) fn deposit(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|bucket| bucket.deposit(now))
    }

    /// Takes a token for a retry, if there is one.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|bucket| bucket.withdraw(now))
    }

    /// Takes a token for a retry that can wait: how long until it is there, up to `horizon`.
    ///
    /// The tokens that time will bring are given out beforehand, each once. Of those that calls will bring nothing is
    /// known; they are there for the next that ask, who may so get one earlier. Nothing is taken for a retry that
    /// would have to wait for longer than `horizon`.
    pub(crate) fn reserve(&self, now: Instant, horizon: Duration) -> Duration {
        match &self.0 {
            Some(bucket) => bucket.reserve(now, horizon),
            None => Duration::ZERO,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::of(Bucket::full(TOKEN / 5, 10, BURST))
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RetryBudget");
        if let Some(bucket) = &self.0 {
            shown
                .field("ratio", &(bucket.per_call as f64 / TOKEN as f64))
                .field("per_second", &bucket.per_second)
                .field("burst", &(bucket.capacity / TOKEN));
        }
        shown.field("tokens", &self.tokens()).finish()
    }
}

const BURST: u32 = 500;

/// Tokens are counted in billionths: at n tokens a second, each nanosecond brings exactly n of them.
const TOKEN: u64 = 1_000_000_000;

struct Bucket {
    per_call: u64,
    per_second: u32,
    capacity: u64,
    tokens: AtomicU64,
    /// When the first token was taken. Until then the bucket is full and time adds nothing.
    started: OnceLock<Instant>,
    /// Up to when time has been paid for, in nanoseconds from `started`.
    refilled: AtomicU64,
}

impl Bucket {
    fn full(per_call: u64, per_second: u32, burst: u32) -> Self {
        let capacity = u64::from(burst) * TOKEN;
        Self {
            per_call,
            per_second,
            capacity,
            tokens: AtomicU64::new(capacity),
            started: OnceLock::new(),
            refilled: AtomicU64::new(0),
        }
    }

    fn deposit(&self, now: Instant) -> bool {
        if self.tokens.load(Relaxed) >= self.capacity {
            return false;
        }
        self.refill(now);
        self.add(self.per_call);
        true
    }

    fn withdraw(&self, now: Instant) -> bool {
        self.refill(now);
        self.tokens
            .fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(TOKEN))
            .is_ok()
    }

    fn reserve(&self, now: Instant, horizon: Duration) -> Duration {
        loop {
            if self.withdraw(now) {
                return Duration::ZERO;
            }
            if self.per_second == 0 {
                return horizon;
            }
            let now = self.nanos(now);
            let paid = self.refilled.load(Relaxed);
            // Up to when the time of this token has to be paid for.
            let turn = paid.saturating_add(TOKEN.div_ceil(self.per_second.into()));
            let wait = Duration::from_nanos(turn.saturating_sub(now));
            if wait > horizon {
                return horizon;
            }
            let reserved = self.refilled.compare_exchange(paid, turn, Relaxed, Relaxed);
            if reserved.is_ok() {
                return wait;
            }
        }
    }

    /// Pays for the time since the last refill, but for what is reserved of it; of several that come at once, one does.
    fn refill(&self, now: Instant) {
        let until = self.nanos(now);
        let from = self.refilled.load(Relaxed);
        let due = until > from
            && self
                .refilled
                .compare_exchange(from, until, Relaxed, Relaxed)
                .is_ok();
        if due {
            self.add((until - from).saturating_mul(self.per_second.into()));
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        let started = *self.started.get_or_init(|| now);
        let since = now.saturating_duration_since(started).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn add(&self, tokens: u64) {
        let add = |now: u64| Some(now.saturating_add(tokens).min(self.capacity));
        // Always `Some`, so this always stores.
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_calls_pay_for_one_retry() {
        let (budget, now) = (
            RetryBudget::new(0.2, 0).unwrap().with_burst(1),
            Instant::now(),
        );
        assert!(budget.withdraw(now));
        for _ in 0..4 {
            budget.deposit(now);
            assert!(!budget.withdraw(now));
        }
        budget.deposit(now);
        assert!(budget.withdraw(now));
    }

    #[test]
    fn time_pays_for_ten_retries_a_second() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        let burst = (0..1_000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(burst, 500);
        assert!(!budget.withdraw(now + Duration::from_nanos(99_999_999)));
        assert!(budget.withdraw(now + Duration::from_millis(100)));
        let later = now + Duration::from_millis(1_100);
        assert_eq!((0..1_000).filter(|_| budget.withdraw(later)).count(), 10);
    }

    #[test]
    fn clones_share_one_bucket() {
        let (budget, now) = (RetryBudget::default().with_burst(1), Instant::now());
        let clone = budget.clone();
        assert!(budget.withdraw(now));
        assert!(!clone.withdraw(now));
    }

    #[test]
    fn threads_never_get_more_than_there_is() {
        let (budget, now) = (RetryBudget::default().with_burst(1_000), Instant::now());
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| budget.withdraw(now)).count();
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn a_reserved_token_is_not_given_out_again() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let (budget, now) = (RetryBudget::default().with_burst(2), Instant::now());
        let waits = || budget.reserve(now, HOUR).as_millis();
        assert_eq!([waits(), waits(), waits(), waits()], [0, 0, 100, 200]);
        // Half of the reserved time has passed, and brings nothing more.
        let later = now + Duration::from_millis(100);
        assert!(!budget.withdraw(later));
        assert_eq!(budget.reserve(later, HOUR).as_millis(), 200);
        // What calls bring is there at once.
        assert!((0..5).all(|_| budget.deposit(later)));
        assert!(budget.withdraw(later) && !budget.withdraw(later));
        let idle = now + Duration::from_millis(400);
        assert!(budget.withdraw(idle) && !budget.withdraw(idle));
    }

    #[test]
    fn nothing_is_reserved_beyond_the_horizon() {
        let (budget, now) = (RetryBudget::default().with_burst(0), Instant::now());
        let second = Duration::from_secs(1);
        let waits: Vec<_> = (0..1_000).map(|_| budget.reserve(now, second)).collect();
        assert!(waits[9..].iter().all(|wait| *wait == second));
        let later = now + second;
        assert_eq!(budget.reserve(later, second).as_millis(), 100);
        let timeless = RetryBudget::new(0.2, 0).unwrap().with_burst(0);
        assert_eq!(timeless.reserve(now, second), second);
        assert!(RetryBudget::unlimited().reserve(now, second).is_zero());
    }

    #[test]
    fn threads_never_reserve_the_same_token() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let (budget, now) = (RetryBudget::default().with_burst(100), Instant::now());
        let mut waits = std::thread::scope(|scope| {
            let reserve = || (0..500).map(|_| budget.reserve(now, HOUR)).collect();
            let threads = [(); 4].map(|()| scope.spawn(reserve));
            let waits = threads.map(|thread| -> Vec<_> { thread.join().unwrap() });
            waits.concat()
        });
        waits.sort();
        let expected = (0..2_000u64).map(|n| Duration::from_millis(n.saturating_sub(99) * 100));
        assert!(waits.into_iter().eq(expected));
    }

    #[test]
    fn an_unlimited_budget_always_has_one_more() {
        let budget = RetryBudget::unlimited().with_burst(0);
        assert!((0..10_000).all(|_| budget.withdraw(Instant::now())));
        assert!(budget.tokens().is_infinite());
    }

    #[test]
    fn a_ratio_that_is_no_number_is_refused() {
        for ratio in [-0.1, 10.1, f64::NAN, f64::INFINITY] {
            assert!(RetryBudget::new(ratio, 1).is_err());
        }
        let largest = RetryBudget::new(10.0, u32::MAX)
            .unwrap()
            .with_burst(u32::MAX);
        let now = Instant::now();
        assert!(
            largest.withdraw(now) && largest.deposit(now + Duration::from_secs(u32::MAX.into()))
        );
        assert_eq!(largest.tokens(), f64::from(u32::MAX));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Call,
        Retry,
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Call),
            Just(Step::Retry),
            (0..2_000_000_000u32).prop_map(Step::Wait)
        ]
    }

    proptest! {
        #[test]
        fn the_bucket_keeps_its_bound(
            percent in 0..=1_000u32,
            per_second in 0..50u32,
            burst in 0..20u32,
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let ratio = f64::from(percent) / 100.0;
            let budget = RetryBudget::new(ratio, per_second).unwrap().with_burst(burst);
            let mut now = Instant::now();
            let first = now;
            let (mut calls, mut retries) = (0, 0);
            // The model: whole numbers, in billionths of a token, refilled at every step.
            let capacity = u128::from(burst) * 1_000_000_000;
            let mut model = capacity;
            for step in steps {
                match step {
                    Step::Call => {
                        budget.deposit(now);
                        calls += 1;
                        model = capacity.min(model + u128::from(percent) * 10_000_000);
                    }
                    Step::Retry => {
                        let allowed = model >= 1_000_000_000;
                        prop_assert_eq!(budget.withdraw(now), allowed);
                        if allowed {
                            retries += 1;
                            model -= 1_000_000_000;
                        }
                    }
                    Step::Wait(nanos) => {
                        now += Duration::from_nanos(nanos.into());
                        model = capacity.min(model + u128::from(nanos) * u128::from(per_second));
                    }
                }
                prop_assert!(budget.tokens() <= f64::from(burst));
                let seconds = (now - first).as_secs_f64();
                let bound = ratio * f64::from(calls)
                    + f64::from(per_second) * seconds
                    + f64::from(burst);
                prop_assert!(f64::from(retries) <= bound + 1e-6);
            }
        }
    }
}

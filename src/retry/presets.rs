//! Ready-made policies, each with its table.

use std::time::Duration;

use super::{backoff::Backoff, budget::RetryBudget, policy::RetryPolicy};

/// # Presets
///
/// Each delay is moved by up to 25 % less or more. Unless it says otherwise, a preset has a default
/// [`RetryBudget`] of its own.
///
/// | | retries | delays | deadline | for |
/// |---|---|---|---|---|
/// | [`default`](Self::default) | 3 | 25, 50, 100 ms | 2 s | a call that a live request waits for |
/// | [`aggressive`](Self::aggressive) | 8 | 5, 10, 20, 40, 80, 100, 100, 100 ms | 2 s | a Redis next door, and errors that cost more than load |
/// | [`conservative`](Self::conservative) | 2 | 100, 200 ms | 1 s | a Redis that is short of room; half the budget |
/// | [`patient`](Self::patient) | 10 | 1, 2, 4, 8, 16, 32, 60, 60, 60, 60 s | 10 min | background work |
/// | [`stepped`](Self::stepped) | 3 | 10, 30, 60 s | 3 min | background work that must not be early |
/// | [`never`](Self::never) | 0 | | | a caller that tries again by itself |
impl RetryPolicy {
    /// Many quick retries: 5, 10, 20, 40, 80, 100, 100, 100 ms, within 2 s.
    ///
    /// The budget is the default one: hurry must not buy a second outage.
    pub fn aggressive() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(5), Duration::from_millis(100));
        Self::new(backoff)
            .with_max_retries(8)
            .with_deadline(Duration::from_secs(2))
    }

    /// Few slow retries: 100 and 200 ms, within 1 s, and for one call in ten only, besides 1 a second
    /// and a burst of 50.
    pub fn conservative() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1));
        Self::new(backoff)
            .with_max_retries(2)
            .with_deadline(Duration::from_secs(1))
            .with_budget(RetryBudget::small())
    }

    /// Retries that thin out: 1, 2, 4, 8, 16, 32 s, then each minute, 10 in all, within 10 minutes.
    ///
    /// Without a spool above, add [`retry_if`](Self::retry_if)`(Error::is_outage)` to wait outages
    /// out too.
    pub fn patient() -> Self {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60));
        Self::new(backoff)
            .with_max_retries(10)
            .with_deadline(Duration::from_secs(600))
    }

    /// Three retries in steps: 10, 30, 60 s, within 3 minutes.
    pub fn stepped() -> Self {
        Self::new(Backoff::delays([10, 30, 60].map(Duration::from_secs)))
            .with_deadline(Duration::from_secs(180))
    }

    /// No retry: the error only gets its count of attempts and its time.
    pub fn never() -> Self {
        Self::new(Backoff::delays([]))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(25), Duration::from_millis(500));
        Self::new(backoff)
            .with_max_retries(3)
            .with_deadline(Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::time::Instant;
    use tower::{Service, ServiceBuilder, service_fn};

    use super::*;
    use crate::{
        Error, RedisCall, Reply,
        classify::{Class, Landed, Verdict},
        retry::{Jitter, RetryLayer},
    };

    /// The milliseconds from each attempt of one call to the next.
    async fn waits(policy: RetryPolicy) -> Vec<u128> {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&attempts);
        let mut line = ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .service(service_fn(move |_: RedisCall| {
                seen.lock().push(Instant::now());
                async {
                    let verdict = Verdict::new(Class::Transient, Landed::No);
                    Err::<Reply, _>(Error::foreign(verdict, "not now"))
                }
            }));
        let error = line.call(RedisCall::new("test", redis::Cmd::new())).await;
        let attempts = attempts.lock();
        assert_eq!(error.unwrap_err().attempts() as usize, attempts.len());
        let waits = attempts.windows(2).map(|pair| pair[1] - pair[0]);
        waits.map(|wait| wait.as_millis()).collect()
    }

    async fn check(policy: RetryPolicy, milliseconds: &[u128]) {
        let exact = waits(policy.clone().with_jitter(Jitter::none())).await;
        assert_eq!(exact, milliseconds, "without jitter");

        let draw = |sample| {
            let mut previous = Duration::ZERO;
            let delays = (1..=milliseconds.len()).map(|retry| {
                previous = policy.backoff().delay(retry as u32, previous, sample);
                previous.as_micros()
            });
            delays.collect::<Vec<_>>()
        };
        let scaled = |percent| milliseconds.iter().map(|ms| ms * 10 * percent).collect();
        let (shortest, longest): (Vec<_>, Vec<_>) = (scaled(75), scaled(125));
        assert_eq!(draw(0.0), shortest, "the shortest draws");
        assert_eq!(draw(1.0), longest, "the longest draws");

        let jittered = waits(policy).await;
        assert_eq!(
            jittered.len(),
            milliseconds.len(),
            "no draw passes the deadline"
        );
        for (wait, exact) in jittered.iter().zip(milliseconds) {
            // Timers round up to the millisecond.
            assert!(
                (exact * 3 / 4..=exact * 5 / 4 + 1).contains(wait),
                "{jittered:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_preset_keeps_to_its_table() {
        check(RetryPolicy::default(), &[25, 50, 100]).await;
        check(
            RetryPolicy::aggressive(),
            &[5, 10, 20, 40, 80, 100, 100, 100],
        )
        .await;
        check(RetryPolicy::conservative(), &[100, 200]).await;
        check(
            RetryPolicy::patient(),
            &[1, 2, 4, 8, 16, 32, 60, 60, 60, 60].map(|s| s * 1_000),
        )
        .await;
        check(RetryPolicy::stepped(), &[10_000, 30_000, 60_000]).await;
        check(RetryPolicy::never(), &[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_default_allows_more_retries_up_to_half_a_second_apart() {
        let policy = RetryPolicy::default()
            .with_jitter(Jitter::none())
            .with_max_retries(7)
            .without_deadline();
        assert_eq!(waits(policy).await, [25, 50, 100, 200, 400, 500, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_differs_from_call_to_call() {
        let mut first = Vec::new();
        for _ in 0..20 {
            first.push(waits(RetryPolicy::patient().with_max_retries(1)).await);
        }
        first.dedup();
        assert!(first.len() > 1);
    }
}

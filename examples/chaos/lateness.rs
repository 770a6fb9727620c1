//! Whether something took longer than it may, on a machine that may itself be late.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How late this process is served: a task that wants to run every few milliseconds, and notes by how
/// much it was missed.
#[derive(Debug, Default)]
pub(crate) struct Lag(Mutex<VecDeque<(Instant, Duration)>>);

impl Lag {
    /// Watches for as long as the process lives.
    pub(crate) fn watch() -> Arc<Self> {
        let lag = Arc::new(Self::default());
        let watched = lag.clone();
        tokio::spawn(async move {
            loop {
                let due = Instant::now() + BEAT;
                sleep_until(due).await;
                watched.note(due, due.elapsed());
            }
        });
        lag
    }

    /// By how much something passed its `bound` that began at `since` and has just ended. `None` if it did
    /// not, or if the machine's own lateness explains it.
    pub(crate) fn over(&self, since: Instant, bound: Duration) -> Option<Duration> {
        let over = since.elapsed().checked_sub(bound)?;
        let lags = self.0.lock();
        let lagging: Duration = lags
            .iter()
            .filter(|(at, _)| *at >= since)
            .map(|(_, by)| *by)
            .sum();
        (over > GRACE + lagging).then_some(over)
    }

    fn note(&self, due: Instant, by: Duration) {
        let mut lags = self.0.lock();
        while lags.front().is_some_and(|(at, _)| *at + REMEMBERED < due) {
            lags.pop_front();
        }
        if by > BEAT / 2 {
            lags.push_back((due, by));
        }
    }
}

const BEAT: Duration = Duration::from_millis(10);
/// Timers are this exact at best, and a task may wait its turn behind others.
const GRACE: Duration = Duration::from_millis(50);
/// Longer than anything that is measured may take.
const REMEMBERED: Duration = Duration::from_secs(30);

//! Tells the breaker and the spool that Redis is back, without waiting for a user's call to find out.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    breaker::{BreakerHandle, State},
    connect::Status,
};

/// A task that lives as long as this value.
pub(super) struct Recovery {
    recoveries: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Recovery {
    /// Watches the connection, with the times it has answered again after silence, and the breaker.
    pub(super) fn watch(
        mut connection: watch::Receiver<Status>,
        mut awakenings: watch::Receiver<u64>,
        breaker: BreakerHandle,
    ) -> Self {
        let recoveries = watch::Sender::new(0);
        let mut closings = breaker.recoveries();
        let sender = recoveries.clone();
        let mut states = breaker.subscribe();
        let mut excused = None;
        let mut trust = Trust::default();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = connection.changed() => match changed {
                        Ok(()) if connection.borrow_and_update().up => breaker.probe_now(),
                        Ok(()) => continue,
                        Err(_) => break,
                    },
                    changed = awakenings.changed() => {
                        if changed.is_err() {
                            break;
                        }
                        let is_open = breaker.state() == State::Open;
                        if !is_open || !trust.is_given(Instant::now()) {
                            continue;
                        }
                        breaker.probe_now();
                    },
                    changed = states.changed() => {
                        let opened = states.borrow_and_update().state == State::Open;
                        let status = *connection.borrow();
                        if changed.is_err() {
                            break;
                        }
                        if !opened || !is_fresh(status, excused, Instant::now()) {
                            continue;
                        }
                        excused = Some(status.generation);
                        breaker.probe_now();
                    },
                    changed = closings.changed() => if changed.is_err() { break },
                }
                announce(&sender);
            }
        });
        Self { recoveries, task }
    }

    /// A count that grows whenever Redis is back.
    pub(super) fn signal(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Has what waits look again now, since there is a way for it.
    pub(super) fn announce(&self) {
        announce(&self.recoveries);
    }
}

fn announce(recoveries: &watch::Sender<u64>) {
    recoveries.send_modify(|recoveries| *recoveries += 1);
}

/// Whether what has opened the breaker were calls of the connection before this one: they end with it, and
/// are counted only after the new one is there. Once for each connection.
fn is_fresh(status: Status, excused: Option<u64>, now: Instant) -> bool {
    status.up
        && excused != Some(status.generation)
        && now.saturating_duration_since(status.since) < FRESH
}

/// How long after a connection was made the calls of the one before it may still be counted.
const FRESH: Duration = Duration::from_secs(1);

/// Whether Redis is worth a call since it has answered a probe again: a few times in a while. One that has too much
/// to do answers probes too, and needs the breaker's growing open time.
#[derive(Debug, Default)]
struct Trust {
    /// When it was given last, in turns.
    given: [Option<Instant>; 3],
    next: usize,
}

impl Trust {
    fn is_given(&mut self, now: Instant) -> bool {
        let last = &mut self.given[self.next];
        if last.is_some_and(|at| now < at + A_WHILE) {
            return false;
        }
        *last = Some(now);
        self.next = (self.next + 1) % self.given.len();
        true
    }
}

/// Three times the longest that the breaker stays open by default.
const A_WHILE: Duration = Duration::from_secs(45);

impl Drop for Recovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{BreakerLayer, BreakerOptions};

    fn status(generation: u64) -> Status {
        Status {
            up: true,
            generation,
            since: Instant::now(),
            trouble: None,
        }
    }

    /// Lets the task have its turn: the clock moves only once everybody waits.
    async fn settled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_the_last_connection_do_not_keep_the_breaker_open_on_the_new_one() {
        let breaker = BreakerLayer::new(BreakerOptions::default()).handle();
        let (connection, watched) = watch::channel(status(1));
        let (_awakenings, awakenings) = watch::channel(0);
        let _recovery = Recovery::watch(watched, awakenings, breaker.clone());
        settled().await;
        connection.send_replace(status(2));
        settled().await;
        breaker.trip();
        settled().await;
        assert_eq!(breaker.retry_after(), Some(Duration::ZERO));

        // Once: then it is this connection that fails.
        breaker.reset();
        breaker.trip();
        settled().await;
        assert!(breaker.retry_after() > Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_worked_for_a_while_is_to_blame_itself() {
        let breaker = BreakerLayer::new(BreakerOptions::default()).handle();
        let (_connection, watched) = watch::channel(status(1));
        let (_awakenings, awakenings) = watch::channel(0);
        let _recovery = Recovery::watch(watched, awakenings, breaker.clone());
        tokio::time::sleep(FRESH).await;
        breaker.trip();
        settled().await;
        assert!(breaker.retry_after() > Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_answers_again_is_called_again() {
        let breaker = BreakerLayer::new(BreakerOptions::default()).handle();
        let (_connection, watched) = watch::channel(status(1));
        let (awakenings, heard) = watch::channel(0);
        let _recovery = Recovery::watch(watched, heard, breaker.clone());
        tokio::time::sleep(FRESH).await;
        breaker.trip();
        settled().await;
        assert!(breaker.retry_after() > Some(Duration::ZERO));
        awakenings.send_modify(|count| *count += 1);
        settled().await;
        assert_eq!(breaker.retry_after(), Some(Duration::ZERO));
    }

    #[test]
    fn a_redis_that_falls_silent_again_and_again_is_trusted_three_times_in_a_while() {
        let start = Instant::now();
        let mut trust = Trust::default();
        let trusted =
            (0..100).filter(|second| trust.is_given(start + Duration::from_secs(2 * second)));
        let expected = [0, 1, 2, 23, 24, 25, 46, 47, 48, 69, 70, 71, 92, 93, 94];
        assert_eq!(trusted.collect::<Vec<_>>(), expected);
    }
}

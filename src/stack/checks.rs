//! Whether a target is healthy: its connection, its breaker, and the user's own question.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use super::{arm::Arm, topology::Check};
use crate::{
    breaker::{Breaker, BreakerHandle, State},
    call::RedisCall,
    connect::Connection,
};

/// What is watched of one target.
pub(super) struct Watched {
    at: usize,
    connection: Connection,
    breaker: BreakerHandle,
    probe: Breaker<Connection>,
    check: Option<Check>,
}

impl Watched {
    pub(super) fn new(at: usize, arm: &Arm, check: Option<Check>) -> Self {
        Self {
            at,
            connection: arm.connection.clone(),
            breaker: arm.breaker.clone(),
            probe: arm.probe.clone(),
            check,
        }
    }

    /// Keeps its place in `healthy` up to date, until it is dropped.
    pub(super) async fn run(self, healthy: watch::Sender<Vec<bool>>) {
        let mut status = self.connection.status();
        let mut breaker = self.breaker.subscribe();
        loop {
            status.mark_unchanged();
            breaker.mark_unchanged();
            let looked = tokio::select! {
                biased;
                is_healthy = self.look() => Ok(is_healthy),
                // A question to one that has just been lost may take its time.
                changed = status.changed() => Err(changed),
            };
            let is_healthy = match looked {
                Ok(is_healthy) => is_healthy,
                Err(Ok(())) => continue,
                Err(Err(_)) => return,
            };
            healthy.send_if_modified(|healthy| {
                let place = healthy.get_mut(self.at);
                place.is_some_and(|place| std::mem::replace(place, is_healthy) != is_healthy)
            });
            let changed = tokio::select! {
                changed = status.changed() => changed,
                changed = breaker.changed() => changed,
                () = again(self.next_look()) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn look(&self) -> bool {
        if !self.connection.is_up() {
            return false;
        }
        if !lets_through(self.breaker.state()) {
            // With no calls nobody would ever find out that it can close.
            let ping = RedisCall::new("target_probe", redis::cmd("PING"));
            // What the breaker makes of the answer is what counts.
            let _ = self.probe.clone().oneshot(ping).await;
        }
        if !lets_through(self.breaker.state()) {
            return false;
        }
        let Some(check) = &self.check else {
            return true;
        };
        let answer = (check.ask)(self.connection.clone());
        timeout(check.timeout, answer).await.unwrap_or(false)
    }

    /// When to look again although nothing has changed.
    fn next_look(&self) -> Option<Duration> {
        if !self.connection.is_up() {
            return None;
        }
        if lets_through(self.breaker.state()) {
            return self.check.as_ref().map(|check| check.interval);
        }
        match self.breaker.state() {
            // Nobody but an operator can end that.
            State::ForcedOpen => None,
            _ => Some(self.breaker.retry_after().unwrap_or_default().max(PROBE)),
        }
    }
}

/// At most so often is a breaker asked whether it lets calls through again.
const PROBE: Duration = Duration::from_millis(50);

/// Whether a breaker in this state lets all calls through.
pub(super) fn lets_through(state: State) -> bool {
    matches!(state, State::Closed | State::ForcedClosed | State::Disabled)
}

async fn again(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => std::future::pending().await,
    }
}

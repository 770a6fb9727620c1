//! The outside view: [`BreakerHandle`].

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    shared::{Outage, Shared, Snapshot},
    state::State,
    window::Tally,
};

/// Shows what a breaker does, and lets an operator override it.
///
/// Cheap to clone. It holds the breaker's state, not its services.
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    shared: Arc<Shared>,
}

impl BreakerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The state it is in.
    ///
    /// There is no timer: an open breaker whose time has passed stays [`State::Open`] until the next
    /// call makes it half-open, and its [`retry_after`](Self::retry_after) is zero.
    pub fn state(&self) -> State {
        self.shared.snapshot().state
    }

    /// In how long a call has a chance, if one would be refused now.
    ///
    /// `None` while calls are let through, and while it is forced open: nobody knows then.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.shared.refusal() {
            Some(refusal) => refusal.retry_after,
            None => (self.state() == State::Open).then_some(Duration::ZERO),
        }
    }

    /// The outage in progress: from the breaker's opening until calls are let through again.
    pub fn outage(&self) -> Option<Outage> {
        self.shared.outage()
    }

    /// What the window holds: the calls of this closed period, or of the one before the opening.
    pub fn tally(&self) -> Tally {
        self.shared.decide(|machine, now, _| machine.tally_at(now))
    }

    /// Every change of state, the present one first.
    ///
    /// A slow watcher sees only the latest, and by [`Snapshot::transitions`] how many it missed.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.shared.subscribe()
    }

    /// How often calls have been let through again after they were refused.
    ///
    /// Its receiver wakes at each time: what has waited for Redis goes then.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.shared.recoveries()
    }

    /// Opens it, as failures would: for someone who knows better than the calls.
    ///
    /// Nothing happens if it is open already, or if an operator has overridden it.
    pub fn trip(&self) {
        self.shared
            .decide(|machine, now, sample| machine.trip(now, sample));
    }

    /// Ends the open time early: the next call may find out whether Redis is back. For someone who has
    /// reason to think so, a health check for example.
    ///
    /// Nothing happens unless it is open.
    pub fn probe_now(&self) {
        self.shared.decide(|machine, now, _| machine.expire(now));
    }

    /// Closes it, from any state, and forgets what it knew: failures, and how long it was open.
    pub fn reset(&self) {
        self.shared.decide(|machine, now, _| machine.reset(now));
    }

    /// Refuses all calls until [`enable`](Self::enable) or [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.shared
            .decide(|machine, now, _| machine.force_open(now));
    }

    /// Lets all calls through until [`enable`](Self::enable) or [`reset`](Self::reset), but keeps
    /// watching: see [`tally`](Self::tally).
    pub fn force_closed(&self) {
        self.shared
            .decide(|machine, now, _| machine.force_closed(now));
    }

    /// Lets all calls through, and counts nothing, until [`enable`](Self::enable) or
    /// [`reset`](Self::reset).
    pub fn disable(&self) {
        self.shared.decide(|machine, now, _| machine.disable(now));
    }

    /// Lets it decide for itself again, from closed. Nothing happens if it does already.
    ///
    /// What it saw while [forced closed](Self::force_closed) counts: if that was bad, the next
    /// call's answer may open it.
    pub fn enable(&self) {
        self.shared.decide(|machine, now, _| machine.enable(now));
    }
}

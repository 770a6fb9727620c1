//! One deployment, seen from outside: [`Target`].

use std::fmt;

use super::{Health, arm::Arm, arms::Arms};
use crate::{breaker::BreakerHandle, connect::Connection, sequence::Write, spool::Spool};

/// One of the deployments of a [`Topology`](super::Topology). Made by
/// [`Seawall::targets`](super::Seawall::targets) and [`Seawall::target`](super::Seawall::target).
#[derive(Clone, Copy)]
pub struct Target<'a> {
    arms: &'a Arms,
    pub(super) arm: &'a Arm,
    at: usize,
}

impl<'a> Target<'a> {
    pub(super) fn all(arms: &'a Arms) -> impl ExactSizeIterator<Item = Self> {
        let all = arms.all().iter().enumerate();
        all.map(move |(at, arm)| Self { arms, arm, at })
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.arm.name
    }

    /// Whether calls and new jobs go to it.
    pub fn is_active(&self) -> bool {
        self.arms.active_at() == self.at
    }

    /// Whether it can be used, as far as is known: see [`Topology`](super::Topology#several).
    pub fn is_healthy(&self) -> bool {
        self.arms.is_healthy(self.at)
    }

    /// How things stand with it, from what is known already.
    pub fn health(&self) -> Health {
        Health::of(self.arm)
    }

    /// Its spool: what waits on disk for it.
    pub fn spool(&self) -> &'a Spool<Write> {
        &self.arm.spool
    }

    /// Its circuit breaker. [Forced open](BreakerHandle::force_open) it makes the target unhealthy, and the next
    /// one is used after the threshold.
    pub fn breaker(&self) -> &'a BreakerHandle {
        &self.arm.breaker
    }

    /// Its connection.
    pub fn connection(&self) -> &'a Connection {
        &self.arm.connection
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name())
            .field("is_active", &self.is_active())
            .field("is_healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}

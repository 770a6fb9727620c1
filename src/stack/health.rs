//! How things stand: [`Health`], of one target or of all.

use std::time::SystemTime;

use super::{arm::Arm, arms::Arms};
use crate::{
    breaker::State,
    spool::{Readiness, SpoolStats},
};

/// How things stand. Made by [`Seawall::health`](super::Seawall::health) and
/// [`Target::health`](super::Target::health).
///
/// Of several targets, `spool` is the sum of all, and the rest is the active one's.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Health {
    /// There is a working connection to Redis.
    pub up: bool,
    /// The circuit breaker's state.
    pub breaker: State,
    /// When the outage in progress began.
    pub outage_since: Option<SystemTime>,
    /// Whether it is safe to enqueue.
    pub readiness: Readiness,
    /// What the spool holds.
    pub spool: SpoolStats,
}

impl Health {
    pub(super) fn of(arm: &Arm) -> Self {
        Self {
            up: arm.connection.is_up(),
            breaker: arm.breaker.state(),
            outage_since: arm.breaker.outage().map(|outage| outage.wall_clock),
            readiness: arm.spool.readiness(),
            spool: arm.spool.stats(),
        }
    }

    pub(super) fn of_all(arms: &Arms) -> Self {
        let active = arms.active_at();
        let mut health = Self::of(arms.active());
        let others = arms
            .all()
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != active);
        for (_, arm) in others {
            add(&mut health.spool, &arm.spool.stats());
        }
        health
    }
}

/// Whether it takes records stays what it was.
fn add(sum: &mut SpoolStats, more: &SpoolStats) {
    sum.records += more.records;
    sum.tail += more.tail;
    sum.bytes += more.bytes;
    sum.disk_bytes += more.disk_bytes;
    sum.parked += more.parked;
    sum.lost += more.lost;
    sum.oldest = sum.oldest.into_iter().chain(more.oldest).min();
}

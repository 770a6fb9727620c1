//! All arms, which of them is active, and the task that decides it: [`Arms`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use prometheus::{IntCounter, IntGauge};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    arm::Arm,
    checks::{Watched, lets_through},
    failover::{Failover, Switch},
    topology::Topology,
    transfer::Transfer,
};
use crate::error::Error;

/// The targets that are open, one at least. The task that goes from one to another ends with this value.
pub(super) struct Arms {
    all: Box<[Arm]>,
    active: Arc<Active>,
    switching: Option<Switching>,
    /// Somebody moves what was spooled.
    moving: AtomicBool,
}

/// Which one is active: for each call, and for those who wait for a change.
struct Active {
    at: AtomicUsize,
    changes: watch::Sender<usize>,
}

struct Switching {
    healthy: watch::Receiver<Vec<bool>>,
    task: JoinHandle<()>,
}

impl Arms {
    /// These, one at least, the first of which is active. With several, `topology` says when to change that.
    pub(super) fn new(arms: Vec<Arm>, topology: &Topology) -> Self {
        debug_assert!(!arms.is_empty());
        let active = Arc::new(Active {
            at: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
        });
        if let Some(first) = arms.first() {
            first.metrics.active.set(1);
        }
        let switching = (arms.len() > 1).then(|| {
            let failover = Failover::new(topology.rules(), arms.len(), Instant::now());
            let healthy = watch::Sender::new(vec![false; arms.len()]);
            let watched = arms.iter().enumerate().map(|(at, arm)| {
                Watched::new(at, arm, topology.check.clone()).run(healthy.clone())
            });
            let watching = join_all(watched.collect::<Vec<_>>());
            let seats = arms.iter().map(Seat::of).collect();
            let driving = drive(failover, seats, healthy.subscribe(), active.clone());
            Switching {
                healthy: healthy.subscribe(),
                task: tokio::spawn(async move {
                    tokio::join!(watching, driving);
                }),
            }
        });
        Self {
            all: arms.into(),
            active,
            switching,
            moving: AtomicBool::new(false),
        }
    }

    /// The one that calls and new jobs go to.
    pub(super) fn active(&self) -> &Arm {
        &self.all[self.active_at()]
    }

    pub(super) fn active_at(&self) -> usize {
        self.active.at.load(Ordering::Relaxed)
    }

    pub(super) fn all(&self) -> &[Arm] {
        &self.all
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|arm| &*arm.name == name)
    }

    pub(super) fn is_healthy(&self, at: usize) -> bool {
        match (&self.switching, self.all.get(at)) {
            (Some(switching), _) => switching.healthy.borrow().get(at).copied().unwrap_or(false),
            (None, Some(arm)) => arm.connection.is_up() && lets_through(arm.breaker.state()),
            (None, None) => false,
        }
    }

    /// Hands what is on disk for the target `from` over to `to`, and says how many records those were.
    pub(super) async fn move_spooled(&self, from: &str, to: &str) -> Result<u64, Error> {
        let find = |name| {
            let unknown = || Error::invalid(format!("there is no target {name:?}"));
            self.find(name).ok_or_else(unknown)
        };
        let (from_at, to_at) = (find(from)?, find(to)?);
        if from_at == to_at {
            return Err(Error::invalid(
                "what waits for a target cannot be moved to the same one",
            ));
        }
        let (from, to) = (&self.all[from_at], &self.all[to_at]);
        // One after the other, or two could go round in circles.
        if self.moving.swap(true, Ordering::AcqRel) {
            return Err(Error::invalid("another move is under way"));
        }
        let _moving = Moving(&self.moving);
        let mut changes = self.active.changes.subscribe();
        let becomes_active = async {
            // It never ends by itself: the sender is in `self`.
            let _ = changes.wait_for(|active| *active == from_at).await;
        };
        let transfer = Transfer::begin(from, to);
        tokio::select! {
            biased;
            () = becomes_active => Err(Error::invalid(
                "what waits for the active target cannot be moved: new jobs go there",
            )),
            error = transfer.failed() => Err(error),
            () = from.spool.flush() => Ok(transfer.moved()),
        }
    }
}

struct Moving<'a>(&'a AtomicBool);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a change of the active target is shown by.
struct Seat {
    name: Arc<str>,
    active: IntGauge,
    switches: IntCounter,
}

impl Seat {
    fn of(arm: &Arm) -> Self {
        Self {
            name: arm.name.clone(),
            active: arm.metrics.active.clone(),
            switches: arm.metrics.switches.clone(),
        }
    }
}

/// Goes from one target to another as `failover` decides.
async fn drive(
    mut failover: Failover,
    seats: Vec<Seat>,
    mut healthy: watch::Receiver<Vec<bool>>,
    active: Arc<Active>,
) {
    loop {
        let switch = failover.observe(&healthy.borrow_and_update(), Instant::now());
        if let Some(switch) = switch {
            active.at.store(failover.active(), Ordering::Relaxed);
            active.changes.send_replace(failover.active());
            show(switch, &seats);
        }
        tokio::select! {
            changed = healthy.changed() => if changed.is_err() { return },
            () = until(failover.due()) => {}
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn show(switch: Switch, seats: &[Seat]) {
    let (Some(from), Some(to)) = (seats.get(switch.from), seats.get(switch.to)) else {
        return;
    };
    from.active.set(0);
    to.active.set(1);
    to.switches.inc();
    tracing::warn!(
        from = &*from.name,
        to = &*to.name,
        reason = switch.reason.as_str(),
        "calls and new jobs go to another target"
    );
}

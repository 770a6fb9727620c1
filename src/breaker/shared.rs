//! What a layer, its services, their calls and the handles share: the machine behind its lock, and
//! what the outside sees of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::{sync::watch, time::Instant};

use super::{
    machine::{Admission, Entry, Machine, Outcome, Refusal},
    meters::Meters,
    options::BreakerOptions,
    state::State,
};
use crate::metrics::BreakerMetrics;

/// The breaker's state, and how it came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state entered.
    pub state: State,
    /// Changes of state so far. A watcher that sees it grow by more than one has missed some.
    pub transitions: u64,
    /// When it was entered.
    pub since: Instant,
}

/// A time without Redis: from the breaker's opening until calls are let through again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outage {
    /// When it began, to measure from.
    pub since: Instant,
    /// When it began, to print.
    pub wall_clock: SystemTime,
}

pub(super) struct Shared {
    /// What closed and disabled breakers, which is nearly all the time, need to let a call in:
    /// written under the lock at each change, read without it.
    gate: AtomicU64,
    core: Mutex<Core>,
    times_calls: bool,
    meters: ArcSwap<Meters>,
    snapshot: watch::Sender<Snapshot>,
    recoveries: watch::Sender<u64>,
}

struct Core {
    machine: Machine,
    random: SmallRng,
    outage: Option<Outage>,
}

impl Shared {
    pub(super) fn new(options: BreakerOptions) -> Self {
        let now = Instant::now();
        let times_calls = options.times_calls();
        let machine = Machine::new(options, now);
        let meters = Meters::new(&BreakerMetrics::default(), machine.state(), false);
        Self {
            gate: AtomicU64::new(gate(&machine)),
            times_calls,
            meters: ArcSwap::from_pointee(meters),
            snapshot: watch::Sender::new(snapshot(&machine)),
            recoveries: watch::Sender::new(0),
            core: Mutex::new(Core {
                machine,
                random: SmallRng::from_rng(&mut rand::rng()),
                outage: None,
            }),
        }
    }

    pub(super) fn set_metrics(&self, metrics: &BreakerMetrics) {
        let core = self.core.lock();
        let meters = Meters::new(metrics, core.machine.state(), core.outage.is_some());
        self.meters.store(Arc::new(meters));
    }

    /// Why a call would not be let in now, if it would not.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self.gate.load(Ordering::Acquire) & GATE {
            GATE_ASK => self.decide(Machine::refusal),
            _ => None,
        }
    }

    /// Lets a call in, or not.
    pub(super) fn admit(&self) -> Admission {
        let gate = self.gate.load(Ordering::Acquire);
        match gate & GATE {
            GATE_COUNTED => {
                let at = self.times_calls.then(Instant::now);
                Admission::Counted(Entry::closed(gate >> GATE_BITS, at))
            }
            GATE_UNCOUNTED => Admission::Uncounted,
            _ => self.decide(Machine::admit),
        }
    }

    pub(super) fn record(&self, entry: Entry, outcome: Outcome) {
        if outcome == Outcome::Ignored && !entry.takes_place() {
            return;
        }
        // Nearly every call of nearly every day ends here, without a look at the clock.
        if outcome == Outcome::Success && self.core.lock().machine.record_healthy(entry) {
            return;
        }
        self.decide(|machine, now, sample| machine.record(entry, outcome, now, sample));
    }

    pub(super) fn count_refused(&self) {
        self.meters.load().refused();
    }

    /// Asks the machine, and tells the outside if that has changed its state.
    pub(super) fn decide<T>(&self, ask: impl FnOnce(&mut Machine, Instant, f64) -> T) -> T {
        let now = Instant::now();
        let mut core = self.core.lock();
        let (from, epoch) = (core.machine.state(), core.machine.epoch());
        let sample = core.random.random();
        let answer = ask(&mut core.machine, now, sample);
        if core.machine.epoch() != epoch {
            self.publish(&mut core, from);
            let (to, open_for) = (core.machine.state(), core.machine.open_for(now));
            // A subscriber may write to a terminal, or ask the handle: not under the lock.
            drop(core);
            log(from, to, open_for);
        }
        answer
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        *self.snapshot.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    pub(super) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        self.core.lock().outage
    }

    /// Under the lock, so that nobody sees two changes in the wrong order.
    fn publish(&self, core: &mut Core, from: State) {
        let snapshot = snapshot(&core.machine);
        let meters = self.meters.load();
        self.gate.store(gate(&core.machine), Ordering::Release);
        self.snapshot.send_replace(snapshot);
        meters.entered(snapshot.state);
        if snapshot.state == State::Open && core.outage.is_none() {
            core.outage = Some(Outage {
                since: snapshot.since,
                wall_clock: SystemTime::now(),
            });
            meters.outage_began();
        }
        if snapshot.state.lets_through() && !from.lets_through() {
            if let Some(outage) = core.outage.take() {
                meters.outage_ended(snapshot.since.saturating_duration_since(outage.since));
            }
            self.recoveries.send_modify(|recoveries| *recoveries += 1);
        }
    }
}

/// The gate: two bits that say how to let a call in, and above them the epoch.
fn gate(machine: &Machine) -> u64 {
    let how = match machine.state() {
        State::Closed | State::ForcedClosed => GATE_COUNTED,
        State::Disabled => GATE_UNCOUNTED,
        State::Open | State::HalfOpen | State::ForcedOpen => GATE_ASK,
    };
    machine.epoch() << GATE_BITS | how
}

const GATE_BITS: u32 = 2;
const GATE: u64 = (1 << GATE_BITS) - 1;
const GATE_ASK: u64 = 0;
const GATE_COUNTED: u64 = 1;
const GATE_UNCOUNTED: u64 = 2;

fn snapshot(machine: &Machine) -> Snapshot {
    Snapshot {
        state: machine.state(),
        transitions: machine.epoch(),
        since: machine.since(),
    }
}

fn log(from: State, to: State, open_for: Option<Duration>) {
    match to {
        State::Open => tracing::warn!(%from, ?open_for, "circuit breaker opened"),
        State::Closed => tracing::info!(%from, "circuit breaker closed"),
        State::HalfOpen => tracing::debug!(%from, "circuit breaker lets a few calls through"),
        State::ForcedOpen | State::ForcedClosed | State::Disabled => {
            tracing::warn!(%from, %to, "circuit breaker overridden");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.snapshot()).finish()
    }
}

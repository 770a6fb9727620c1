//! The breaker's metrics, resolved.

use std::time::Duration;

use prometheus::{Counter, IntCounter, IntGauge};

use super::state::State;
use crate::metrics::BreakerMetrics;

/// The handles of one breaker: one gauge and one counter per state, in the order of [`State::ALL`].
#[derive(Debug)]
pub(super) struct Meters {
    states: [IntGauge; State::ALL.len()],
    transitions: [IntCounter; State::ALL.len()],
    refused: IntCounter,
    outages: IntCounter,
    outage_seconds: Counter,
    outage: IntGauge,
}

impl Meters {
    pub(super) fn new(metrics: &BreakerMetrics, state: State, in_outage: bool) -> Self {
        let gauge = |state: State| metrics.state.with_label_values(&[state.as_str()]);
        let counter = |state: State| metrics.transitions.with_label_values(&[state.as_str()]);
        let meters = Self {
            states: State::ALL.map(gauge),
            transitions: State::ALL.map(counter),
            refused: metrics.refused.clone(),
            outages: metrics.outages.clone(),
            outage_seconds: metrics.outage_seconds.clone(),
            outage: metrics.outage.clone(),
        };
        meters.show(state);
        meters.outage.set(in_outage.into());
        meters
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn entered(&self, state: State) {
        for (counter, of) in self.transitions.iter().zip(State::ALL) {
            if of == state {
                counter.inc();
            }
        }
        self.show(state);
    }

    pub(super) fn outage_began(&self) {
        self.outages.inc();
        self.outage.set(1);
    }

    pub(super) fn outage_ended(&self, after: Duration) {
        self.outage_seconds.inc_by(after.as_secs_f64());
        self.outage.set(0);
    }

    fn show(&self, state: State) {
        for (gauge, of) in self.states.iter().zip(State::ALL) {
            gauge.set((of == state).into());
        }
    }
}

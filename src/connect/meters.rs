//! The metrics' handles, resolved once.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::status::Trouble;
use crate::metrics::ConnectMetrics;

pub(super) struct Meters {
    pub(super) ok: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) timeout: IntCounter,
    pub(super) failed: IntCounter,
    pub(super) seconds: Histogram,
    pub(super) up: IntGauge,
    pub(super) generation: IntGauge,
    pub(super) connects_failed: IntCounter,
    pub(super) probes_failed: IntCounter,
    pub(super) idle: IntGauge,
    pub(super) busy: IntGauge,
    endings: [(Trouble, IntCounter); Trouble::ENDINGS.len()],
}

impl Meters {
    pub(super) fn new(metrics: &ConnectMetrics) -> Self {
        let attempts = |outcome| metrics.attempts.with_label_values(&[outcome]);
        Self {
            ok: attempts("ok"),
            refused: attempts("refused"),
            timeout: attempts("timeout"),
            failed: attempts("failed"),
            seconds: metrics.attempt_seconds.clone(),
            up: metrics.up.clone(),
            generation: metrics.generation.clone(),
            connects_failed: metrics.connects_failed.clone(),
            probes_failed: metrics.probes_failed.clone(),
            idle: metrics.pool.with_label_values(&["idle"]),
            busy: metrics.pool.with_label_values(&["busy"]),
            endings: Trouble::ENDINGS.map(|trouble| {
                let ended = metrics.reconnects.with_label_values(&[trouble.as_str()]);
                (trouble, ended)
            }),
        }
    }

    /// Counts a connection that was given up.
    pub(super) fn ended(&self, trouble: Trouble) {
        if let Some((_, counter)) = self.endings.iter().find(|(ending, _)| *ending == trouble) {
            counter.inc();
        }
    }
}

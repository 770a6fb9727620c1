//! The metrics' handles, resolved once.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::{deployment::Address, status::Trouble};
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
    pub(super) failovers: IntCounter,
    answering: IntGauge,
    silent: IntGauge,
    read_replica: IntCounter,
    read_master: IntCounter,
    pub(super) role_mismatches: IntCounter,
    found: IntCounter,
    remembered: IntCounter,
    not_found: IntCounter,
    search_seconds: Histogram,
    master: IntGaugeVec,
    master_is: Mutex<Option<String>>,
    endings: [(Trouble, IntCounter); Trouble::ENDINGS.len()],
}

impl Meters {
    pub(super) fn new(metrics: &ConnectMetrics) -> Self {
        let attempts = |outcome| metrics.attempts.with_label_values(&[outcome]);
        let reads = |from| metrics.replica_reads.with_label_values(&[from]);
        let searches = |outcome| metrics.searches.with_label_values(&[outcome]);
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
            failovers: metrics.failovers.clone(),
            answering: metrics.sentinels.with_label_values(&["answering"]),
            silent: metrics.sentinels.with_label_values(&["silent"]),
            read_replica: reads("replica"),
            read_master: reads("master"),
            role_mismatches: metrics.role_mismatches.clone(),
            found: searches("found"),
            remembered: searches("remembered"),
            not_found: searches("failed"),
            search_seconds: metrics.search_seconds.clone(),
            master: metrics.master.clone(),
            master_is: Mutex::new(None),
            endings: Trouble::ENDINGS.map(|trouble| {
                let ended = metrics.reconnects.with_label_values(&[trouble.as_str()]);
                (trouble, ended)
            }),
        }
    }

    /// Counts a search for the master that has ended.
    pub(super) fn searched(&self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Found => self.found.inc(),
            Outcome::Remembered => self.remembered.inc(),
            Outcome::Failed => self.not_found.inc(),
        }
        self.search_seconds.observe(took.as_secs_f64());
    }

    /// Shows how many sentinels answer, and how many do not.
    pub(super) fn sentinels(&self, answering: usize, silent: usize) {
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.answering.set(gauge(answering));
        self.silent.set(gauge(silent));
    }

    /// Counts a call that asked to be read from a replica.
    pub(super) fn read_from(&self, replica: bool) {
        if replica {
            self.read_replica.inc();
        } else {
            self.read_master.inc();
        }
    }

    /// Shows where the master is, in the place of where it was.
    pub(super) fn master(&self, address: Option<&Address>) {
        let address = address.map(Address::to_string);
        let mut shown = self.master_is.lock();
        if *shown == address {
            return;
        }
        if let Some(before) = shown.take() {
            // It is gone already if two share these metrics.
            let _ = self.master.remove_label_values(&[&before]);
        }
        if let Some(address) = &address {
            self.master.with_label_values(&[address]).set(1);
        }
        *shown = address;
    }

    /// Counts a connection that was given up.
    pub(super) fn ended(&self, trouble: Trouble) {
        if let Some((_, counter)) = self.endings.iter().find(|(ending, _)| *ending == trouble) {
            counter.inc();
        }
    }
}

/// How a search for the master ends.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// A sentinel named one.
    Found,
    /// No sentinel answered, and one of before still is one.
    Remembered,
    Failed,
}

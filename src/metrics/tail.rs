//! What is kept of acknowledged records until replicas have them, and what became of those that Redis lost.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::{BoxedCollector, all, counters, gauges};

/// The tails of all queues.
#[derive(Clone, Debug)]
pub struct TailMetrics {
    pub(crate) memory_records: IntGauge,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) disk_records: IntGauge,
    pub(crate) disk_bytes: IntGauge,
    pub(crate) repaired: IntCounterVec,
    pub(crate) removed: IntCounterVec,
    pub(crate) given_up: IntCounterVec,
    records: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl Default for TailMetrics {
    fn default() -> Self {
        let records = gauges(
            "seawall_tail_records",
            "Records that Redis has acknowledged and its replicas may lack, by where they are kept",
            &["place"],
        );
        let bytes = gauges(
            "seawall_tail_bytes",
            "Bytes of the records that Redis has acknowledged and its replicas may lack",
            &["place"],
        );
        Self {
            memory_records: records.with_label_values(&["memory"]),
            memory_bytes: bytes.with_label_values(&["memory"]),
            disk_records: records.with_label_values(&["disk"]),
            disk_bytes: bytes.with_label_values(&["disk"]),
            repaired: counters(
                "seawall_repaired_total",
                "Records that Redis acknowledged and lost, and that were given back",
                &["queue"],
            ),
            removed: counters(
                "seawall_removed_total",
                "Records that somebody removed from Redis with the number of their lane",
                &["queue"],
            ),
            given_up: counters(
                "seawall_tail_given_up_total",
                "Records that were no longer kept although replicas may have lacked them, for want of room",
                &["queue"],
            ),
            records,
            bytes,
        }
    }
}

impl TailMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        all(
            registry,
            [
                &self.records as &dyn BoxedCollector,
                &self.bytes,
                &self.repaired,
                &self.removed,
                &self.given_up,
            ],
        )
    }
}

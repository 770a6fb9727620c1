//! How much a tail may hold: [`TailOptions`].

use std::time::Duration;

/// How much is kept of what Redis has acknowledged, for the case that it loses it.
///
/// A job that Redis has acknowledged is kept until its replicas have it, and is sent again if a failover
/// or a restart turns out to have lost it. In memory first; past its bound there, the oldest go to the
/// spool's disk.
///
/// # Default
///
/// - in memory: 16 MiB, of all queues together
/// - on disk: 256 MiB for each queue, within the bounds of the spool
/// - age: 10 s, where Redis has no replicas: what a restart may lose of its last seconds
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TailOptions {
    pub(in crate::spool) max_memory: usize,
    pub(in crate::spool) max_disk: u64,
    pub(in crate::spool) max_age: Duration,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self {
            max_memory: 16 << 20,
            max_disk: 256 << 20,
            max_age: Duration::from_secs(10),
        }
    }
}

impl TailOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes may be in memory, of all queues together. At least 64 KiB.
    pub fn with_max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = bytes.clamp(64 << 10, 1 << 38);
        self
    }

    /// How many bytes of each queue may be on disk, where a partition lasts. Past it the oldest are given
    /// up, counted and told of. 0: none goes to disk.
    pub fn with_max_disk(mut self, bytes: u64) -> Self {
        self.max_disk = bytes;
        self
    }

    /// How long they are kept where Redis has no replicas. At most a day.
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age.min(Duration::from_secs(24 * 60 * 60));
        self
    }
}

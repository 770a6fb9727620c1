//! Where the spool lives, how much it may hold, and how it lets go.

use std::{collections::HashMap, time::Duration};

use tokio::sync::watch;

use super::{
    SpoolDir,
    commit::Durability,
    crypt::Keys,
    limits::{LEAST_BYTES, Limits, MaxAge, Overflow, QueueLimits, WhenOld},
    tail::TailOptions,
};
use crate::{metrics::SpoolMetrics, replicas::Replicas};

/// Settings of a [`Spool`](super::Spool).
///
/// # Default
///
/// - acknowledge: [`Ack::Primary`]
/// - durability: [`Durability::PowerLoss`]
/// - lost records: reported, not an error
/// - network file systems: refused
/// - a generation: 64 MiB
/// - free disk: at least 5 % of the file system, but from 1 to 256 MiB
/// - stalled: after 5 s
/// - spool after: 250 ms
/// - on disk: 1,000,000 records, 1 GiB, in files of 4 GiB; overflow: [`Overflow::Reject`]
/// - age on disk: unbounded
/// - parked: 100,000 records
/// - a record: 8 MiB
/// - a queue by itself: [`QueueLimits::default`]
/// - watermark: 0.8
/// - in memory: 64 MiB
/// - a batch: 1,024 records, 1 MiB
/// - queues: 1,024
/// - disk timeout: 5 s
/// - lane lifetime in Redis: 7 days
/// - encryption: none
/// - replay: [`Replay::default`]
/// - tail: [`TailOptions::default`]
#[derive(Clone, Debug)]
#[must_use]
pub struct SpoolOptions {
    pub(super) dir: SpoolDir,
    pub(super) ack: Ack,
    pub(super) durability: Durability,
    pub(super) strict: bool,
    pub(super) network: bool,
    pub(super) generation_bytes: u64,
    pub(super) min_free_disk: Option<u64>,
    pub(super) stalled_after: Duration,
    pub(super) spool_after: Duration,
    pub(super) max_records: u64,
    pub(super) max_parked: u64,
    pub(super) max_bytes: u64,
    max_disk_bytes: Option<u64>,
    max_age: Option<MaxAge>,
    overflow: Overflow,
    max_record_bytes: usize,
    queue_limits: HashMap<String, QueueLimits>,
    default_queue_limits: QueueLimits,
    pub(super) watermark: f64,
    pub(super) max_memory: usize,
    pub(super) max_batch_records: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) max_queues: usize,
    pub(super) disk_timeout: Duration,
    pub(super) lane_lifetime: Duration,
    pub(super) replay: Replay,
    pub(super) recoveries: Option<watch::Receiver<u64>>,
    pub(super) replicas: Option<Replicas>,
    pub(super) tail: Option<TailOptions>,
    pub(super) keys: Option<Keys>,
    pub(super) metrics: SpoolMetrics,
}

impl SpoolOptions {
    /// The defaults, in the directory `dir`, which is made if it is missing.
    ///
    /// A path is a directory that is the spool's alone, and one process has it open at a time. Many processes
    /// can share one that is [`SpoolDir::shared`].
    pub fn new(dir: impl Into<SpoolDir>) -> Self {
        Self {
            dir: dir.into(),
            ack: Ack::Primary,
            durability: Durability::PowerLoss,
            strict: false,
            network: false,
            generation_bytes: 64 << 20,
            min_free_disk: None,
            stalled_after: Duration::from_secs(5),
            spool_after: Duration::from_millis(250),
            max_records: 1_000_000,
            max_parked: 100_000,
            max_bytes: 1 << 30,
            max_disk_bytes: None,
            max_age: None,
            overflow: Overflow::Reject,
            max_record_bytes: 8 << 20,
            queue_limits: HashMap::new(),
            default_queue_limits: QueueLimits::new(),
            watermark: 0.8,
            max_memory: 64 << 20,
            max_batch_records: 1024,
            max_batch_bytes: 1 << 20,
            max_queues: 1024,
            disk_timeout: Duration::from_secs(5),
            lane_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            replay: Replay::default(),
            recoveries: None,
            replicas: None,
            tail: Some(TailOptions::default()),
            keys: None,
            metrics: SpoolMetrics::default(),
        }
    }

    /// The directory, instead of the one it was made with.
    pub fn with_dir(mut self, dir: impl Into<SpoolDir>) -> Self {
        self.dir = dir.into();
        self
    }

    /// The directory.
    pub fn dir(&self) -> &SpoolDir {
        &self.dir
    }

    /// What a receipt stands for.
    pub fn with_ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// What a record on disk survives.
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether to refuse to start when records that must be on disk are not. Default: start, go on with
    /// what is there, and report the loss: [`Recovery`](super::Recovery).
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether the directory may be on a network file system, whose word on locks and on durability is
    /// another machine's. Default: no.
    pub fn with_network_filesystem(mut self, allowed: bool) -> Self {
        self.network = allowed;
        self
    }

    /// How large the file of one generation gets before the next one is begun. Room is given back in
    /// pieces of this size. From 1 MiB to 1 GiB.
    pub fn with_generation_bytes(mut self, bytes: u64) -> Self {
        self.generation_bytes = bytes.clamp(1 << 20, 1 << 30);
        self
    }

    /// How much room must be free on the file system for records to be taken in, in bytes.
    pub fn with_min_free_disk(mut self, bytes: u64) -> Self {
        self.min_free_disk = Some(bytes);
        self
    }

    /// How long one step of the disk may take before it counts as stalled. From 10 ms to a day.
    pub fn with_stalled_after(mut self, after: Duration) -> Self {
        self.stalled_after = after.clamp(Duration::from_millis(10), DAY);
        self
    }

    /// How long a record waits for Redis, retries included, before it goes to disk. From 1 ms to a day.
    pub fn with_spool_after(mut self, after: Duration) -> Self {
        self.spool_after = after.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// How many records may be on disk, parked ones included. At least 1.
    pub fn with_max_records(mut self, records: u64) -> Self {
        self.max_records = records.max(1);
        self
    }

    /// How many bytes of records may be on disk, parked ones included. At least 4 KiB.
    ///
    /// The files may grow to a few times this: see [`with_max_disk_bytes`](Self::with_max_disk_bytes).
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes.max(LEAST_BYTES);
        self
    }

    /// How many bytes the spool's files may take. At least 256 MiB, and four
    /// [generations](Self::with_generation_bytes). Default: four times [`max_bytes`](Self::with_max_bytes).
    ///
    /// Room for what the store writes about the records is kept back, so records are refused some time
    /// before. What is delivered or dropped leaves the files later than it leaves the other bounds:
    /// this one is a net below them.
    pub fn with_max_disk_bytes(mut self, bytes: u64) -> Self {
        self.max_disk_bytes = Some(bytes);
        self
    }

    /// How long a record may wait on disk, from 1 ms to ten years, and what happens then. Default: as
    /// long as it takes.
    ///
    /// Records are looked at in their order. A record's own
    /// [`expires_at`](super::Spoolable::expires_at) holds as well.
    pub fn with_max_age(mut self, age: Duration, when_old: WhenOld) -> Self {
        self.max_age = Some(MaxAge::new(age, when_old));
        self
    }

    /// How many records may be parked: those that Redis refuses for good. At least 1.
    ///
    /// At the bound nothing is lost and nothing is dropped: the queue with the next such record is blocked,
    /// loudly, its records wait on disk, and it goes on by itself once parked records have been
    /// [sent again](super::Spool::unpark) or [deleted](super::Spool::delete_parked).
    pub fn with_max_parked(mut self, records: u64) -> Self {
        self.max_parked = records.max(1);
        self
    }

    /// What happens to a record that would pass a bound.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow.bounded();
        self
    }

    /// The largest record taken, in bytes.
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Bounds of one queue by itself, beside those of the spool.
    pub fn with_queue_limits(mut self, queue: impl Into<String>, limits: QueueLimits) -> Self {
        self.queue_limits.insert(queue.into(), limits);
        self
    }

    /// Bounds of each queue that has none by its name.
    pub fn with_default_queue_limits(mut self, limits: QueueLimits) -> Self {
        self.default_queue_limits = limits;
        self
    }

    /// How full the fullest of the bounds on records, bytes and files may be, from 0 to 1, before the
    /// log has a warning. It says when there is room again: at nine tenths of this.
    pub fn with_watermark(mut self, share: f64) -> Self {
        // Not a number is no share of anything.
        self.watermark = if share.is_nan() {
            1.0
        } else {
            share.clamp(0.0, 1.0)
        };
        self
    }

    /// How many bytes of records may be in memory, on their way to Redis or to disk. At least
    /// 64 KiB. Past it, [`call`](tower::Service::call)'s future waits for room.
    pub fn with_max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = bytes.clamp(64 << 10, 1 << 38);
        self
    }

    /// How many records, and about how many bytes, share one request to Redis. At least 1 each, and at
    /// most 65,536 and 256 MiB: Redis takes no request of more than a million parts.
    pub fn with_max_batch(mut self, records: usize, bytes: usize) -> Self {
        self.max_batch_records = records.clamp(1, 1 << 16);
        self.max_batch_bytes = bytes.clamp(1, 256 << 20);
        self
    }

    /// How many queues there may be: each is a task and a set of metrics. At least 1.
    pub fn with_max_queues(mut self, queues: usize) -> Self {
        self.max_queues = queues.max(1);
        self
    }

    /// How long a caller waits for the disk before it gets an error. The record may be on disk then,
    /// and is delivered if it is. At most a day.
    pub fn with_disk_timeout(mut self, timeout: Duration) -> Self {
        self.disk_timeout = timeout.min(DAY);
        self
    }

    /// How long Redis remembers the last number of a lane that has gone quiet. From a minute to ten years.
    ///
    /// A record that was sent, got no answer, and waits on disk for longer than this while Redis is
    /// up may be delivered twice.
    pub fn with_lane_lifetime(mut self, lifetime: Duration) -> Self {
        self.lane_lifetime = lifetime.clamp(Duration::from_secs(60), DAY * 3650);
        self
    }

    /// How fast what waits on disk is sent once Redis is back.
    pub fn with_replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// A count that grows whenever Redis is back, such as the breaker's
    /// [`recoveries`](crate::breaker::BreakerHandle::recoveries): replay then starts at once instead
    /// of at its next look.
    pub fn with_recoveries(mut self, recoveries: watch::Receiver<u64>) -> Self {
        self.recoveries = Some(recoveries);
        self
    }

    /// What is known of the replicas, such as [`Connection::replicas`](crate::connect::Connection::replicas):
    /// what they lack is kept, and sent again if Redis loses it. Default: nothing is known, and nothing is
    /// kept.
    pub fn with_replicas(mut self, replicas: Replicas) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// How much is kept of what Redis has acknowledged and its replicas lack. `None`: nothing, and what a
    /// failover loses is counted and no more.
    pub fn with_tail(mut self, tail: impl Into<Option<TailOptions>>) -> Self {
        self.tail = tail.into();
        self
    }

    /// Encrypts what is on disk: see [`Keys`]. Default: it is not encrypted, and the directory's mode keeps
    /// other users out.
    ///
    /// What an earlier run left in clear is read as it is; what is written from then on is encrypted.
    #[cfg(feature = "encrypt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encrypt")))]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Where to count.
    pub fn with_metrics(mut self, metrics: SpoolMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    pub(super) fn max_disk_bytes(&self) -> u64 {
        let usual = self.max_bytes.saturating_mul(4);
        // Below that, what the store itself needs would count for more than the records.
        let least = self.generation_bytes.saturating_mul(4).max(256 << 20);
        self.max_disk_bytes.unwrap_or(usual).max(least)
    }

    /// What holds for a queue.
    pub(super) fn limits_of(&self, queue: &str) -> Limits {
        let own = self.queue_limits.get(queue);
        own.copied()
            .unwrap_or(self.default_queue_limits)
            .resolve(Limits {
                max_records: None,
                max_bytes: None,
                max_age: self.max_age,
                max_record_bytes: self.max_record_bytes,
                overflow: self.overflow,
            })
    }
}

/// Times are bounded, so that their sums with a moment never overflow.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When a record's receipt is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ack {
    /// When Redis has acknowledged it; from the disk's acknowledgement while Redis is out.
    #[default]
    Primary,
    /// When the disk has acknowledged it, always (write-ahead). Delivery follows.
    Spooled,
    /// When Redis and as many of its replicas have acknowledged it (WAIT); once `timeout` has passed, when
    /// Redis has, and the disk, which keeps it until the replicas have it.
    /// Each queue that waits takes an [exclusive](crate::connect::Connection::exclusive) connection meanwhile.
    /// If there is none, it is as if the replicas did not answer.
    Replicated {
        /// How many replicas, at least 1.
        replicas: u32,
        /// How long they have, from 1 ms to an hour.
        timeout: Duration,
    },
    /// As `Replicated`, and both Redis and the replicas have it on disk (WAITAOF). Needs Redis 7.2 with
    /// `appendonly yes` on all of them; without it every job takes the `timeout` and goes to the local disk.
    ReplicatedOnDisk {
        /// How many replicas, at least 1.
        replicas: u32,
        /// How long they have, from 1 ms to an hour.
        timeout: Duration,
    },
}

/// What a receipt waits for, beside Redis itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmation {
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
    pub(super) on_disk: bool,
}

impl Ack {
    pub(super) fn confirmation(self) -> Option<Confirmation> {
        let (replicas, timeout, on_disk) = match self {
            Self::Replicated { replicas, timeout } => (replicas, timeout, false),
            Self::ReplicatedOnDisk { replicas, timeout } => (replicas, timeout, true),
            Self::Primary | Self::Spooled => return None,
        };
        let hour = Duration::from_secs(3600);
        Some(Confirmation {
            replicas: replicas.max(1),
            timeout: timeout.clamp(Duration::from_millis(1), hour),
            on_disk,
        })
    }
}

/// How fast what waits on disk is sent once Redis is back.
///
/// A hundred applications come back at the same moment as Redis does. Each waits a random part of
/// [`jitter`](Self::with_jitter), starts slowly, and doubles its rate step by step.
///
/// # Default
///
/// - rate: unlimited
/// - slow start: from 10,000 records a second, doubling every 200 ms, unlimited after eight steps
/// - jitter: up to 100 ms
/// - a failed try is repeated after 50 ms, doubling up to 1 s, half of it random; at once when
///   [`with_recoveries`](SpoolOptions::with_recoveries) says that Redis is back
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Replay {
    pub(super) rate: Option<u32>,
    pub(super) start_rate: Option<u32>,
    pub(super) step: Duration,
    pub(super) jitter: Duration,
    pub(super) min_delay: Duration,
    pub(super) max_delay: Duration,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            rate: None,
            start_rate: Some(10_000),
            step: Duration::from_millis(200),
            jitter: Duration::from_millis(100),
            min_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
        }
    }
}

impl Replay {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// As fast as Redis takes it, from the first moment: for a Redis that is yours alone.
    pub fn unpaced() -> Self {
        Self {
            start_rate: None,
            jitter: Duration::ZERO,
            ..Self::default()
        }
    }

    /// At most `records` a second per queue. At least 1.
    pub fn with_rate(mut self, records: u32) -> Self {
        self.rate = Some(records.max(1));
        self
    }

    /// Starts at `records` a second per queue, doubling every `step`.
    pub fn with_slow_start(mut self, records: u32, step: Duration) -> Self {
        self.start_rate = Some(records.max(1));
        self.step = step.max(Duration::from_millis(1));
        self
    }

    /// Waits a random part of `jitter` before it starts. At most a day.
    pub fn with_jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter.min(DAY);
        self
    }

    /// Looks again after `min`, doubling up to `max`, while Redis is out. From 1 ms to a day.
    pub fn with_delays(mut self, min: Duration, max: Duration) -> Self {
        self.min_delay = min.clamp(Duration::from_millis(1), DAY);
        self.max_delay = max.clamp(self.min_delay, DAY);
        self
    }
}

//! The bounds of a spool and of its queues, and what happens to a record that would pass one.

use std::{fmt, time::Duration};

use super::options::DAY;

/// What happens to a record that would pass a bound of the spool, or of its queue.
///
/// The two drops lose records, and only they do; they are counted in `seawall_dropped_total` and told in
/// the log. Nothing is dropped unless it is asked for here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Its caller gets [`SpoolFull`](crate::error::ErrorKind::SpoolFull) at once. This is the default.
    #[default]
    Reject,
    /// Its caller waits for room, and gets [`SpoolFull`](crate::error::ErrorKind::SpoolFull) when
    /// `timeout` has passed without any.
    Block {
        /// How long. At most a day.
        timeout: Duration,
    },
    /// The oldest records of the *same* queue that wait on disk are dropped, exactly as many as it takes
    /// to make room, those of earlier runs first. They had a receipt that said `Spooled`.
    ///
    /// One that is on its way to Redis at that moment is not dropped: the new record waits for the end
    /// of that request, up to the [disk timeout](super::SpoolOptions::with_disk_timeout). An earlier try
    /// of a dropped record whose answer was lost may still have landed.
    ///
    /// The new record is refused with [`SpoolFull`](crate::error::ErrorKind::SpoolFull) where dropping
    /// does not help: all that its queue has on disk would not make enough room, because other queues
    /// have filled the spool; what its queue has on disk is younger than it, having overtaken a request
    /// that it was in; or it is the files that have reached
    /// [their bound](super::SpoolOptions::with_max_disk_bytes), which shrink later than the records go.
    DropOldest,
    /// The new record is dropped. Its caller gets a receipt that says
    /// [`Dropped`](super::Place::Dropped).
    DropNewest,
}

impl Overflow {
    pub(super) fn bounded(self) -> Self {
        match self {
            Self::Block { timeout } => Self::Block {
                timeout: timeout.min(DAY),
            },
            other => other,
        }
    }
}

/// What happens to records that have waited on disk for longer than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenOld {
    /// They are kept and delivered; an event says that they are old.
    Keep,
    /// They are dropped, also while Redis is out, and counted in `seawall_expired_total`. One that is
    /// on its way to Redis at that moment is not.
    ///
    /// By the wall clock: while it is behind the time at which a record was written, that record does
    /// not expire.
    Expire,
}

/// Bounds of one queue, each of which is the spool's own unless it is set here.
///
/// # Default
///
/// None of its own: records and bytes are bounded by the spool alone.
///
/// ```
/// use seawall::spool::{Overflow, QueueLimits, SpoolOptions};
///
/// let options = SpoolOptions::new("/var/lib/app/spool")
///     .with_queue_limits("metrics", QueueLimits::new()
///         .with_max_records(10_000)
///         .with_overflow(Overflow::DropOldest))
///     .with_default_queue_limits(QueueLimits::new().with_max_bytes(256 << 20));
/// # drop(options);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct QueueLimits {
    max_records: Option<u64>,
    max_bytes: Option<u64>,
    max_age: Option<MaxAge>,
    max_record_bytes: Option<usize>,
    overflow: Option<Overflow>,
}

impl QueueLimits {
    /// None of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records of the queue may wait on disk; parked ones do not count. At least 1.
    pub fn with_max_records(mut self, records: u64) -> Self {
        self.max_records = Some(records.max(1));
        self
    }

    /// How many bytes of the queue's records may wait on disk; parked ones do not count. At least 4 KiB.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes.max(LEAST_BYTES));
        self
    }

    /// How long the queue's records may wait on disk. See
    /// [`SpoolOptions::with_max_age`](super::SpoolOptions::with_max_age).
    pub fn with_max_age(mut self, age: Duration, when_old: WhenOld) -> Self {
        self.max_age = Some(MaxAge::new(age, when_old));
        self
    }

    /// The largest record taken, in bytes.
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// What happens to a record of the queue that would pass a bound, the queue's or the spool's.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow.bounded());
        self
    }

    /// With the spool's own in the place of those that are not set.
    pub(super) fn resolve(self, spool: Limits) -> Limits {
        Limits {
            max_records: self.max_records.or(spool.max_records),
            max_bytes: self.max_bytes.or(spool.max_bytes),
            max_age: self.max_age.or(spool.max_age),
            max_record_bytes: self.max_record_bytes.unwrap_or(spool.max_record_bytes),
            overflow: self.overflow.unwrap_or(spool.overflow),
        }
    }
}

/// What holds for one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Beside the spool's own bound.
    pub(super) max_records: Option<u64>,
    /// Beside the spool's own bound.
    pub(super) max_bytes: Option<u64>,
    pub(super) max_age: Option<MaxAge>,
    pub(super) max_record_bytes: usize,
    pub(super) overflow: Overflow,
}

/// How old a record on disk may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxAge {
    ms: u64,
    pub(super) when_old: WhenOld,
}

impl MaxAge {
    pub(super) fn new(age: Duration, when_old: WhenOld) -> Self {
        let age = age.clamp(Duration::from_millis(1), DAY * 3650);
        Self {
            ms: age.as_millis() as u64,
            when_old,
        }
    }

    /// How long a record of `written_ms` may still wait at `now_ms`, both in milliseconds since 1970;
    /// `None` if it is old. Of a record that seems to come from the future nothing has passed yet.
    pub(super) fn left(self, written_ms: u64, now_ms: u64) -> Option<Duration> {
        let left = self.ms.checked_sub(now_ms.saturating_sub(written_ms))?;
        (left > 0).then(|| Duration::from_millis(left))
    }
}

/// A bound that may be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// [`SpoolOptions::with_max_records`](super::SpoolOptions::with_max_records).
    Records,
    /// [`SpoolOptions::with_max_bytes`](super::SpoolOptions::with_max_bytes).
    Bytes,
    /// [`SpoolOptions::with_max_disk_bytes`](super::SpoolOptions::with_max_disk_bytes).
    DiskBytes,
    /// [`QueueLimits::with_max_records`].
    QueueRecords,
    /// [`QueueLimits::with_max_bytes`].
    QueueBytes,
}

impl Bound {
    /// Whether it is no matter of the record's size: what is refused one is refused all.
    pub(super) fn is_for_all(self) -> bool {
        !matches!(self, Self::Bytes | Self::QueueBytes)
    }

    /// For the logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Records => "max_records",
            Self::Bytes => "max_bytes",
            Self::DiskBytes => "max_disk_bytes",
            Self::QueueRecords => "queue's max_records",
            Self::QueueBytes => "queue's max_bytes",
        }
    }
}

/// Says which setting it is.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Records => "SpoolOptions::with_max_records",
            Self::Bytes => "SpoolOptions::with_max_bytes",
            Self::DiskBytes => "SpoolOptions::with_max_disk_bytes",
            Self::QueueRecords => "QueueLimits::with_max_records",
            Self::QueueBytes => "QueueLimits::with_max_bytes",
        })
    }
}

pub(super) const LEAST_BYTES: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_old_when_its_age_has_passed_and_never_before_it_was_written(
            age in 1u64..10_000,
            written in 0u64..20_000,
            now in 0u64..40_000,
        ) {
            let max = MaxAge::new(Duration::from_millis(age), WhenOld::Expire);
            let left = max.left(written, now).map(|left| left.as_millis() as i128);
            let model = i128::from(written) + i128::from(age) - i128::from(now.max(written));
            prop_assert_eq!(left, (model > 0).then_some(model));
        }
    }

    #[test]
    fn a_queue_has_the_spools_bounds_where_it_has_none_of_its_own() {
        let spool = Limits {
            max_records: None,
            max_bytes: None,
            max_age: Some(MaxAge::new(DAY, WhenOld::Keep)),
            max_record_bytes: 7,
            overflow: Overflow::DropNewest,
        };
        let own = QueueLimits::new().with_max_records(0).resolve(spool);
        assert_eq!((own.max_records, own.max_bytes), (Some(1), None));
        assert_eq!(
            (own.max_record_bytes, own.overflow),
            (7, Overflow::DropNewest)
        );
        assert_eq!(own.max_age.map(|age| age.when_old), Some(WhenOld::Keep));
        let own = QueueLimits::new()
            .with_overflow(Overflow::Reject)
            .resolve(spool);
        assert_eq!(own.overflow, Overflow::Reject);
    }
}

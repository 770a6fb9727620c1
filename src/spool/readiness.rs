//! Whether it is safe to enqueue, and the thresholds that say so without flapping.
//!
//! No clock and no I/O: it is told how full things are.

use std::fmt;

use super::{Bound, commit::Condition};

/// Whether a record that is handed in now is kept, whatever happens to Redis: made by
/// [`Spool::readiness`](super::Spool::readiness).
///
/// It says nothing about Redis. A spool that is not ready still delivers directly while Redis is up.
///
/// Its `Display` says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readiness {
    /// The disk works and has room.
    Ready,
    /// The spool has been shut down.
    Closed,
    /// The disk has failed.
    DiskFailed,
    /// The disk does not answer.
    DiskStalled,
    /// The disk itself is nearly full, whoever has filled it.
    DiskNearlyFull,
    /// The spool, or the queue that was asked for, is at this bound: the next record is refused, waits,
    /// or costs another one, as [`Overflow`](super::Overflow) says. It is ready again once all bounds
    /// are at nine tenths or less.
    Full(Bound),
}

impl Readiness {
    /// It is safe to enqueue.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Closed => "the spool has been shut down: open it again, it takes nothing now",
            Self::DiskFailed => {
                "the spool's disk has failed: look at the volume (df, dmesg) and put it right"
            }
            Self::DiskStalled => {
                "the spool's disk does not answer: look at the volume and what else uses it"
            }
            Self::DiskNearlyFull => {
                "the spool's disk is nearly full: free some space on the volume"
            }
            Self::Full(bound) => {
                return write!(f, "the spool is full: get Redis back, or raise {bound}");
            }
        })
    }
}

impl From<&Condition> for Readiness {
    fn from(condition: &Condition) -> Self {
        match condition {
            Condition::Fine => Self::Ready,
            Condition::Low(_) => Self::DiskNearlyFull,
            Condition::Stalled => Self::DiskStalled,
            Condition::Failed(_) => Self::DiskFailed,
        }
    }
}

/// Watches the bounds of a spool, or of one queue, with a threshold to pass and a lower one to come back
/// under, so that nothing is said twice.
#[derive(Debug)]
pub(super) struct Meter {
    watermark: f64,
    above: bool,
    full: Option<Bound>,
}

/// The watermark has been passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Crossing {
    /// Upwards, by this bound.
    Above(Bound),
    /// Downwards.
    Below,
}

impl Meter {
    pub(super) fn new(watermark: f64) -> Self {
        Self {
            watermark,
            above: false,
            full: None,
        }
    }

    /// `fullest` is how full the fullest bound is, from 0 to 1.
    pub(super) fn look(&mut self, (bound, fullness): (Bound, f64)) -> Option<Crossing> {
        if fullness >= 1.0 {
            self.full = Some(bound);
        } else if fullness <= ROOM_AGAIN {
            self.full = None;
        }
        let back = fullness < self.watermark * ROOM_AGAIN || fullness == 0.0;
        if !self.above && fullness >= self.watermark && fullness > 0.0 {
            self.above = true;
            return Some(Crossing::Above(bound));
        }
        if self.above && back {
            self.above = false;
            return Some(Crossing::Below);
        }
        None
    }

    /// A record has been refused by this bound, which is so full: a large one may be long before the
    /// bound is met, and then says nothing about the next.
    pub(super) fn refused(&mut self, bound: Bound, fullness: f64) {
        if fullness > ROOM_AGAIN {
            self.full = Some(bound);
        }
    }

    pub(super) fn full(&self) -> Option<Bound> {
        self.full
    }
}

/// Of a threshold.
const ROOM_AGAIN: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(meter: &mut Meter, levels: &[f64]) -> Vec<Option<Crossing>> {
        let look = |level: &f64| meter.look((Bound::Bytes, *level));
        levels.iter().map(look).collect()
    }

    #[test]
    fn the_watermark_is_told_once_each_way() {
        let mut meter = Meter::new(0.8);
        let (above, below) = (Some(Crossing::Above(Bound::Bytes)), Some(Crossing::Below));
        assert_eq!(
            looks(
                &mut meter,
                &[0.79, 0.8, 0.79, 0.9, 0.73, 0.8, 0.71, 0.79, 0.81]
            ),
            [None, above, None, None, None, None, below, None, above]
        );
    }

    #[test]
    fn the_most_absurd_watermarks_are_passed_and_left() {
        for watermark in [0.0, 1.0] {
            let mut meter = Meter::new(watermark);
            assert_eq!(looks(&mut meter, &[0.0]), [None]);
            assert_eq!(
                looks(&mut meter, &[1.0]),
                [Some(Crossing::Above(Bound::Bytes))]
            );
            assert_eq!(looks(&mut meter, &[0.0]), [Some(Crossing::Below)]);
        }
    }

    #[test]
    fn full_is_left_only_with_room_to_spare() {
        let mut meter = Meter::new(0.8);
        for (level, full) in [
            (0.99, false),
            (1.0, true),
            (0.95, true),
            (0.9, false),
            (0.95, false),
        ] {
            meter.look((Bound::Records, level));
            assert_eq!(meter.full().is_some(), full, "{level}");
        }
        meter.refused(Bound::Bytes, 0.5);
        assert_eq!(
            meter.full(),
            None,
            "it was too large, which says nothing about the next"
        );
        meter.refused(Bound::Bytes, 0.95);
        assert_eq!(meter.full(), Some(Bound::Bytes));
    }
}

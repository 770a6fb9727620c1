//! When a failed job is executed again: [`Retries`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    error::InvalidSetting,
    retry::{Backoff, Jitter},
};

/// When a job that failed is executed again, and how often. It is stored with the job, or is a worker's default.
///
/// `with_max(3)` allows 3 retries, which is 4 executions. An execution counts from when it starts: also one that its
/// process died in. The delays are those of a [`Backoff`]:
///
/// | | delays, before the jitter | how many, unless [`with_max`](Self::with_max) says |
/// |---|---|---|
/// | [`fixed(d)`](Self::fixed) | d, d, d ... | 3 |
/// | [`delays([a, b, c])`](Self::delays) | a, b, c, c ... | as many as are listed |
/// | [`exponential(first, longest)`](Self::exponential) | first, 2 first, 4 first ... longest, longest | 3 |
/// | [`exponential_by(m, first, longest)`](Self::exponential_by) | first, m first, m² first ... longest, longest | 3 |
/// | [`none()`](Self::none) | | 0 |
///
/// Times are kept in whole milliseconds, rounded up.
///
/// # Default
///
/// - 3 retries, after 1, 2 and 4 s; were more allowed, they would go on with 8, 16, 32 and then always 60 s.
/// - Jitter: 25 % less or more.
/// - Every error is tried again, unless it looks [permanent](crate::worker::Failure), or the handler says otherwise.
/// - No limit of time.
///
/// # Coming from another queue
///
/// | there | here | executions | delays |
/// |---|---|---|---|
/// | OmniQ, `max_retries=3` | `exponential(1 s, 60 s)` | 4 | 1, 2, 4, 8, 16, 32, 60, 60 ... s, 25 % less or more |
/// | NAQ, `max_retries=3, retry_delay=5` | `fixed(5 s).with_jitter(0.0)` | 4 | 5, 5, 5 s |
/// | NAQ, `retry_delay=[2, 5, 10]` | `delays([2 s, 5 s, 10 s]).with_jitter(0.0)` | 4 | 2, 5, 10 s |
/// | NAQ, `max_retries=4, retry_delay=2, retry_strategy="exponential"` | `exponential(2 s, 3600 s).with_max(4).with_jitter(0.0)` | 5 | 2, 4, 8, 16 s |
/// | RQ, `Retry(max=3, interval=[10, 30, 60])` | `delays([10 s, 30 s, 60 s]).with_jitter(0.0)` | 4 | 10, 30, 60 s |
/// | Sidekiq, `retry: 5`; Asynq, `MaxRetry(5)`; Dramatiq and Celery, `max_retries=5` | `.with_max(5)` | 6 | |
/// | BullMQ, `attempts: 5`; River, `MaxAttempts: 5` | `.with_max(4)` | 5 | |
/// | any of them, no retry | `none()` | 1 | |
///
/// A few count or repeat in a way of their own. If RQ is allowed more retries than it has intervals it repeats the
/// *first* one: `max=5, interval=[10, 30, 60]` waits 10, 10, 10, 30, 60 s there and 10, 30, 60, 60, 60 s here. OmniQ
/// writes of 4 executions and makes 3. What they call linear is `fixed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
#[must_use]
pub struct Retries {
    schedule: Schedule,
    /// `None`: as many as the schedule says.
    max: Option<u32>,
    jitter: f64,
    retry_on: Vec<String>,
    ignore_on: Vec<String>,
    within: Option<u64>,
}

/// Times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
enum Schedule {
    Fixed(u64),
    Listed(Vec<u64>),
    Exponential {
        multiplier: f64,
        first: u64,
        longest: u64,
    },
}

impl Retries {
    /// One execution, whatever becomes of it.
    pub const fn none() -> Self {
        Self::of(Schedule::Listed(Vec::new()))
    }

    /// The same delay each time.
    pub fn fixed(delay: Duration) -> Self {
        Self::of(Schedule::Fixed(millis(delay)))
    }

    /// These delays, in this order: up to 100 of them.
    ///
    /// The list says two things at once: without [`with_max`](Self::with_max), `delays([10 s, 30 s, 60 s])` is three
    /// retries. If more are allowed the last delay repeats; if fewer are, the rest is not used.
    pub fn delays(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(Schedule::Listed(delays.into_iter().map(millis).collect()))
    }

    /// `first` before the first retry, and twice the last one before each further one, up to `longest`.
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        Self::exponential_by(DOUBLED, first, longest)
    }

    /// As [`exponential`](Self::exponential), with another multiplier than 2: a number of at least 1.1.
    pub fn exponential_by(multiplier: f64, first: Duration, longest: Duration) -> Self {
        Self::of(Schedule::Exponential {
            multiplier,
            first: millis(first),
            longest: millis(longest),
        })
    }

    const fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            max: None,
            jitter: JITTER,
            retry_on: Vec::new(),
            ignore_on: Vec::new(),
            within: None,
        }
    }

    /// Sets how many retries follow the first execution at most; 0 is none.
    pub const fn with_max(mut self, retries: u32) -> Self {
        self.max = Some(retries);
        self
    }

    /// Sets how far a delay is moved at random, as a share of it from 0 (not at all) to 1.
    pub const fn with_jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Tries these types of error again, also where they look permanent, and no others. Up to 100, of up to 256
    /// bytes each.
    ///
    /// A type is named as [`Failure::error_type`](crate::worker::Failure::error_type) has it, exactly: `http_503`,
    /// `timeout`, `ConnectError`. What a worker's `retry_if` takes, and what a handler asks for by `retry_after`, is
    /// tried again though it is not listed, and so is an execution whose worker died.
    pub fn retry_on<T: Into<String>>(mut self, error_types: impl IntoIterator<Item = T>) -> Self {
        self.retry_on = error_types.into_iter().map(Into::into).collect();
        self
    }

    /// Never tries these types of error again, whatever else is said of them. Up to 100, of up to 256 bytes each.
    ///
    /// With `worker_died` among them, a job is not executed again after its worker died in it.
    pub fn ignore_on<T: Into<String>>(mut self, error_types: impl IntoIterator<Item = T>) -> Self {
        self.ignore_on = error_types.into_iter().map(Into::into).collect();
        self
    }

    /// Makes no retry that would be due later than this after the job was first to be executed: when it was enqueued,
    /// or the time that it was scheduled for.
    ///
    /// A retry that the worker's budget puts off further than that is still made.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.within = Some(millis(time));
        self
    }

    /// How many retries follow the first execution at most.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.unwrap_or_else(|| match &self.schedule {
            Schedule::Listed(delays) => u32::try_from(delays.len()).unwrap_or(u32::MAX),
            Schedule::Fixed(_) | Schedule::Exponential { .. } => MAX,
        })
    }

    /// The delay before retry number `retry`; 1 is the first.
    ///
    /// `sample` is one draw from 0 to 1, where 0 gives the shortest delay and 1 the longest.
    #[must_use]
    pub fn delay(&self, retry: u32, sample: f64) -> Duration {
        // Only a decorrelated jitter goes by the delay before.
        self.backoff().delay(retry, Duration::ZERO, sample)
    }

    /// What another version, or another program, has stored is taken as far as it makes sense.
    fn backoff(&self) -> Backoff {
        let backoff = match &self.schedule {
            Schedule::Fixed(delay) => Backoff::fixed(Duration::from_millis(*delay)),
            Schedule::Listed(delays) => {
                let delays = delays.iter().copied().map(Duration::from_millis);
                Backoff::delays(delays.collect::<Vec<_>>())
            }
            Schedule::Exponential {
                multiplier,
                first,
                longest,
            } => {
                let [first, longest] = [*first, *longest].map(Duration::from_millis);
                Backoff::exponential_by(*multiplier, first, longest)
                    .unwrap_or_else(|_| Backoff::exponential(first, longest))
            }
        };
        backoff.with_jitter(Jitter::proportional(self.jitter).unwrap_or_default())
    }

    /// Whether an error of this type is among those that are never tried again.
    pub(crate) fn ignores(&self, error_type: &str) -> bool {
        self.ignore_on.iter().any(|listed| listed == error_type)
    }

    /// Whether an error of this type is among those that are tried again; `None` if none are listed.
    pub(crate) fn wants(&self, error_type: &str) -> Option<bool> {
        let listed = !self.retry_on.is_empty();
        listed.then(|| self.retry_on.iter().any(|listed| listed == error_type))
    }

    /// Up to when retries may be due, from when the job was first to be executed.
    pub(crate) fn within(&self) -> Option<Duration> {
        self.within.map(Duration::from_millis)
    }

    /// Refuses what nobody can have meant, before a job is enqueued or a worker started with it.
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        let too_long = |ms: u64| ms > millis(LONGEST);
        let ill_named = |names: &[String]| {
            names.len() > MOST
                || (names.iter()).any(|name| name.is_empty() || name.len() > LONGEST_NAME)
        };
        match &self.schedule {
            Schedule::Listed(delays) if delays.len() > MOST => {
                return Err(refused("delays of retries", "must be at most 100"));
            }
            Schedule::Exponential {
                multiplier,
                first,
                longest,
            } => {
                let [first, longest] = [*first, *longest].map(Duration::from_millis);
                Backoff::exponential_by(*multiplier, first, longest).map(drop)?;
            }
            Schedule::Listed(_) | Schedule::Fixed(_) => {}
        }
        Jitter::proportional(self.jitter).map(drop)?;
        if self.schedule.times().into_iter().any(too_long) {
            return Err(refused("delay of retries", "must be at most a year"));
        }
        if self.within.is_some_and(too_long) {
            return Err(refused("retry_for", "must be at most a year"));
        }
        if ill_named(&self.retry_on) {
            return Err(refused("retry_on", NAMED));
        }
        if ill_named(&self.ignore_on) {
            return Err(refused("ignore_on", NAMED));
        }
        Ok(())
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::exponential(FIRST, STEADY)
    }
}

impl Schedule {
    fn times(&self) -> Vec<u64> {
        match self {
            Self::Fixed(delay) => vec![*delay],
            Self::Listed(delays) => delays.clone(),
            Self::Exponential { first, longest, .. } => vec![*first, *longest],
        }
    }
}

const MAX: u32 = 3;
const FIRST: Duration = Duration::from_secs(1);
const STEADY: Duration = Duration::from_secs(60);
const DOUBLED: f64 = 2.0;
const JITTER: f64 = 0.25;

/// Each delay listed, and each type named, is stored with each job.
const MOST: usize = 100;
const LONGEST_NAME: usize = 256;
const NAMED: &str = "must be at most 100 names of 1 to 256 bytes";
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const fn refused(what: &'static str, why: &'static str) -> InvalidSetting {
    InvalidSetting::new(what, why)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// [`Retries`] as they are stored: what is as usual is left out, what is not known is passed over. A schedule of a
/// kind that a newer version may add is the default one here.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delays_ms: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multiplier: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retry_on: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignore_on: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_for_ms: Option<u64>,
}

impl From<Retries> for Stored {
    fn from(retries: Retries) -> Self {
        let mut stored = Self {
            max: retries.max,
            jitter: (retries.jitter != JITTER).then_some(retries.jitter),
            retry_on: retries.retry_on,
            ignore_on: retries.ignore_on,
            retry_for_ms: retries.within,
            ..Self::default()
        };
        match retries.schedule {
            Schedule::Fixed(delay) => stored.fixed_ms = Some(delay),
            Schedule::Listed(delays) => stored.delays_ms = Some(delays),
            Schedule::Exponential {
                multiplier,
                first,
                longest,
            } => {
                stored.first_ms = Some(first);
                stored.longest_ms = Some(longest);
                stored.multiplier = (multiplier != DOUBLED).then_some(multiplier);
            }
        }
        stored
    }
}

impl From<Stored> for Retries {
    fn from(stored: Stored) -> Self {
        let schedule = match (stored.fixed_ms, stored.delays_ms) {
            (Some(delay), _) => Schedule::Fixed(delay),
            (None, Some(delays)) => Schedule::Listed(delays),
            (None, None) => Schedule::Exponential {
                multiplier: stored.multiplier.unwrap_or(DOUBLED),
                first: stored.first_ms.unwrap_or(millis(FIRST)),
                longest: stored.longest_ms.unwrap_or(millis(STEADY)),
            },
        };
        Self {
            schedule,
            max: stored.max,
            jitter: stored.jitter.unwrap_or(JITTER),
            retry_on: stored.retry_on,
            ignore_on: stored.ignore_on,
            within: stored.retry_for_ms,
        }
    }
}

#[cfg(test)]
mod tests;

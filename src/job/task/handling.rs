//! How a worker is to handle one job: [`Handling`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Retries;
use crate::error::Error;

/// How a [worker](crate::worker) is to handle one job. It is stored with the job.
///
/// # Default
///
/// What is not set here is as the worker has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Handling {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<Retries>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result_ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_ttl_ms: Option<u64>,
}

impl Handling {
    /// As the worker has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// When it is executed again after it has failed.
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }

    /// How long one execution may take, from 1 ms to 30 days.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(millis_in(timeout));
        self
    }

    /// How long it is known that the job has succeeded, and with which result; zero is not at all. At most a year.
    pub fn with_result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl_ms = Some(millis_in(ttl));
        self
    }

    /// How long the job stays among the dead letters once it has failed for good; zero is not at all. At most ten
    /// years.
    pub fn with_failure_ttl(mut self, ttl: Duration) -> Self {
        self.failure_ttl_ms = Some(millis_in(ttl));
        self
    }

    /// When it is executed again.
    pub fn retries(&self) -> Option<&Retries> {
        self.retries.as_ref()
    }

    /// How long one execution may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    /// How long its result is kept.
    pub fn result_ttl(&self) -> Option<Duration> {
        self.result_ttl_ms.map(Duration::from_millis)
    }

    /// How long it stays among the dead letters.
    pub fn failure_ttl(&self) -> Option<Duration> {
        self.failure_ttl_ms.map(Duration::from_millis)
    }

    /// Refuses what makes no sense before the job is enqueued.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(retries) = &self.retries {
            retries
                .check()
                .map_err(|error| Error::invalid(error.to_string()))?;
        }
        let within = |what: &str, value: Option<u64>, least: u64, most: Duration| match value {
            Some(ms) if ms < least || ms > millis_in(most) => Err(Error::invalid(format!(
                "{what} must be between {least} ms and {} days",
                most.as_secs() / DAY
            ))),
            _ => Ok(()),
        };
        within("a job's timeout", self.timeout_ms, 1, days(30))?;
        within("a job's result_ttl", self.result_ttl_ms, 0, days(366))?;
        within("a job's failure_ttl", self.failure_ttl_ms, 0, days(3660))
    }

    /// Nothing at all, if nothing is set.
    pub(super) fn to_json(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        serde_json::to_vec(self).expect("numbers and texts can always be written as JSON")
    }

    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        if json.is_empty() {
            return Some(Self::default());
        }
        serde_json::from_slice(json).ok()
    }
}

const DAY: u64 = 24 * 60 * 60;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// As many as can be told.
pub(crate) fn millis_in(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_have_meant_is_refused() {
        let day = Duration::from_secs(DAY);
        for absurd in [
            Handling::new().with_timeout(Duration::ZERO),
            Handling::new().with_timeout(day * 31),
            Handling::new().with_result_ttl(Duration::MAX),
            Handling::new().with_failure_ttl(Duration::MAX),
            Handling::new().with_retries(Retries::default().with_jitter(7.0)),
        ] {
            assert!(absurd.check().is_err(), "{absurd:?}");
        }
        assert!(
            Handling::new()
                .with_result_ttl(Duration::ZERO)
                .check()
                .is_ok()
        );
    }

    #[test]
    fn what_a_newer_version_adds_is_no_reason_to_refuse_a_job() {
        let json = br#"{"timeout_ms":5,"colour":"blue"}"#;
        let timeout = Handling::from_json(json).and_then(|handling| handling.timeout());
        assert_eq!(timeout, Some(Duration::from_millis(5)));
    }
}

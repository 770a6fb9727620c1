//! Who works: [`WorkerId`], and what a worker tells about itself.

use std::{fmt, sync::Arc};

use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one run of a worker on a queue. One that was taken for dead and lives goes on under another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    pub(super) fn fresh() -> Self {
        let chance: u128 = rand::rng().random();
        Self(format!("{}{chance:032x}", Uuid::now_v7().simple()).into())
    }

    /// One that is found in the keys of a queue.
    pub(super) fn of(token: String) -> Self {
        Self(token.into())
    }

    /// As the keys of the queue have it.
    pub(super) fn token(&self) -> &Arc<str> {
        &self.0
    }

    /// 64 hexadecimal digits: so many that Redis does not keep the executions of a queue as a list, which it would
    /// search through from the front for each of them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a worker tells about itself with each beat: the JSON in the hash `about` under its token. A field that is
/// added later is no reason not to read it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// Of seawall.
    pub(crate) version: String,
    pub(crate) queues: Vec<Share>,
    /// How many jobs it executes at once.
    pub(crate) concurrency: usize,
    /// How many it executes now, of all its queues.
    pub(crate) in_flight: usize,
    /// Milliseconds since 1970, by the worker's own clock.
    pub(crate) started_at: u64,
    /// When it told this.
    pub(crate) beat_at: u64,
    pub(crate) counters: Counters,
}

/// One of its queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Share {
    pub(crate) name: String,
    pub(crate) weight: u32,
}

/// Since it was started, over all its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    pub(crate) started: u64,
    pub(crate) succeeded: u64,
    pub(crate) retried: u64,
    pub(crate) dead: u64,
    pub(crate) expired: u64,
    pub(crate) discarded: u64,
    pub(crate) released: u64,
    pub(crate) lost: u64,
    pub(crate) claimed: u64,
    pub(crate) kept: u64,
}

/// The name of this machine, as the system has it.
pub(super) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_tells_is_read_as_far_as_it_is_known() {
        let told = r#"{"host":"a","pid":7,"colour":"blue","counters":{"started":3}}"#;
        let about: About = serde_json::from_str(told).expect("it is read");
        assert_eq!((about.pid, about.counters.started), (7, 3));
        assert_eq!(about.queues, []);
    }

    #[test]
    fn an_id_is_64_digits() {
        let id = WorkerId::fresh();
        assert_eq!(id.as_str().len(), 64);
        assert_ne!(id, WorkerId::fresh());
        assert!(!host().is_empty());
    }
}

//! What happened when: the state of Redis and of the breaker, the counters, and the events.
//!
//! All numbers are read from the Prometheus registry, as a dashboard would see them.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use prometheus::{Registry, proto::MetricFamily};
use seawall::{Seawall, breaker::State};
use tokio::time::Instant;

use crate::screen::grouped;

pub(crate) struct Timeline {
    registry: Registry,
    jobs: u64,
    begun: Instant,
    told: Mutex<Told>,
}

/// What has been seen so far.
#[derive(Debug)]
pub(crate) struct Told {
    redis: Redis,
    breaker: State,
    spooling: Option<Sample>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) what: String,
}

/// One look at everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) redis: Redis,
    pub(crate) breaker: State,
    pub(crate) counts: Counts,
    /// Jobs on disk.
    pub(crate) depth: u64,
}

/// Jobs, since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Whose receipt said: in Redis.
    pub(crate) direct: u64,
    /// Whose receipt said: on disk.
    pub(crate) spooled: u64,
    pub(crate) refused: u64,
    /// From disk to Redis.
    pub(crate) replayed: u64,
}

/// In which state the faults have put Redis, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Redis {
    Up,
    Starting,
    Frozen,
    Killed,
}

impl Redis {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Frozen => "frozen",
            Self::Killed => "killed",
        }
    }
}

impl Timeline {
    /// It begins now.
    pub(crate) fn new(registry: Registry, jobs: u64) -> Self {
        Self {
            registry,
            jobs,
            begun: Instant::now(),
            told: Mutex::new(Told {
                redis: Redis::Up,
                breaker: State::Closed,
                spooling: None,
                samples: Vec::new(),
                events: Vec::new(),
            }),
        }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn jobs(&self) -> u64 {
        self.jobs
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }

    pub(crate) fn tell(&self, what: impl Into<String>) {
        self.told.lock().tell(self.begun.elapsed(), what.into());
    }

    pub(crate) fn redis_is(&self, state: Redis, what: &str) {
        self.told.lock().redis = state;
        self.tell(what);
    }

    /// Looks at everything, and notes what has changed.
    pub(crate) fn look(&self, seawall: &Seawall) {
        let families = self.registry.gather();
        let enqueued = |receipt| sum(&families, "seawall_enqueued_total", receipt);
        let counts = Counts {
            direct: enqueued("delivered"),
            spooled: enqueued("spooled"),
            refused: enqueued("refused"),
            replayed: sum(&families, "seawall_spool_replayed_total", ""),
        };
        let depth = sum(&families, "seawall_spool_records", "waiting");
        let health = seawall.health();
        let mut told = self.told.lock();
        let sample = Sample {
            at: self.begun.elapsed(),
            redis: told.redis,
            breaker: health.breaker,
            counts,
            depth,
        };
        told.note(sample);
        told.samples.push(sample);
    }

    /// The whole story in figures.
    pub(crate) fn summary(&self) -> String {
        let families = self.registry.gather();
        let total = |name| sum(&families, name, "");
        let rows = [
            (
                "direct",
                sum(&families, "seawall_enqueued_total", "delivered"),
                "jobs that went straight to Redis",
            ),
            (
                "replayed",
                total("seawall_spool_replayed_total"),
                "jobs that went to disk, and from there to Redis",
            ),
            (
                "recognised",
                total("seawall_duplicates_suppressed_total"),
                "jobs sent again for want of a reply, that had arrived",
            ),
            (
                "outages",
                total("seawall_outages_total"),
                "times that the breaker opened",
            ),
            (
                "refused",
                total("seawall_breaker_refused_total"),
                "requests that it spared a dead Redis",
            ),
        ];
        rows.map(|(name, count, meaning)| format!("{name:<12}  {count:>7}  {meaning}"))
            .join("\n")
    }
}

impl Told {
    fn tell(&mut self, at: Duration, what: String) {
        self.events.push(Event { at, what });
    }

    fn note(&mut self, sample: Sample) {
        if self.breaker != sample.breaker {
            self.breaker = sample.breaker;
            self.tell(sample.at, format!("breaker {}", word(sample.breaker)));
        }
        match (self.spooling, sample.depth) {
            (None, 1..) => {
                self.spooling = Some(sample);
                self.tell(sample.at, "jobs go to disk".into());
            }
            (Some(since), 0) => {
                self.spooling = None;
                let replayed = sample.counts.replayed - since.counts.replayed;
                let what = format!(
                    "disk drained: {} jobs replayed in order, {:.1} s after the first was spooled",
                    grouped(replayed),
                    (sample.at - since.at).as_secs_f64(),
                );
                self.tell(sample.at, what);
            }
            _ => {}
        }
    }
}

pub(crate) fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
        _ => "overridden",
    }
}

/// Adds up a family's metrics, those with this label value if it is not empty.
fn sum(families: &[MetricFamily], name: &str, label: &str) -> u64 {
    families
        .iter()
        .filter(|family| family.name() == name)
        .flat_map(MetricFamily::get_metric)
        .filter(|metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        })
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum::<f64>() as u64
}

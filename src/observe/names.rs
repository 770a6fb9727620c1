//! The metrics of each call's name, resolved at its first call.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter};

use crate::{classify::Class, error::Error, metrics::CallMetrics};

/// The handles of one call's name.
#[derive(Debug)]
pub(super) struct Named {
    name: &'static str,
    ok: IntCounter,
    permanent: IntCounter,
    transient: IntCounter,
    outage: IntCounter,
    refused: IntCounter,
    cancelled: IntCounter,
    seconds: Histogram,
}

impl Named {
    fn new(name: &'static str, metrics: &CallMetrics) -> Self {
        let total = |outcome| metrics.total.with_label_values(&[name, outcome]);
        Self {
            name,
            ok: total("ok"),
            permanent: total("permanent"),
            transient: total("transient"),
            outage: total("outage"),
            refused: total("refused"),
            cancelled: total("cancelled"),
            seconds: metrics.seconds.with_label_values(&[name]),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn answered<T>(&self, result: &Result<T, Error>, after: Duration) {
        let outcome = match result {
            Ok(_) => &self.ok,
            Err(error) if error.is_breaker_open() => return self.refused.inc(),
            Err(error) => match error.verdict().class {
                Class::Permanent => &self.permanent,
                Class::Transient => &self.transient,
                Class::Outage => &self.outage,
            },
        };
        outcome.inc();
        self.seconds.observe(after.as_secs_f64());
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.inc();
    }
}

/// All names seen so far: read at each call, written at the first of each name.
#[derive(Debug, Default)]
pub(super) struct Names {
    metrics: CallMetrics,
    /// Sorted by [`address`].
    known: ArcSwap<Vec<Arc<Named>>>,
}

impl Names {
    pub(super) fn new(metrics: CallMetrics) -> Self {
        Self {
            metrics,
            known: ArcSwap::default(),
        }
    }

    pub(super) fn of(&self, name: &'static str) -> Arc<Named> {
        let known = self.known.load();
        match find(&known, name) {
            Ok(at) => known[at].clone(),
            Err(_) => self.learn(name),
        }
    }

    #[cold]
    fn learn(&self, name: &'static str) -> Arc<Named> {
        let named = Arc::new(Named::new(name, &self.metrics));
        self.known.rcu(|known| {
            let mut known = Vec::clone(known);
            // Somebody else may have learnt it meanwhile: both count in the same metrics.
            if let Err(at) = find(&known, name) {
                known.insert(at, named.clone());
            }
            known
        });
        named
    }
}

fn find(known: &[Arc<Named>], name: &'static str) -> Result<usize, usize> {
    known.binary_search_by_key(&address(name), |named| address(named.name))
}

/// A constant is told by where it is, which is cheaper than by what it says. Equal names in two
/// places have two entries and one set of metrics.
fn address(name: &'static str) -> (usize, usize) {
    (name.as_ptr() as usize, name.len())
}

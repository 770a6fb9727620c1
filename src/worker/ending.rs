//! The worker's end: this part of [`Dispatcher`].

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::{WorkerReport, dispatch::Dispatcher, source::Source};
use crate::job::task::{Execution, Operation};

impl Dispatcher {
    /// Lets executions end within the time there is, gives the others back, waits for what has been decided to be
    /// kept, and says that the worker works no more.
    pub(super) async fn end(&mut self) -> WorkerReport {
        self.sources.iter_mut().for_each(Source::stop_waiting);
        // Those that wait for a slot are given back now.
        self.slots.close();
        let until = Instant::now() + self.shutdown_within;
        while self.in_flight() > 0 && Instant::now() < until {
            self.step(false, Some(until)).await;
        }
        self.give_back().await;
        let until = Instant::now() + FOR_RECEIPTS;
        while self.has_loose_ends() && Instant::now() < until {
            self.step(false, Some(until)).await;
        }
        let leaving = self.sources.iter_mut().filter_map(Source::leave);
        // Whoever cannot be told learns it when the lease is over.
        let _ = timeout(FOR_RECEIPTS, join_all(leaving.collect::<Vec<_>>())).await;
        self.report()
    }

    fn has_loose_ends(&self) -> bool {
        self.unsettled() > 0 || !self.sources.iter().all(Source::is_quiet)
    }

    async fn give_back(&mut self) {
        for source in &self.sources {
            for running in source.running.values() {
                running.delivery.cancellation().cancel();
            }
        }
        let until = Instant::now() + FOR_HANDLERS;
        while self.in_flight() > 0 && Instant::now() < until {
            self.step(false, Some(until)).await;
        }
        // Those do not come to an await. Nobody waits for them any longer.
        for at in 0..self.sources.len() {
            let stuck: Vec<_> = self.sources[at].running.drain().collect();
            self.sources[at].metrics.in_flight.sub(stuck.len() as i64);
            for (id, running) in stuck {
                let execution = Execution {
                    id,
                    attempt: running.delivery.attempt(),
                    token: running.token,
                    enqueued_ms: running.delivery.record().enqueued_ms,
                };
                self.conclude(at, Operation::GiveBack { execution }, None);
            }
        }
    }

    fn report(&self) -> WorkerReport {
        let lost = self.unsettled() as u64;
        if lost > 0 {
            tracing::error!(
                lost,
                "the worker ends with completions that could not be kept"
            );
        }
        let counters = self.counters;
        let kept = self.sources.iter().map(|source| source.settling.kept());
        WorkerReport {
            started: counters.started,
            succeeded: counters.succeeded,
            retried: counters.retried,
            dead: counters.dead,
            expired: counters.expired,
            discarded: counters.discarded,
            released: counters.released,
            lost: counters.lost,
            claimed: counters.claimed,
            completions_kept: kept.sum(),
            completions_lost: lost,
        }
    }
}

/// For handlers that have been cancelled to come to an await.
const FOR_HANDLERS: Duration = Duration::from_secs(1);

/// For what has been decided to be in Redis or on disk.
const FOR_RECEIPTS: Duration = Duration::from_secs(2);

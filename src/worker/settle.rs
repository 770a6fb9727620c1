//! Sees to it that what has been decided about a job is in Redis or on disk: [`Settling`].

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use rand::Rng;
use tokio::time::Instant;
use tower::Service;

use super::wait;
use crate::{
    error::{Error, ErrorKind},
    job::{JobId, task::Operation},
    metrics::WorkerQueueMetrics,
    sequence::Write,
    spool::{Place, Receipt, Spooling, future::ResponseFuture},
};

/// The completions of one queue.
///
/// They are handed to the spool in their order, and their receipts come in that order. What the spool does not take
/// is kept here, and handed in again for as long as the worker runs.
pub(super) struct Settling {
    queue: Arc<str>,
    spool: Spooling<Write>,
    metrics: WorkerQueueMetrics,
    waiting: VecDeque<Waiting>,
    refused: VecDeque<Operation>,
    /// When to hand in what was refused.
    again: Option<Instant>,
    failures: u32,
    /// The last ones that are settled, the oldest first.
    settled: VecDeque<Operation>,
    remembers: usize,
    kept: u64,
}

/// A completion whose receipt is to come.
struct Waiting {
    receipt: ResponseFuture<Write>,
    operation: Operation,
    /// It has had a receipt before.
    again: bool,
}

impl Settling {
    /// Remembers the last `remembers` completions.
    pub(super) fn new(
        queue: Arc<str>,
        spool: Spooling<Write>,
        metrics: WorkerQueueMetrics,
        remembers: usize,
    ) -> Self {
        Self {
            queue,
            spool,
            metrics,
            waiting: VecDeque::new(),
            refused: VecDeque::new(),
            again: None,
            failures: 0,
            settled: VecDeque::new(),
            remembers,
            kept: 0,
        }
    }

    /// Hands it to the spool.
    pub(super) fn hand_in(&mut self, operation: Operation) {
        self.wait_for(operation, false);
    }

    /// Hands in once more what Redis does not have: it is on its way, on disk, or was lost in a failover, or has come
    /// before the job itself was given back after one.
    ///
    /// If it comes twice, the second one changes nothing.
    pub(super) fn hand_in_again(&mut self, operation: Operation) {
        self.wait_for(operation, true);
    }

    fn wait_for(&mut self, operation: Operation, again: bool) {
        let write = operation.to_write(self.queue.clone());
        self.waiting.push_back(Waiting {
            receipt: self.spool.call(write),
            operation,
            again,
        });
        self.metrics.unsettled.inc();
    }

    /// How many are neither in Redis nor on disk yet.
    pub(super) fn unsettled(&self) -> usize {
        self.waiting.len() + self.refused.len()
    }

    /// How many went to disk.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether what was handed in last has been refused, and nothing has been taken since.
    pub(super) fn is_refused(&self) -> bool {
        self.failures > 0
    }

    /// When something is to be done that no receipt will call for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Takes the receipts that are there, and hands in again what is due; whether anything has been settled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Some(first) = self.waiting.front_mut() {
            let Poll::Ready(receipt) = Pin::new(&mut first.receipt).poll(cx) else {
                break;
            };
            if let Some(settled) = self.waiting.pop_front() {
                self.settle(settled, receipt, now);
                any = true;
            }
        }
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            for operation in std::mem::take(&mut self.refused) {
                self.metrics.unsettled.dec();
                self.hand_in(operation);
            }
            // Their receipts want to be polled.
            cx.waker().wake_by_ref();
        }
        any
    }

    fn settle(&mut self, settled: Waiting, receipt: Result<Receipt, Error>, now: Instant) {
        let Waiting {
            operation, again, ..
        } = settled;
        match receipt {
            Ok(receipt) if receipt.place() != Place::Dropped => {
                if receipt.is_spooled() && !again {
                    self.kept += 1;
                    self.metrics.kept.inc();
                }
                if self.failures > 0 {
                    self.failures = 0;
                    tracing::info!(queue = &*self.queue, "completions are taken again");
                }
                self.metrics.unsettled.dec();
                self.remember(operation);
            }
            Ok(_) => self.refuse(operation, "the spool has no room", now),
            Err(error) => {
                let operation = shortened(operation, &error);
                self.refuse(operation, &error.reason(), now);
            }
        }
    }

    fn refuse(&mut self, operation: Operation, reason: &str, now: Instant) {
        if self.again.is_none() {
            if self.failures == 0 {
                tracing::error!(
                    queue = &*self.queue,
                    reason,
                    "completions are refused: they are kept in memory and tried again"
                );
            }
            self.failures += 1;
            let sample = rand::rng().random();
            self.again = Some(now + wait::after_failures(self.failures, None, sample));
        }
        self.refused.push_back(operation);
    }

    fn remember(&mut self, operation: Operation) {
        if matches!(operation, Operation::GiveBack { .. }) {
            // The same attempt may come again, and is to be made then.
            return;
        }
        if self.settled.len() >= self.remembers {
            self.settled.pop_front();
        }
        self.settled.push_back(operation);
    }

    /// What has been decided here about these executions, if anything: for those that Redis takes for running, and
    /// nobody here executes. It is said by the worker's present `token`, as Redis takes it for that one's.
    pub(super) fn decided(&self, executions: &[Key], token: &Arc<str>) -> Vec<Option<Operation>> {
        self.decided_by(executions, |key| key, token)
    }

    /// As [`decided`](Self::decided), of executions of which it is not known when their jobs were enqueued.
    pub(super) fn decided_by_attempt(
        &self,
        executions: &[(JobId, u32)],
        token: &Arc<str>,
    ) -> Vec<Option<Operation>> {
        self.decided_by(executions, |(id, attempt, _)| (id, attempt), token)
    }

    /// `part` is what is known of their keys.
    fn decided_by<K: Eq + Hash>(
        &self,
        executions: &[K],
        part: impl Fn(Key) -> K,
        token: &Arc<str>,
    ) -> Vec<Option<Operation>> {
        if executions.is_empty() {
            return Vec::new();
        }
        let all: HashMap<_, _> = self
            .remembered()
            .filter_map(|operation| Some((part(key(operation)?), operation)))
            .collect();
        let decided = executions.iter().map(|execution| all.get(execution));
        decided
            .map(|decided| Some((*decided?).clone().said_by(token.clone())))
            .collect()
    }

    /// The latest last.
    fn remembered(&self) -> impl Iterator<Item = &Operation> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.operation);
        self.settled.iter().chain(waiting).chain(&self.refused)
    }
}

/// A result or a history that the spool has no room for must not keep the job from going on.
fn shortened(mut operation: Operation, error: &Error) -> Operation {
    if error.kind() != ErrorKind::Invalid {
        return operation;
    }
    match &mut operation {
        Operation::End { result, .. } => *result = Bytes::new(),
        Operation::Retry { failures, .. } | Operation::Bury { failures, .. } => {
            // The first line has the counts.
            let counts = failures.iter().position(|byte| *byte == b'\n');
            failures.truncate(counts.unwrap_or(0));
        }
        Operation::GiveBack { .. } => {}
    }
    operation
}

/// What tells executions by one worker apart: the job, its attempt, and when the job was enqueued.
pub(super) type Key = (JobId, u32, u64);

/// The execution that has been decided about; none if it was given back, since it may have begun anew here.
fn key(operation: &Operation) -> Option<Key> {
    if let Operation::GiveBack { .. } = operation {
        return None;
    }
    let execution = operation.execution();
    Some((execution.id, execution.attempt, execution.enqueued_ms))
}

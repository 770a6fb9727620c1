//! Where executions begin and end: this part of [`Dispatcher`].

use rand::Rng;
use tokio::time::Instant;

use super::{
    Delivery, Failure, Output, TaskError,
    conclude::{Case, Fate},
    decision::DeadReason,
    delivery::Parts,
    dispatch::Dispatcher,
    execute::{Ended, Finished, Slot, Ticket, execute},
    source::{Arrival, Running},
    turn::Taken,
    weights::progress,
};
use crate::job::task::{Execution, Operation, Record};

impl Dispatcher {
    /// Acts on what a turn of the queue at place `at` has brought.
    pub(super) fn arrived(&mut self, at: usize, arrival: Arrival, now: Instant, working: bool) {
        let source = &mut self.sources[at];
        source.pass = source
            .pass
            .saturating_add(progress(arrival.jobs.len(), source.weight));
        let lost = arrival.lost.len() as u64;
        self.counters.lost += lost;
        source.metrics.lost.inc_by(lost);
        source.metrics.leases_lost.inc_by(lost);
        for running in arrival.lost {
            source.metrics.in_flight.dec();
            running.delivery.cancellation().cancel();
        }
        for job in arrival.abandoned {
            if job.has_come() {
                self.abandoned(at, &job, now);
            } else {
                self.release(at, &job);
            }
        }
        for job in arrival.jobs {
            if working && job.has_come() && self.jobs.len() < self.room() {
                self.start(at, job, now);
            } else {
                // The answer that had it was lost, and its slot has gone to another job.
                self.release(at, &job);
            }
        }
        for execution in arrival.strays {
            self.conclude(at, Operation::GiveBack { execution }, None);
        }
    }

    /// Executes a job, unless its time has passed.
    fn start(&mut self, at: usize, job: Taken, now: Instant) {
        let source = &mut self.sources[at];
        let now_ms = source.now_ms(now);
        let execution = execution(&job, source.id().token());
        let alone = job.is_alone();
        let earlier = TaskError::parse(&job.failures);
        let record = match Record::decode(job.record) {
            Ok(record) => record,
            Err(error) => {
                let failure = Failure::new("unreadable_job", error.to_string()).permanently();
                let case = Case {
                    execution,
                    record: None,
                    earlier,
                    started_ms: now_ms,
                    now_ms,
                    now,
                    sample: 0.0,
                };
                let (operation, fate) = self.judge.failed(case, &failure, None);
                return self.conclude(at, operation, Some(fate));
            }
        };
        if record.expires_ms != 0 && record.expires_ms <= now_ms {
            self.counters.expired += 1;
            source.metrics.expired.inc();
            source
                .settling
                .hand_in(self.judge.expired(execution, &record));
            return;
        }
        self.numbered += 1;
        self.counters.started += 1;
        self.judge.pace.started(now);
        source.metrics.started.inc();
        source.metrics.in_flight.inc();
        if job.attempt == 1 {
            let due = record.enqueued_ms.max(record.due_ms);
            let queued = now_ms.saturating_sub(due) as f64 / 1000.0;
            source.metrics.queued_seconds.observe(queued);
        }
        let ticket = Ticket {
            source: at,
            number: self.numbered,
            id: job.id,
        };
        let limit = record.handling.timeout().unwrap_or(self.timeout);
        let delivery = Delivery::new(Parts {
            id: job.id,
            queue: source.queue.clone(),
            attempt: job.attempt,
            retries_left: self
                .judge
                .retries_left(&record, job.attempt, earlier.as_ref()),
            keeps_result: self.judge.keeps_result(&record),
            record,
            error: earlier,
            extensions: self.extensions.clone(),
        });
        let running = Running {
            number: ticket.number,
            token: execution.token,
            started_ms: now_ms,
            delivery: delivery.clone(),
        };
        if let Some(before) = source.running.insert(job.id, running) {
            // A failover has lost that it was running here, and it has been given up since.
            before.delivery.cancellation().cancel();
            source.metrics.in_flight.dec();
        }
        if alone {
            self.alone = Some(ticket.number);
        }
        let handling = self.handler.handle(delivery.clone());
        let slot = Slot::next_of(&self.slots);
        self.jobs
            .spawn(execute(ticket, delivery, slot, handling, limit));
    }

    /// Decides what becomes of a job whose execution has ended, if that is still up to this worker.
    pub(super) fn finished(&mut self, finished: Finished, now: Instant) {
        let Ticket { source, number, id } = finished.ticket;
        if self.alone == Some(number) {
            self.alone = None;
        }
        let at = source;
        let source = &mut self.sources[at];
        let current = source.running.get(&id);
        if current.is_none_or(|running| running.number != number) {
            return;
        }
        let Some(running) = source.running.remove(&id) else {
            return;
        };
        source.metrics.in_flight.dec();
        let seconds = finished.took.as_secs_f64();
        source.metrics.running_seconds.observe(seconds);
        let delivery = &running.delivery;
        let execution = Execution {
            id,
            attempt: delivery.attempt(),
            token: running.token,
            enqueued_ms: delivery.record().enqueued_ms,
        };
        let case = Case {
            execution,
            record: Some(delivery.record()),
            earlier: None,
            started_ms: running.started_ms,
            now_ms: source.now_ms(now),
            now,
            sample: 0.0,
        };
        match finished.ended {
            Ended::Succeeded(output) => {
                self.counters.succeeded += 1;
                source.metrics.succeeded.inc();
                let output = bounded(output, &source.queue);
                let operation = self.judge.succeeded(case, output);
                source.settling.hand_in(operation);
            }
            Ended::Failed(failure) => {
                let case = Case {
                    earlier: delivery.error().cloned(),
                    sample: rand::rng().random(),
                    ..case
                };
                let (operation, fate) = self.judge.failed(case, &failure, None);
                self.conclude(at, operation, Some(fate));
            }
            Ended::Cancelled => {
                let execution = case.execution;
                self.conclude(at, Operation::GiveBack { execution }, None);
            }
        }
    }

    /// The worker that had it has died in it.
    fn abandoned(&mut self, at: usize, job: &Taken, now: Instant) {
        let source = &mut self.sources[at];
        self.counters.claimed += 1;
        source.metrics.claimed.inc();
        let record = Record::decode(job.record.clone()).ok();
        let now_ms = source.now_ms(now);
        let case = Case {
            execution: execution(job, source.id().token()),
            record: record.as_ref(),
            earlier: TaskError::parse(&job.failures),
            started_ms: now_ms,
            now_ms,
            now,
            sample: rand::rng().random(),
        };
        let died = job.before();
        let failure = Failure::worker_died();
        let (operation, fate) = self.judge.failed(case, &failure, Some(&died));
        self.conclude(at, operation, Some(fate));
    }

    /// Gives a job back that has not been started.
    fn release(&mut self, at: usize, job: &Taken) {
        let token = self.sources[at].id().token();
        let execution = execution(job, token);
        self.conclude(at, Operation::GiveBack { execution }, None);
    }

    /// Counts what has been decided of a job that has not succeeded, and sees to it; `None` gives it back.
    pub(super) fn conclude(&mut self, at: usize, operation: Operation, fate: Option<Fate>) {
        let source = &mut self.sources[at];
        let (counters, metrics) = (&mut self.counters, &source.metrics);
        let (counter, metric) = match fate {
            Some(Fate::Retried { put_off }) => {
                metrics.put_off.inc_by(put_off.into());
                (&mut counters.retried, &metrics.retried)
            }
            Some(Fate::Dead(reason)) => {
                let by_reason = match reason {
                    DeadReason::Exhausted => &metrics.exhausted,
                    DeadReason::Permanent => &metrics.permanent,
                    DeadReason::Ignored => &metrics.ignored,
                    DeadReason::TooLate => &metrics.too_late,
                    DeadReason::Poison => &metrics.poison,
                };
                by_reason.inc();
                (&mut counters.dead, &metrics.dead)
            }
            Some(Fate::Discarded) => (&mut counters.discarded, &metrics.discarded),
            None => (&mut counters.released, &metrics.released),
        };
        *counter += 1;
        metric.inc();
        source.settling.hand_in(operation);
    }
}

fn execution(job: &Taken, token: &std::sync::Arc<str>) -> Execution {
    Execution {
        id: job.id,
        attempt: job.attempt,
        token: token.clone(),
        enqueued_ms: Record::enqueued(&job.record),
    }
}

/// The job has done its work: a result that nobody has room for is no reason to do it again.
fn bounded(output: Output, queue: &str) -> Output {
    if output.len() <= LARGEST_RESULT {
        return output;
    }
    tracing::warn!(
        queue,
        bytes = output.len(),
        "a result is too large to be kept"
    );
    Output::default()
}

/// 64 KiB.
const LARGEST_RESULT: usize = 64 * 1024;

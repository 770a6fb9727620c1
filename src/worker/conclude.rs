//! From how an execution ended to what is written about its job: [`Judge`]. No clock and no dice.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Failure, Output, TaskError,
    budget::Pace,
    decision::{DeadReason, Decision, Failed, Rules},
    task_error::FailedAttempt,
};
use crate::job::task::{Due, Execution, Handling, Operation, Outcome, Record, millis_in};

/// What a worker does about the jobs that its handler is done with.
pub(super) struct Judge {
    pub(super) rules: Rules,
    pub(super) pace: Pace,
    pub(super) result_ttl: Duration,
    pub(super) failure_ttl: Duration,
    pub(super) dead_letters: u64,
}

/// An execution that has ended.
pub(super) struct Case<'a> {
    pub(super) execution: Execution,
    pub(super) record: Option<&'a Record>,
    pub(super) earlier: Option<TaskError>,
    /// By the clock of Redis, in milliseconds since 1970.
    pub(super) started_ms: u64,
    pub(super) now_ms: u64,
    pub(super) now: Instant,
    /// One draw from 0 to 1.
    pub(super) sample: f64,
}

/// What becomes of a job that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Retried { put_off: bool },
    Dead(DeadReason),
    Discarded,
}

impl Judge {
    pub(super) fn succeeded(&self, case: Case<'_>, output: Output) -> Operation {
        let ttl = self.result_ttl(case.record);
        let result = if ttl.is_zero() {
            Bytes::new()
        } else {
            output.into_bytes()
        };
        end(case.execution, Outcome::Succeeded, ttl, result)
    }

    pub(super) fn expired(&self, execution: Execution, record: &Record) -> Operation {
        let ttl = self.result_ttl(Some(record));
        end(execution, Outcome::Expired, ttl, Bytes::new())
    }

    /// `died` names the worker if it died in it.
    pub(super) fn failed(
        &self,
        case: Case<'_>,
        failure: &Failure,
        died: Option<&str>,
    ) -> (Operation, Fate) {
        let Case {
            execution,
            record,
            earlier,
            started_ms,
            now_ms,
            now,
            sample,
        } = case;
        let worker = died.unwrap_or(&execution.token);
        let attempt = FailedAttempt::new(execution.attempt, failure, started_ms, now_ms, worker);
        let error = TaskError::after(earlier, attempt, died.is_some());
        let failed = Failed {
            failure,
            // A requeued job has all its retries anew.
            attempt: execution
                .attempt
                .saturating_sub(error.attempts_before_requeue()),
            deaths: died.map(|_| error.deaths()),
            age: record.map_or(Duration::ZERO, |record| age(record, &error, now_ms)),
        };
        let own = record.and_then(|record| record.handling.retries());
        let retry = |execution, error: &TaskError, due, put_off| {
            let failures = error.to_stored().into();
            let operation = Operation::Retry {
                execution,
                due,
                failures,
            };
            (operation, Fate::Retried { put_off })
        };
        match self.rules.decide(own, &failed, sample) {
            Decision::Retry(delay) => {
                let turn = self.pace.turn(now, delay);
                let due_ms = now_ms.saturating_add(millis_in(turn.after));
                retry(execution, &error, Due::At(due_ms), !turn.put_off.is_zero())
            }
            Decision::Again { alone } => {
                let due = if alone { Due::Alone } else { Due::Now };
                retry(execution, &error, due, false)
            }
            Decision::Bury(reason) => {
                let ttl = own_or(record, Handling::failure_ttl, self.failure_ttl);
                let operation = if ttl.is_zero() {
                    end(execution, Outcome::Discarded, Duration::ZERO, Bytes::new())
                } else {
                    Operation::Bury {
                        execution,
                        expires_ms: now_ms.saturating_add(millis_in(ttl)),
                        most: self.dead_letters,
                        failures: error.with_reason(reason).to_stored().into(),
                    }
                };
                (operation, Fate::Dead(reason))
            }
            Decision::Discard => {
                let ttl = self.result_ttl(record);
                let operation = end(execution, Outcome::Discarded, ttl, Bytes::new());
                (operation, Fate::Discarded)
            }
        }
    }

    /// How many retries a job has left that is executed for this time.
    pub(super) fn retries_left(
        &self,
        record: &Record,
        attempt: u32,
        earlier: Option<&TaskError>,
    ) -> u32 {
        let retries = record.handling.retries().unwrap_or(&self.rules.retries);
        let before = earlier.map_or(0, TaskError::attempts_before_requeue);
        retries
            .max()
            .saturating_sub(attempt.saturating_sub(before + 1))
    }

    pub(super) fn keeps_result(&self, record: &Record) -> bool {
        !self.result_ttl(Some(record)).is_zero()
    }

    fn result_ttl(&self, record: Option<&Record>) -> Duration {
        own_or(record, Handling::result_ttl, self.result_ttl)
    }
}

fn own_or(
    record: Option<&Record>,
    own: impl Fn(&Handling) -> Option<Duration>,
    default: Duration,
) -> Duration {
    let own = record.and_then(|record| own(&record.handling));
    own.unwrap_or(default)
}

/// Since it was first to be executed, or was requeued.
fn age(record: &Record, error: &TaskError, now_ms: u64) -> Duration {
    let since = record.enqueued_ms.max(record.due_ms);
    let since = since.max(error.requeued_ms().unwrap_or(0));
    Duration::from_millis(now_ms.saturating_sub(since))
}

fn end(execution: Execution, outcome: Outcome, ttl: Duration, result: Bytes) -> Operation {
    Operation::End {
        execution,
        outcome,
        ttl_ms: millis_in(ttl),
        result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{JobId, Retries},
        retry::RetryBudget,
    };

    fn judge(budget: RetryBudget) -> Judge {
        Judge {
            rules: Rules {
                retries: Retries::fixed(Duration::from_secs(5)).with_jitter(0.0),
                retry_if: None,
                never_if: None,
                poison_after: 2,
            },
            pace: Pace::new(budget),
            result_ttl: Duration::ZERO,
            failure_ttl: Duration::from_secs(60),
            dead_letters: 10,
        }
    }

    fn record(handling: Handling) -> Record {
        Record {
            enqueued_ms: 1_000,
            due_ms: 0,
            expires_ms: 0,
            handling,
            headers: vec![],
            payload: "x".into(),
        }
    }

    fn case(record: &Record, attempt: u32) -> Case<'_> {
        Case {
            execution: Execution {
                id: JobId::from_bytes([1; 16]),
                attempt,
                token: "me".into(),
                enqueued_ms: 0,
            },
            record: Some(record),
            earlier: None,
            started_ms: 10_000,
            now_ms: 20_000,
            now: Instant::now(),
            sample: 0.5,
        }
    }

    #[test]
    fn a_result_is_kept_only_if_somebody_wants_it() {
        let judge = judge(RetryBudget::default());
        let output = || Output::json(&7);
        let kept = |handling| {
            let record = record(handling);
            match judge.succeeded(case(&record, 1), output()) {
                Operation::End { ttl_ms, result, .. } => (ttl_ms, result),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(kept(Handling::new()), (0, Bytes::new()));
        let asked = Handling::new().with_result_ttl(Duration::from_secs(3));
        assert_eq!(kept(asked), (3_000, "7".into()));
    }

    #[test]
    fn a_retry_is_due_by_the_clock_of_redis_and_by_the_budget() {
        let judge = judge(RetryBudget::new(0.1, 1).expect("a budget").with_burst(1));
        let record = record(Handling::new());
        let failure = Failure::new("flaky", "again");
        let due = || match judge.failed(case(&record, 1), &failure, None) {
            (
                Operation::Retry {
                    due: Due::At(ms), ..
                },
                fate,
            ) => (ms, fate),
            other => panic!("{other:?}"),
        };
        assert_eq!(due(), (25_000, Fate::Retried { put_off: false }));
        let put_off = Fate::Retried { put_off: true };
        assert!((0..50).any(|_| due().1 == put_off && due().0 > 25_000));
    }

    #[test]
    fn a_dead_letter_that_nobody_wants_to_keep_is_no_dead_letter() {
        let judge = judge(RetryBudget::default());
        let failure = Failure::new("wrong", "for ever").permanently();
        let buried = |handling| {
            let record = record(handling);
            judge.failed(case(&record, 1), &failure, None)
        };
        let (operation, fate) = buried(Handling::new());
        assert_eq!(fate, Fate::Dead(DeadReason::Permanent));
        assert!(matches!(
            operation,
            Operation::Bury {
                expires_ms: 80_000,
                most: 10,
                ..
            }
        ));
        let (operation, _) = buried(Handling::new().with_failure_ttl(Duration::ZERO));
        assert!(matches!(operation, Operation::End { ttl_ms: 0, .. }));
    }

    #[test]
    fn a_job_whose_worker_died_is_due_at_once_until_too_many_have() {
        let judge = judge(RetryBudget::default());
        let record = record(Handling::new());
        let failure = Failure::worker_died();
        let (operation, _) = judge.failed(case(&record, 1), &failure, Some("other"));
        let Operation::Retry {
            // The next one would be the last.
            due: Due::Alone,
            failures,
            ..
        } = operation
        else {
            panic!("{operation:?}");
        };
        let earlier = TaskError::parse(&failures);
        assert_eq!(earlier.as_ref().map(TaskError::worker), Some("other"));
        let case = Case {
            earlier,
            ..case(&record, 2)
        };
        let (_, fate) = judge.failed(case, &failure, Some("other"));
        assert_eq!(fate, Fate::Dead(DeadReason::Poison));
    }

    #[test]
    fn a_job_that_was_requeued_has_all_its_retries_again() {
        let judge = judge(RetryBudget::default());
        let record = record(Handling::new());
        let failure = Failure::new("flaky", "again");
        let dead = TaskError::parse(b"4 0\n");
        let requeued = TaskError::requeued(dead.clone(), 19_000);
        let fate = |earlier| {
            let case = Case {
                earlier,
                ..case(&record, 5)
            };
            judge.failed(case, &failure, None).1
        };
        assert_eq!(fate(dead), Fate::Dead(DeadReason::Exhausted));
        let left = judge.retries_left(&record, 5, Some(&requeued));
        assert_eq!(left, 3);
        assert_eq!(fate(Some(requeued)), Fate::Retried { put_off: false });
    }
}

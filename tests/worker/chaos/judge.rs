//! Holds what workers have noted against what Redis says and against what was done to whom: [`judge`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::diary::{Ended, Execution};

/// Why a job may have been executed again although it had not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Its worker was killed in it, or before its end was known to Redis or the disk.
    Killed,
    /// Its worker was not heard of for longer than its lease: frozen, or cut off from Redis.
    LeaseTaken,
    /// A replica was promoted that did not know that the execution had begun, or had ended.
    FailedOver,
}

/// Something that was done to a worker, or to Redis, and when: in microseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) cause: Cause,
    /// All of them, if none is named.
    pub(super) worker: Option<String>,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What Redis says of the jobs.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) succeeded: BTreeSet<u64>,
    pub(super) dead: BTreeSet<u64>,
}

/// How many of what there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    pub(super) acknowledged: usize,
    pub(super) succeeded: usize,
    pub(super) dead: usize,
    pub(super) executions: usize,
    /// Executions after one that had failed.
    pub(super) retries: usize,
    /// Other executions that were not the first, by what allows them.
    pub(super) again: BTreeMap<Cause, usize>,
    /// What must not be: each with its history.
    pub(super) wrong: Vec<String>,
}

/// Balances the books of `acknowledged` jobs.
pub(super) fn judge(
    acknowledged: &BTreeSet<u64>,
    outcomes: &Outcomes,
    executions: &[Execution],
    deeds: &[Deed],
) -> Balance {
    let mut balance = Balance {
        acknowledged: acknowledged.len(),
        succeeded: outcomes.succeeded.len(),
        dead: outcomes.dead.len(),
        executions: executions.len(),
        ..Balance::default()
    };
    let mut of_job = BTreeMap::<u64, Vec<&Execution>>::new();
    for execution in executions {
        of_job.entry(execution.job).or_default().push(execution);
    }
    for history in of_job.values_mut() {
        history.sort_by_key(|execution| execution.began);
    }
    for job in acknowledged {
        let history = of_job.get(job).map(Vec::as_slice).unwrap_or_default();
        let complaint = wrong_end(*job, outcomes, history);
        for (at, execution) in history.iter().enumerate().skip(1) {
            let earlier = &history[..at];
            if follows_a_failure(earlier, execution) {
                balance.retries += 1;
            } else if let Some(cause) = explain(earlier, execution, deeds) {
                *balance.again.entry(cause).or_default() += 1;
            } else {
                let what = format!("job {job} was executed again for no reason: {history:#?}");
                balance.wrong.push(what);
            }
        }
        balance.wrong.extend(complaint);
    }
    let unknown = of_job.keys().filter(|job| !acknowledged.contains(job));
    let unknown = unknown.map(|job| format!("job {job} was executed, and never accepted"));
    balance.wrong.extend(unknown);
    balance
}

/// Each job either succeeded or is dead, and its executions say the same.
fn wrong_end(job: u64, outcomes: &Outcomes, history: &[&Execution]) -> Option<String> {
    let succeeded = outcomes.succeeded.contains(&job);
    let dead = outcomes.dead.contains(&job);
    let done = |execution: &&Execution| matches!(execution.ended, Some((_, Ended::Succeeded)));
    let what = match (succeeded, dead, history.iter().any(done)) {
        (false, false, _) => "is lost",
        (true, true, _) => "has succeeded and is dead",
        (true, false, false) => "has succeeded without having been done",
        (false, true, true) => "is dead although it was done",
        (true, false, true) | (false, true, false) => return None,
    };
    Some(format!("job {job} {what}: {history:#?}"))
}

fn follows_a_failure(earlier: &[&Execution], execution: &Execution) -> bool {
    let ended = |one: &&&Execution| match one.ended {
        Some((at, Ended::Failed)) => at <= execution.began,
        _ => false,
    };
    // One retry for each failure.
    let failures = earlier.iter().filter(ended).count();
    let last = earlier.last().filter(ended).is_some();
    failures > 0 && last
}

/// What allows this execution, given those before it: something that was done while one of them had not ended for
/// certain.
fn explain(earlier: &[&Execution], execution: &Execution, deeds: &[Deed]) -> Option<Cause> {
    let allows = |deed: &&Deed| {
        earlier.iter().any(|one| {
            let its_own = deed.worker.as_ref().is_none_or(|name| *name == one.worker);
            let settled = match one.ended {
                Some((at, Ended::Succeeded)) => at + SETTLED_AFTER < deed.from,
                _ => false,
            };
            its_own && !settled && one.began <= deed.to && deed.from <= execution.began
        })
    };
    // It was begun before in Redis, and its worker stood still before its handler began.
    let overtaken = earlier.iter().any(|one| one.attempt > execution.attempt);
    let was_late = |deed: &&Deed| {
        let its_own = deed.worker.as_ref() == Some(&execution.worker);
        let just_before =
            deed.from <= execution.began && execution.began <= deed.to + SETTLED_AFTER;
        overtaken && its_own && just_before
    };
    let causes = deeds.iter().filter(|deed| allows(deed) || was_late(deed));
    causes.map(|deed| deed.cause).min()
}

/// So long after its end an execution is known to Redis or the disk whatever happens, in microseconds.
const SETTLED_AFTER: u64 = 5_000_000;

impl Balance {
    /// Panics unless every job has ended, and every execution is explained.
    #[track_caller]
    pub(super) fn must_be_clean(&self, what: &str) {
        println!("{what}: {self}");
        assert!(self.wrong.is_empty(), "{what}: {}", self.wrong.join("\n"));
    }

    pub(super) fn again(&self, cause: Cause) -> usize {
        self.again.get(&cause).copied().unwrap_or_default()
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged={} succeeded={} dead={} lost={} executions={} retries={} again: killed={} lease_taken={} failed_over={} unexplained={}",
            self.acknowledged,
            self.succeeded,
            self.dead,
            self.acknowledged.saturating_sub(self.succeeded + self.dead),
            self.executions,
            self.retries,
            self.again(Cause::Killed),
            self.again(Cause::LeaseTaken),
            self.again(Cause::FailedOver),
            self.wrong.len(),
        )
    }
}

/// The judge itself: what it must not let pass.
mod tests {
    use super::*;

    fn execution(worker: &str, began: u64, ended: Option<(u64, Ended)>) -> Execution {
        Execution {
            worker: worker.to_owned(),
            job: 1,
            attempt: 1,
            began,
            ended,
        }
    }

    fn of(executions: &[Execution], succeeded: bool, deeds: &[Deed]) -> Balance {
        let mut outcomes = Outcomes::default();
        if succeeded {
            outcomes.succeeded.insert(1);
        }
        judge(&BTreeSet::from([1]), &outcomes, executions, deeds)
    }

    const DONE: Option<(u64, Ended)> = Some((20, Ended::Succeeded));

    #[test]
    fn a_lost_job_is_seen() {
        let balance = of(&[execution("a", 10, DONE)], false, &[]);
        assert!(balance.wrong[0].contains("lost"), "{balance}");
        assert!(of(&[execution("a", 10, DONE)], true, &[]).wrong.is_empty());
    }

    #[test]
    fn a_second_execution_needs_a_cause_in_its_own_worker_and_time() {
        let twice = [execution("a", 10, DONE), execution("b", 30, DONE)];
        let killed = |worker: &str, from| Deed {
            cause: Cause::Killed,
            worker: Some(worker.to_owned()),
            from,
            to: from + 1,
        };
        assert_eq!(of(&twice, true, &[]).wrong.len(), 1);
        assert_eq!(of(&twice, true, &[killed("b", 15)]).wrong.len(), 1);
        assert_eq!(of(&twice, true, &[killed("a", 5)]).wrong.len(), 1);
        assert_eq!(of(&twice, true, &[killed("a", 40)]).wrong.len(), 1);
        let balance = of(&twice, true, &[killed("a", 25)]);
        assert_eq!((balance.wrong.len(), balance.again(Cause::Killed)), (0, 1));
    }

    #[test]
    fn one_failure_allows_one_retry() {
        let failed = Some((20, Ended::Failed));
        let mut history = vec![execution("a", 10, failed), execution("a", 30, DONE)];
        assert_eq!(of(&history, true, &[]).retries, 1);
        history.push(execution("a", 50, DONE));
        assert_eq!(of(&history, true, &[]).wrong.len(), 1);
    }
}

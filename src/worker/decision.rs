//! What becomes of a job whose execution failed: [`Rules::decide`], which knows no clock, no dice and no other job.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::failure::{Failure, Fate};
use crate::{classify::Class, job::Retries};

/// What a worker says about every job.
#[derive(Clone)]
pub(super) struct Rules {
    /// For jobs that bring none of their own.
    pub(super) retries: Retries,
    pub(super) retry_if: Option<Predicate>,
    pub(super) never_if: Option<Predicate>,
    /// So many workers may die in a job before it is taken for the cause; at least 1.
    pub(super) poison_after: u32,
}

pub(super) type Predicate = Arc<dyn Fn(&Failure) -> bool + Send + Sync>;

/// An execution that has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed<'a> {
    pub(super) failure: &'a Failure,
    /// Which execution it was since the job was enqueued, or requeued; 1 is the first.
    pub(super) attempt: u32,
    /// If its worker died: in how many executions of the job one has, this one included.
    pub(super) deaths: Option<u32>,
    /// Since the job was first to be executed: enqueued, or due if it was scheduled; or since it was requeued.
    pub(super) age: Duration,
}

/// What to do with the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Execute it again this much later. It needs its turn in the worker's budget.
    Retry(Duration),
    /// Execute it again as soon as somebody can: its worker died. Not a matter of the budget.
    Again {
        /// The next death would make it a dead letter, so no other such job must be beside it then.
        alone: bool,
    },
    /// To the dead letters.
    Bury(DeadReason),
    /// It is over, and nothing is kept of it.
    Discard,
}

/// Why a job is among the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// It has had all its retries.
    Exhausted,
    /// The handler said that another execution would fail too, or the failure looks like it.
    Permanent,
    /// Its [`ignore_on`](Retries::ignore_on) names the type of the failure, its [`retry_on`](Retries::retry_on) does
    /// not, or the worker's `never_if` took it.
    Ignored,
    /// The next retry would have come later than its [`retry_for`](Retries::retry_for) allows.
    TooLate,
    /// Too many workers died in it.
    Poison,
}

impl DeadReason {
    /// One word for it, in small letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::Ignored => "ignored",
            Self::TooLate => "too_late",
            Self::Poison => "poison",
        }
    }

    /// The one that [`as_str`](Self::as_str) says this of.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    pub(super) const ALL: [Self; 5] = [
        Self::Exhausted,
        Self::Permanent,
        Self::Ignored,
        Self::TooLate,
        Self::Poison,
    ];
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rules {
    /// Decides, in this order; the first that applies counts:
    ///
    /// | | |
    /// |---|---|
    /// | the handler said `discard` | over |
    /// | the worker died, and as many as `poison_after` have | dead: poison |
    /// | no retries are left | dead: exhausted |
    /// | the handler said `permanently` | dead: permanent |
    /// | `ignore_on` lists the type, or `never_if` takes the failure | dead: ignored |
    /// | the worker died | again at once |
    /// | the handler said `retry_after`, `retry_on` lists the type, or `retry_if` takes the failure | again |
    /// | `retry_on` lists other types | dead: ignored |
    /// | the failure looks permanent | dead: permanent |
    /// | anything else | again |
    ///
    /// What is tried again is not, if that would be later than `retry_for` allows: dead, too late.
    ///
    /// `own` are the retries that the job brings; `sample` is one draw from 0 to 1 for the jitter.
    pub(super) fn decide(
        &self,
        own: Option<&Retries>,
        failed: &Failed<'_>,
        sample: f64,
    ) -> Decision {
        let retries = own.unwrap_or(&self.retries);
        let Failed {
            failure, attempt, ..
        } = *failed;
        if failure.fate() == Fate::Discard {
            return Decision::Discard;
        }
        if failed
            .deaths
            .is_some_and(|deaths| deaths >= self.poison_after)
        {
            return Decision::Bury(DeadReason::Poison);
        }
        if attempt > retries.max() {
            return Decision::Bury(DeadReason::Exhausted);
        }
        if let Some(reason) = self.refuses(retries, failed) {
            return Decision::Bury(reason);
        }
        let delay = match (failed.deaths, failure.fate()) {
            (Some(_), _) => Duration::ZERO,
            (None, Fate::RetryAfter(delay)) => delay,
            (None, _) => retries.delay(attempt, sample),
        };
        let in_time = |within| failed.age.saturating_add(delay) <= within;
        if !retries.within().is_none_or(in_time) {
            return Decision::Bury(DeadReason::TooLate);
        }
        match failed.deaths {
            Some(deaths) => Decision::Again {
                alone: deaths.saturating_add(1) >= self.poison_after,
            },
            None => Decision::Retry(delay),
        }
    }

    /// Why this failure is not one to try again after, though there are retries left.
    fn refuses(&self, retries: &Retries, failed: &Failed<'_>) -> Option<DeadReason> {
        let failure = failed.failure;
        // One that panics takes nothing: the job is to be decided on, and the worker to go on.
        let takes = |predicate: &Option<Predicate>| {
            let taken = |is: &Predicate| catch_unwind(AssertUnwindSafe(|| is(failure)));
            predicate
                .as_ref()
                .is_some_and(|is| taken(is).unwrap_or(false))
        };
        if failure.fate() == Fate::Permanent {
            return Some(DeadReason::Permanent);
        }
        if retries.ignores(failure.error_type()) || takes(&self.never_if) {
            return Some(DeadReason::Ignored);
        }
        if failed.deaths.is_some() {
            return None;
        }
        let listed = retries.wants(failure.error_type());
        match failure.fate() {
            Fate::RetryAfter(_) => None,
            _ if listed == Some(true) || takes(&self.retry_if) => None,
            _ if listed == Some(false) => Some(DeadReason::Ignored),
            Fate::Unsaid(Class::Permanent) => Some(DeadReason::Permanent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

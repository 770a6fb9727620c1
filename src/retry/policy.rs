//! [`RetryPolicy`]: the settings, and what tower asks of them between the attempts of a call.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, Sleep, sleep};
use tower::retry::Policy;

use super::{
    backoff::Backoff,
    budget::RetryBudget,
    counts::Counts,
    decision::{Decision, Failure, Reason, Rules},
    jitter::Jitter,
};
use crate::{call::Request, error::Error, metrics::RetryMetrics};

/// When to try again, and when to stop: see the [module docs](super) for the rules and examples.
///
/// It implements [`tower::retry::Policy`] for every [`Request`]. Clones are cheap and share the
/// [`RetryBudget`]; a setter changes this clone only.
///
/// # Default
///
/// Made for a call that a live request waits for:
///
/// - [`max_retries`](Self::with_max_retries): 3, which is 4 executions.
/// - Delays of 25, 50 and 100 ms, 25 % less or more, and up to 500 ms should more retries be allowed.
///   A connection that broke is replaced within the first one; sooner, the retry would meet no
///   connection at all, and that is an outage. All three together stay under the 250 ms after which
///   an enqueue goes to disk.
/// - [`deadline`](Self::with_deadline): 2 s, four attempts that each take the 500 ms an attempt has.
/// - [`budget`](Self::with_budget): [`RetryBudget::default`], one of its own.
/// - Predicates: none.
///
/// The [presets](Self#presets) are for other waits.
#[derive(Clone)]
#[must_use]
pub struct RetryPolicy {
    shared: Arc<Shared>,
    call: Progress,
}

#[derive(Clone)]
struct Shared {
    rules: Rules,
    budget: RetryBudget,
    counts: Counts,
}

/// How far one call has come. Between calls, that of no call.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    retries: u32,
    started: Option<Instant>,
    previous: Duration,
    may_have_landed: bool,
}

impl RetryPolicy {
    /// These delays, 3 retries (or as many as [`Backoff::delays`] lists), no deadline but the call's
    /// own, and a default [`RetryBudget`].
    pub fn new(backoff: Backoff) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules: Rules {
                    backoff,
                    max_retries: None,
                    deadline: None,
                    retry_if: None,
                    never_if: None,
                },
                budget: RetryBudget::default(),
                counts: Counts::new(&RetryMetrics::default()),
            }),
            call: Progress::default(),
        }
    }

    /// Allows each call `max` attempts after the first: 3 are 4 executions.
    pub fn with_max_retries(mut self, max: u32) -> Self {
        self.shared_mut().rules.max_retries = Some(max);
        self
    }

    /// Starts no attempt once `deadline` has passed since the first one began, waits included.
    ///
    /// A wait that would last until then is not begun: the error goes up at once. An attempt under
    /// way is not cut short, that is for the attempt's own timeout. The call's own
    /// [deadline](Request::deadline) holds as well.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.shared_mut().rules.deadline = Some(deadline);
        self
    }

    /// Leaves the time to the call's own [deadline](Request::deadline).
    pub fn without_deadline(mut self) -> Self {
        self.shared_mut().rules.deadline = None;
        self
    }

    /// Shares `budget`, with other policies too.
    pub fn with_budget(mut self, budget: RetryBudget) -> Self {
        self.shared_mut().budget = budget;
        self
    }

    /// Sets the random part of the delays.
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        let backoff = &mut self.shared_mut().rules.backoff;
        *backoff = backoff.clone().with_jitter(jitter);
        self
    }

    /// Also tries again after the outages for which `predicate` is true, where nothing below waits
    /// an outage out and nothing above spools.
    ///
    /// It adds to the transient errors. It can't add a permanent error, nor one after which
    /// the call might be done twice. It is asked on the caller's task: it should not block.
    pub fn retry_if(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.shared_mut().rules.retry_if = Some(Arc::new(predicate));
        self
    }

    /// Does not try again after the errors for which `predicate` is true, whatever else holds.
    ///
    /// It is asked on the caller's task: it should not block.
    pub fn never_if(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.shared_mut().rules.never_if = Some(Arc::new(predicate));
        self
    }

    /// The delays it goes by.
    pub fn backoff(&self) -> &Backoff {
        &self.shared.rules.backoff
    }

    /// Counts into `metrics` from here on.
    pub(super) fn count_into(&mut self, metrics: &RetryMetrics) {
        let shared = self.shared_mut();
        shared.counts = Counts::new(metrics);
        shared.counts.budget.set(shared.budget.tokens());
    }

    fn shared_mut(&mut self) -> &mut Shared {
        Arc::make_mut(&mut self.shared)
    }
}

// ===== between the attempts =====

/// tower keeps one policy per service, and gives each call a clone of it before the first attempt:
/// the service's own never sees a retry.
impl<Req, Res> Policy<Req, Res, Error> for RetryPolicy
where
    Req: Request + Clone,
{
    type Future = Sleep;

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        if self.call.retries == 0 {
            self.begin(Instant::now());
        } else {
            self.shared.counts.retries.inc();
        }
        // Also where no retry can follow: without a request, tower would not show us the error.
        Some(request.clone())
    }

    fn retry(&mut self, request: &mut Req, result: &mut Result<Res, Error>) -> Option<Sleep> {
        let error = result.as_mut().err()?;
        self.after(request, error, Instant::now(), rand::random())
            .map(sleep)
    }
}

impl RetryPolicy {
    /// A call's first attempt begins.
    fn begin(&mut self, now: Instant) {
        self.call.started = Some(now);
        let Shared { budget, counts, .. } = &*self.shared;
        if budget.deposit(now) {
            counts.budget.set(budget.tokens());
        }
    }

    /// An attempt has failed: how long to wait for the next one, if there is to be one.
    fn after(
        &mut self,
        request: &impl Request,
        error: &mut Error,
        now: Instant,
        sample: f64,
    ) -> Option<Duration> {
        let until = |end: Instant| end.saturating_duration_since(now);
        let since = |start: Instant| now.saturating_duration_since(start);
        let elapsed = self.call.started.map(since).unwrap_or_default();
        let failure = Failure {
            error,
            repeat: request.repeat(),
            retries: self.call.retries,
            previous: self.call.previous,
            elapsed,
            left: request.deadline().map(until),
        };
        match self.shared.decide(&failure, now, sample) {
            Decision::Retry(after) => {
                self.call.retries += 1;
                self.call.previous = after;
                self.call.may_have_landed |= error.may_have_landed();
                return Some(after);
            }
            Decision::Denied(reason) => self.shared.counts.denied(reason).inc(),
            Decision::Final => {}
        }
        error.record(self.call.retries.saturating_add(1), elapsed);
        if self.call.may_have_landed {
            error.record_possible_landing();
        }
        None
    }
}

impl Shared {
    fn decide(&self, failure: &Failure<'_>, now: Instant, sample: f64) -> Decision {
        let decision = self.rules.decide(failure, sample);
        if !matches!(decision, Decision::Retry(_)) {
            return decision;
        }
        let paid = self.budget.withdraw(now);
        self.counts.budget.set(self.budget.tokens());
        if paid {
            decision
        } else {
            Decision::Denied(Reason::Budget)
        }
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rules {
            backoff,
            deadline,
            retry_if,
            never_if,
            ..
        } = &self.shared.rules;
        f.debug_struct("RetryPolicy")
            .field("backoff", backoff)
            .field("max_retries", &self.shared.rules.max_retries())
            .field("deadline", deadline)
            .field("retry_if", &retry_if.is_some())
            .field("never_if", &never_if.is_some())
            .field("budget", &self.shared.budget)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::RedisCall,
        classify::{Class, Landed, Verdict},
    };

    #[test]
    fn a_decorrelated_delay_grows_from_the_wait_before_it() {
        let first = Duration::from_secs(1);
        let backoff = Backoff::fixed(first).with_jitter(Jitter::decorrelated());
        let mut policy = RetryPolicy::new(backoff);
        let call = RedisCall::new("test", redis::Cmd::new());
        let mut error = Error::foreign(Verdict::new(Class::Transient, Landed::No), "test");
        let waits = [(); 4].map(|()| policy.after(&call, &mut error, Instant::now(), 1.0));
        assert_eq!(
            waits,
            [Some(3 * first), Some(9 * first), Some(27 * first), None]
        );
    }
}

//! Whether a failed attempt is followed by another: [`Rules::decide`], which knows no clock, no dice
//! and no other call.

use std::{sync::Arc, time::Duration};

use super::backoff::Backoff;
use crate::{call::Repeat, classify::Class, error::Error};

/// What a policy says about each call by itself.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) backoff: Backoff,
    /// `None`: as many as the schedule lists.
    pub(super) max_retries: Option<u32>,
    pub(super) deadline: Option<Duration>,
    pub(super) retry_if: Option<Predicate>,
    pub(super) never_if: Option<Predicate>,
}

pub(super) type Predicate = Arc<dyn Fn(&Error) -> bool + Send + Sync>;

/// A failed attempt, and what came before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure<'a> {
    pub(super) error: &'a Error,
    pub(super) repeat: Repeat,
    /// Retries made, this attempt included.
    pub(super) retries: u32,
    /// Waited before this attempt.
    pub(super) previous: Duration,
    /// Since the first attempt began.
    pub(super) elapsed: Duration,
    /// Until the call's own deadline.
    pub(super) left: Option<Duration>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Wait this long and try again.
    Retry(Duration),
    /// It would be tried again, if it were not for this.
    Denied(Reason),
    /// Not one to try again.
    Final,
}

/// Why a retry is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// All calls together have made too many retries.
    Budget,
    /// It would begin when nobody waits for it any more.
    Deadline,
    /// The call has had all its retries.
    Exhausted,
    /// It may have landed, and must not land twice.
    Unrepeatable,
}

impl Rules {
    /// Decides on all but the budget, which is asked last: a retry that is not made costs nothing.
    pub(super) fn decide(&self, failure: &Failure<'_>, sample: f64) -> Decision {
        let Failure { error, .. } = *failure;
        if !self.wants(error) {
            return Decision::Final;
        }
        if !error.is_repeatable(failure.repeat) {
            return Decision::Denied(Reason::Unrepeatable);
        }
        if failure.retries >= self.max_retries() {
            return Decision::Denied(Reason::Exhausted);
        }
        let next = failure.retries.saturating_add(1);
        let delay = self.backoff.delay(next, failure.previous, sample);
        let after = delay.max(error.retry_after().unwrap_or_default());
        if self.left(failure).is_some_and(|left| after >= left) {
            return Decision::Denied(Reason::Deadline);
        }
        Decision::Retry(after)
    }

    pub(super) fn max_retries(&self) -> u32 {
        self.max_retries
            .or(self.backoff.listed())
            .unwrap_or(MAX_RETRIES)
    }

    /// Whether this is an error to try again after, if all else allows it.
    fn wants(&self, error: &Error) -> bool {
        let says = |predicate: &Option<Predicate>| predicate.as_ref().is_some_and(|is| is(error));
        let by_class = match error.verdict().class {
            Class::Permanent => false,
            Class::Transient => true,
            Class::Outage => says(&self.retry_if),
        };
        by_class && !says(&self.never_if)
    }

    /// Until the nearer of the two deadlines.
    fn left(&self, failure: &Failure<'_>) -> Option<Duration> {
        let ours = self
            .deadline
            .map(|deadline| deadline.saturating_sub(failure.elapsed));
        match (ours, failure.left) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        }
    }
}

const MAX_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::{
        classify::{Landed, Verdict},
        retry::Jitter,
    };

    const TRANSIENT: Verdict = Verdict::new(Class::Transient, Landed::No);
    const OUTAGE: Verdict = Verdict::new(Class::Outage, Landed::No);

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn rules() -> Rules {
        Rules {
            backoff: Backoff::fixed(s(1)).with_jitter(Jitter::none()),
            max_retries: None,
            deadline: None,
            retry_if: None,
            never_if: None,
        }
    }

    fn predicate(is: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Option<Predicate> {
        Some(Arc::new(is))
    }

    /// The decision after a first attempt of a call that may not be done twice.
    fn decide(rules: &Rules, error: &Error) -> Decision {
        let failure = Failure {
            error,
            repeat: Repeat::Unsafe,
            retries: 0,
            previous: Duration::ZERO,
            elapsed: Duration::ZERO,
            left: None,
        };
        rules.decide(&failure, 0.5)
    }

    fn error(verdict: Verdict) -> Error {
        Error::foreign(verdict, "test")
    }

    #[test]
    fn only_a_transient_error_is_tried_again_by_itself() {
        assert_eq!(decide(&rules(), &error(TRANSIENT)), Decision::Retry(s(1)));
        assert_eq!(decide(&rules(), &error(OUTAGE)), Decision::Final);
        let permanent = error(Verdict::new(Class::Permanent, Landed::No));
        assert_eq!(decide(&rules(), &permanent), Decision::Final);
    }

    #[test]
    fn retry_if_adds_outages_and_nothing_that_is_unsafe_or_permanent() {
        let mut rules = rules();
        rules.retry_if = predicate(|_| true);
        assert_eq!(decide(&rules, &error(OUTAGE)), Decision::Retry(s(1)));
        let permanent = error(Verdict::new(Class::Permanent, Landed::No));
        assert_eq!(decide(&rules, &permanent), Decision::Final);
        for class in [Class::Transient, Class::Outage] {
            for landed in [Landed::Maybe, Landed::Yes] {
                let error = error(Verdict::new(class, landed));
                let denied = Decision::Denied(Reason::Unrepeatable);
                assert_eq!(decide(&rules, &error), denied);
            }
        }
    }

    #[test]
    fn never_if_has_the_last_word() {
        let mut rules = rules();
        rules.retry_if = predicate(|_| true);
        rules.never_if = predicate(|error| error.retry_after().is_some());
        assert_eq!(decide(&rules, &error(OUTAGE)), Decision::Retry(s(1)));
        for verdict in [TRANSIENT, OUTAGE] {
            let told = error(verdict).with_retry_after(s(1));
            assert_eq!(decide(&rules, &told), Decision::Final);
        }
    }

    #[test]
    fn retry_after_makes_a_delay_longer_never_shorter() {
        let after = |retry_after| error(TRANSIENT).with_retry_after(retry_after);
        assert_eq!(decide(&rules(), &after(s(9))), Decision::Retry(s(9)));
        assert_eq!(decide(&rules(), &after(s(0))), Decision::Retry(s(1)));
    }

    #[test]
    fn a_retry_that_would_begin_at_the_deadline_is_given_up_at_once() {
        let mut rules = rules();
        rules.deadline = Some(s(8));
        let after = |retry_after| error(TRANSIENT).with_retry_after(retry_after);
        assert_eq!(decide(&rules, &after(s(7))), Decision::Retry(s(7)));
        let denied = Decision::Denied(Reason::Deadline);
        assert_eq!(decide(&rules, &after(s(8))), denied);
        assert_eq!(decide(&rules, &after(Duration::MAX)), denied);
    }

    #[test]
    fn a_list_sets_the_number_of_retries_unless_it_is_set() {
        let mut rules = rules();
        assert_eq!(rules.max_retries(), 3);
        rules.backoff = Backoff::delays([s(10), s(30)]);
        assert_eq!(rules.max_retries(), 2);
        rules.max_retries = Some(7);
        assert_eq!(rules.max_retries(), 7);
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        const CLASSES: &[Class] = &[Class::Permanent, Class::Transient, Class::Outage];
        const LANDINGS: &[Landed] = &[Landed::No, Landed::Maybe, Landed::Yes];
        let of = |(class, landed)| Verdict::new(class, landed);
        (select(CLASSES), select(LANDINGS)).prop_map(of)
    }

    /// Small numbers, so that they often meet, and the largest.
    fn seconds() -> impl Strategy<Value = u64> {
        prop_oneof![20 => 0..12u64, 1 => Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn a_decision_is_what_the_naive_model_says(
            verdict in verdict(),
            safe: bool,
            (asked, refused) in (any::<bool>(), any::<bool>()),
            delays in proptest::collection::vec(0..12u64, 1..5),
            max_retries in proptest::option::of(0..5u32),
            retries in 0..6u32,
            elapsed in seconds(),
            deadline in proptest::option::of(seconds()),
            left in proptest::option::of(seconds()),
            retry_after in proptest::option::of(seconds()),
        ) {
            let list: Vec<_> = delays.iter().copied().map(s).collect();
            let rules = Rules {
                backoff: Backoff::delays(list).with_jitter(Jitter::none()),
                max_retries,
                deadline: deadline.map(s),
                retry_if: predicate(move |_| asked),
                never_if: predicate(move |_| refused),
            };
            let mut error = error(verdict);
            if let Some(after) = retry_after {
                error = error.with_retry_after(s(after));
            }
            let failure = Failure {
                error: &error,
                repeat: if safe { Repeat::Safe } else { Repeat::Unsafe },
                retries,
                previous: Duration::ZERO,
                elapsed: s(elapsed),
                left: left.map(s),
            };

            let tried_again = match verdict.class {
                Class::Permanent => false,
                Class::Transient => !refused,
                Class::Outage => asked && !refused,
            };
            let allowed = max_retries.map_or(delays.len(), |max| max as usize);
            let nth = delays.len().min(retries as usize + 1) - 1;
            let wait = u128::from(delays[nth].max(retry_after.unwrap_or(0)));
            let in_time = deadline
                .is_none_or(|end| u128::from(elapsed) + wait < u128::from(end))
                && left.is_none_or(|left| wait < u128::from(left));
            let expected = if !tried_again {
                Decision::Final
            } else if verdict.landed != Landed::No && !safe {
                Decision::Denied(Reason::Unrepeatable)
            } else if retries as usize >= allowed {
                Decision::Denied(Reason::Exhausted)
            } else if !in_time {
                Decision::Denied(Reason::Deadline)
            } else {
                Decision::Retry(s(wait as u64))
            };
            prop_assert_eq!(rules.decide(&failure, 0.5), expected);
        }
    }
}

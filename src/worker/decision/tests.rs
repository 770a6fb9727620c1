//! The order of the rules, and which failures are tried again. What other queues document is in `sources`.

use std::io;

use proptest::{prelude::*, sample::select};

use super::*;

mod sources;

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn rules() -> Rules {
    Rules {
        retries: Retries::default(),
        retry_if: None,
        never_if: None,
        poison_after: 3,
    }
}

fn predicate(is: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Option<Predicate> {
    Some(Arc::new(is))
}

/// A first execution that failed at once.
fn first(failure: &Failure) -> Failed<'_> {
    Failed {
        failure,
        attempt: 1,
        deaths: None,
        age: Duration::ZERO,
    }
}

fn decide(rules: &Rules, own: Option<&Retries>, failure: &Failure) -> Decision {
    rules.decide(own, &first(failure), 0.5)
}

/// What comes of a first execution that failed so, if nobody has said anything else.
#[test]
fn transient_failures_are_tried_again_and_permanent_ones_are_buried() {
    let io = |kind: io::ErrorKind| Failure::from(io::Error::from(kind));
    let again = [
        Failure::status(429, "too many requests"),
        Failure::status(503, "unavailable"),
        Failure::status(500, "internal"),
        Failure::status(408, "request timeout"),
        Failure::timeout(s(30)),
        Failure::panicked("index out of bounds"),
        Failure::new("quota", "come back tomorrow"),
        io(io::ErrorKind::TimedOut),
        io(io::ErrorKind::ConnectionReset),
    ];
    for failure in &again {
        let decision = decide(&rules(), None, failure);
        assert_eq!(decision, Decision::Retry(s(1)), "{failure:?}");
    }
    let never = [
        Failure::status(400, "bad request"),
        Failure::status(404, "not found"),
        Failure::status(403, "forbidden"),
        Failure::invalid_payload("no JSON"),
        io(io::ErrorKind::InvalidInput),
    ];
    for failure in &never {
        let decision = decide(&rules(), None, failure);
        assert_eq!(
            decision,
            Decision::Bury(DeadReason::Permanent),
            "{failure:?}"
        );
    }
}

#[test]
fn retry_on_names_the_only_types_that_are_tried_again() {
    let own = Retries::default().retry_on(["http_503", "timeout", "http_404"]);
    let rows = [
        (Failure::status(503, ""), Decision::Retry(s(1))),
        (Failure::timeout(s(1)), Decision::Retry(s(1))),
        // It looks permanent, but the job knows better: what it asks for will be there in a second.
        (Failure::status(404, ""), Decision::Retry(s(1))),
        (
            Failure::status(429, ""),
            Decision::Bury(DeadReason::Ignored),
        ),
        (
            Failure::status(403, ""),
            Decision::Bury(DeadReason::Ignored),
        ),
        (Failure::panicked("oh"), Decision::Bury(DeadReason::Ignored)),
    ];
    for (failure, expected) in rows {
        assert_eq!(
            decide(&rules(), Some(&own), &failure),
            expected,
            "{failure:?}"
        );
    }
    // A name is a whole name.
    let own = Retries::default().retry_on(["http_5", "HTTP_503"]);
    let unavailable = Failure::status(503, "");
    assert_eq!(
        decide(&rules(), Some(&own), &unavailable),
        Decision::Bury(DeadReason::Ignored)
    );
}

#[test]
fn ignore_on_beats_all_that_speaks_for_another_try() {
    let mut rules = rules();
    rules.retry_if = predicate(|_| true);
    let own = Retries::default()
        .retry_on(["http_503"])
        .ignore_on(["http_503", "timeout"]);
    for failure in [
        Failure::status(503, ""),
        Failure::status(503, "").retry_after(s(9)),
        Failure::timeout(s(1)),
    ] {
        assert_eq!(
            decide(&rules, Some(&own), &failure),
            Decision::Bury(DeadReason::Ignored),
            "{failure:?}"
        );
    }
    assert_eq!(
        decide(&rules, Some(&own), &Failure::status(429, "")),
        Decision::Retry(s(1))
    );
}

#[test]
fn retry_if_adds_failures_and_never_if_has_the_last_word() {
    let mut rules = rules();
    rules.retry_if = predicate(|failure| failure.message() == "soon");
    let soon = Failure::status(404, "soon");
    let never = Failure::status(404, "never");
    let unavailable = Failure::status(503, "");
    assert_eq!(decide(&rules, None, &soon), Decision::Retry(s(1)));
    assert_eq!(
        decide(&rules, None, &never),
        Decision::Bury(DeadReason::Permanent)
    );
    // It takes nothing away.
    assert_eq!(decide(&rules, None, &unavailable), Decision::Retry(s(1)));
    let own = Retries::default().retry_on(["quota"]);
    assert_eq!(decide(&rules, Some(&own), &soon), Decision::Retry(s(1)));

    rules.never_if = predicate(|failure| failure.error_type().starts_with("http_"));
    for failure in [soon, unavailable] {
        assert_eq!(
            decide(&rules, Some(&own), &failure),
            Decision::Bury(DeadReason::Ignored)
        );
    }
}

#[test]
fn a_handler_may_ask_for_its_own_delay_for_the_dead_letters_or_for_the_end() {
    let own = Retries::default().retry_on(["quota"]);
    let rows = [
        // The delay of the schedule is 1 s: both a longer and a shorter one are taken, and without jitter.
        (
            Failure::status(429, "").retry_after(s(30)),
            Decision::Retry(s(30)),
        ),
        (
            Failure::new("quota", "").retry_after(Duration::ZERO),
            Decision::Retry(s(0)),
        ),
        (
            Failure::status(404, "").retry_after(s(5)),
            Decision::Retry(s(5)),
        ),
        (
            Failure::new("quota", "").permanently(),
            Decision::Bury(DeadReason::Permanent),
        ),
        (Failure::new("quota", "").discard(), Decision::Discard),
    ];
    for (failure, expected) in rows {
        let decision = rules().decide(Some(&own), &first(&failure), 1.0);
        assert_eq!(decision, expected, "{failure:?}");
    }
}

#[test]
fn asking_for_a_delay_brings_no_more_retries() {
    let failure = Failure::status(429, "").retry_after(s(30));
    let last = |attempt| {
        let failed = Failed {
            attempt,
            ..first(&failure)
        };
        rules().decide(None, &failed, 0.5)
    };
    assert_eq!(last(3), Decision::Retry(s(30)));
    assert_eq!(last(4), Decision::Bury(DeadReason::Exhausted));
}

#[test]
fn a_job_without_retries_is_buried_by_its_first_failure() {
    let none = Retries::none();
    let failure = Failure::status(503, "");
    let exhausted = Decision::Bury(DeadReason::Exhausted);
    assert_eq!(decide(&rules(), Some(&none), &failure), exhausted);
    let none = Retries::default().with_max(0);
    assert_eq!(decide(&rules(), Some(&none), &failure), exhausted);
    // The execution counted when it started.
    let death = Failed {
        deaths: Some(1),
        ..first(&failure)
    };
    assert_eq!(rules().decide(Some(&none), &death, 0.5), exhausted);
}

/// The failure of a worker whose lease ran out.
fn death(failure: &Failure, attempt: u32, deaths: u32) -> Failed<'_> {
    Failed {
        attempt,
        deaths: Some(deaths),
        ..first(failure)
    }
}

#[test]
fn a_job_whose_worker_died_is_executed_again_at_once() {
    let failure = Failure::worker_died();
    assert_eq!(
        rules().decide(None, &death(&failure, 1, 1), 0.5),
        Decision::Again { alone: false }
    );
    // Whatever it is that the job's own errors are tried again for.
    let own = Retries::default().retry_on(["http_503"]);
    assert_eq!(
        rules().decide(Some(&own), &death(&failure, 1, 1), 0.5),
        Decision::Again { alone: false }
    );
}

#[test]
fn a_job_that_must_not_run_twice_is_not_executed_again_after_a_death() {
    let failure = Failure::worker_died();
    let own = Retries::default().ignore_on(["worker_died"]);
    assert_eq!(
        rules().decide(Some(&own), &death(&failure, 1, 1), 0.5),
        Decision::Bury(DeadReason::Ignored)
    );
}

#[test]
fn a_job_that_keeps_killing_its_worker_is_poison() {
    let failure = Failure::worker_died();
    let own = Retries::default().with_max(25);
    let deaths = |deaths| rules().decide(Some(&own), &death(&failure, deaths, deaths), 0.5);
    assert_eq!(deaths(1), Decision::Again { alone: false });
    // Whatever was beside it the first times is not there the last time.
    assert_eq!(deaths(2), Decision::Again { alone: true });
    assert_eq!(deaths(3), Decision::Bury(DeadReason::Poison));
    // Failures of another kind in between do not clear it.
    let late = rules().decide(Some(&own), &death(&failure, 9, 3), 0.5);
    assert_eq!(late, Decision::Bury(DeadReason::Poison));
}

#[test]
fn deaths_before_are_nothing_against_a_failure_of_another_kind() {
    let own = Retries::default().with_max(25);
    let failure = Failure::status(503, "");
    let failed = Failed {
        attempt: 4,
        ..first(&failure)
    };
    assert_eq!(
        rules().decide(Some(&own), &failed, 0.5),
        Decision::Retry(s(8))
    );
}

#[test]
fn no_retry_comes_later_than_retry_for_allows() {
    let own = Retries::fixed(s(10)).with_max(99).retry_for(s(60));
    let failure = Failure::status(503, "");
    let aged = |age| {
        let failed = Failed {
            age: s(age),
            ..first(&failure)
        };
        rules().decide(Some(&own), &failed, 0.5)
    };
    assert_eq!(aged(50), Decision::Retry(s(10)));
    assert_eq!(aged(51), Decision::Bury(DeadReason::TooLate));
    let late = Failure::status(503, "").retry_after(s(61));
    assert_eq!(
        decide(&rules(), Some(&own), &late),
        Decision::Bury(DeadReason::TooLate)
    );
}

#[test]
fn a_reason_has_a_name_that_leads_back_to_it() {
    for reason in DeadReason::ALL {
        assert_eq!(DeadReason::named(&reason.to_string()), Some(reason));
    }
    assert_eq!(DeadReason::named("bored"), None);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Nothing,
    RetryAfter,
    Permanently,
    Discard,
}

proptest! {
    /// The rules as a list of all that speaks for each decision, in the order in which they are documented.
    #[test]
    fn a_decision_is_what_the_naive_model_says(
        said in select(&[Said::Nothing, Said::RetryAfter, Said::Permanently, Said::Discard][..]),
        looks_permanent: bool,
        (retry_on, ignore_on) in (proptest::option::of(any::<bool>()), any::<bool>()),
        (retry_if, never_if) in (any::<bool>(), any::<bool>()),
        (max, attempt) in (0..4u32, 1..5u32),
        deaths in proptest::option::of(1..5u32),
        (age, within) in (0..12u64, proptest::option::of(0..24u64)),
    ) {
        let failure = Failure::status(if looks_permanent { 404 } else { 503 }, "");
        let failure = match said {
            Said::Nothing => failure,
            Said::RetryAfter => failure.retry_after(s(9)),
            Said::Permanently => failure.permanently(),
            Said::Discard => failure.discard(),
        };
        let listed = |is| if is { failure.error_type().to_owned() } else { "other".to_owned() };
        let mut own = Retries::fixed(s(5)).with_max(max).ignore_on([listed(ignore_on)]);
        if let Some(is) = retry_on {
            own = own.retry_on([listed(is)]);
        }
        if let Some(within) = within {
            own = own.retry_for(s(within));
        }
        let rules = Rules {
            retries: Retries::none(),
            retry_if: predicate(move |_| retry_if),
            never_if: predicate(move |_| never_if),
            poison_after: 3,
        };
        let failed = Failed { failure: &failure, attempt, deaths, age: s(age) };

        let died = deaths.is_some();
        let wait = if died { 0 } else if said == Said::RetryAfter { 9 } else { 5 };
        let again = match () {
            () if within.is_some_and(|within| age + wait > within) => {
                Decision::Bury(DeadReason::TooLate)
            }
            () if died => Decision::Again { alone: deaths >= Some(2) },
            () => Decision::Retry(s(wait)),
        };
        let rows = [
            (said == Said::Discard, Decision::Discard),
            (deaths >= Some(3), Decision::Bury(DeadReason::Poison)),
            (attempt > max, Decision::Bury(DeadReason::Exhausted)),
            (said == Said::Permanently, Decision::Bury(DeadReason::Permanent)),
            (ignore_on || never_if, Decision::Bury(DeadReason::Ignored)),
            (died || said == Said::RetryAfter, again),
            (retry_on == Some(true) || retry_if, again),
            (retry_on == Some(false), Decision::Bury(DeadReason::Ignored)),
            (looks_permanent, Decision::Bury(DeadReason::Permanent)),
            (true, again),
        ];
        let expected = rows.into_iter().find(|(applies, _)| *applies).map(|(_, then)| then);
        prop_assert_eq!(Some(rules.decide(Some(&own), &failed, 0.5)), expected);
    }
}

//! The policy in tower's Retry, over a mock: what callers, Redis and the metrics see.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::{
    assert_request_eq,
    mock::{self, Handle, Mock},
};

use super::*;
use crate::{
    call::{Repeat, Request},
    classify::{Class, Landed, Verdict},
    error::{BoxError, Error},
    metrics::Metrics,
};

const NOT_SENT: Verdict = Verdict::new(Class::Transient, Landed::No);
const LOST_REPLY: Verdict = Verdict::new(Class::Transient, Landed::Maybe);
const REFUSED: Verdict = Verdict::new(Class::Outage, Landed::No);
const WRONG: Verdict = Verdict::new(Class::Permanent, Landed::No);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ask {
    repeat: Repeat,
    deadline: Option<Instant>,
}

const UNSAFE: Ask = Ask {
    repeat: Repeat::Unsafe,
    deadline: None,
};
const SAFE: Ask = Ask {
    repeat: Repeat::Safe,
    deadline: None,
};

impl Request for Ask {
    fn repeat(&self) -> Repeat {
        self.repeat
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

fn error(verdict: Verdict) -> Error {
    Error::foreign(verdict, "test")
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A second between attempts, exactly.
fn policy() -> RetryPolicy {
    RetryPolicy::new(Backoff::fixed(s(1)).with_jitter(Jitter::none()))
}

/// A line over a mock that the test answers for.
fn line(
    policy: RetryPolicy,
) -> (
    impl Service<Ask, Response = &'static str, Error = Error, Future: Send>,
    Handle<Ask, &'static str>,
) {
    let (mock, handle): (Mock<Ask, &'static str>, _) = mock::pair();
    let leaf = mock.map_err(|error: BoxError| Error::from(error));
    let line = RetryLayer::new(policy).layer(leaf);
    (line, handle)
}

/// A line over a leaf that always fails so, and the count of its executions.
fn failing(
    policy: RetryPolicy,
    verdict: Verdict,
    metrics: &Metrics,
) -> (
    impl Service<Ask, Response = (), Error = Error> + Clone + use<>,
    Arc<AtomicU32>,
) {
    let executions = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&executions);
    let leaf = service_fn(move |_: Ask| {
        counted.fetch_add(1, Relaxed);
        async move { Err(error(verdict)) }
    });
    let layer = RetryLayer::new(policy).with_metrics(metrics.retry.clone());
    (layer.layer(leaf), executions)
}

fn denied(metrics: &Metrics) -> [u64; 4] {
    ["budget", "deadline", "exhausted", "unrepeatable"]
        .map(|reason| metrics.retry.denied.with_label_values(&[reason]).get())
}

#[tokio::test(start_paused = true)]
async fn three_retries_are_four_executions() {
    let metrics = Metrics::default();
    let (mut line, executions) = failing(policy().with_max_retries(3), NOT_SENT, &metrics);
    // Twice: a service counts each call by itself.
    for call in 1..=2 {
        let error = line.call(UNSAFE).await.unwrap_err();
        assert_eq!((error.attempts(), error.elapsed()), (4, s(3)));
        assert_eq!(executions.swap(0, Relaxed), 4);
        assert_eq!(metrics.retry.retries.get(), 3 * call);
        assert_eq!(denied(&metrics), [0, 0, call, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_answer_is_that_of_the_last_attempt() {
    let (mut line, mut handle) = line(policy());
    let mut answer = tokio_test::task::spawn(line.ready().await.unwrap().call(UNSAFE));
    assert!(answer.poll().is_pending());
    assert_request_eq!(handle, UNSAFE).send_error(error(NOT_SENT));
    assert!(answer.poll().is_pending(), "waits before the second");
    tokio::time::advance(s(1)).await;
    assert!(answer.poll().is_pending());
    assert_request_eq!(handle, UNSAFE).send_response("done");
    assert_eq!(answer.await.unwrap(), "done");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_call_that_may_have_landed_is_never_repeated() {
    let metrics = Metrics::default();
    let eager = policy().retry_if(|_| true);
    let (mut line, executions) = failing(eager, LOST_REPLY, &metrics);
    let error = line.call(UNSAFE).await.unwrap_err();
    assert_eq!((error.attempts(), error.may_have_landed()), (1, true));
    assert_eq!(executions.swap(0, Relaxed), 1);
    assert_eq!(denied(&metrics), [0, 0, 0, 1]);

    line.call(SAFE).await.unwrap_err();
    assert_eq!(executions.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_attempt_that_may_have_landed_is_not_forgotten() {
    let (mut line, mut handle) = line(policy());
    let call = tokio::spawn(line.ready().await.unwrap().call(SAFE));
    assert_request_eq!(handle, SAFE).send_error(error(LOST_REPLY));
    assert_request_eq!(handle, SAFE).send_error(error(REFUSED));
    drop(handle); // one attempt too many would find it gone
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is_outage() && error.may_have_landed());
}

#[tokio::test(start_paused = true)]
async fn outages_and_permanent_errors_go_up_at_once_and_are_not_denied() {
    for verdict in [REFUSED, WRONG] {
        let metrics = Metrics::default();
        let (mut line, executions) = failing(policy(), verdict, &metrics);
        let error = line.call(SAFE).await.unwrap_err();
        assert_eq!((error.attempts(), error.elapsed()), (1, s(0)));
        assert_eq!(executions.load(Relaxed), 1);
        assert_eq!(denied(&metrics), [0; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_wait_outages_out() {
    let metrics = Metrics::default();
    let patient = policy().retry_if(Error::is_outage);
    let (mut line, executions) = failing(patient, REFUSED, &metrics);
    line.call(UNSAFE).await.unwrap_err();
    assert_eq!(executions.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_at_or_after_either_deadline() {
    for (policy, own) in [
        (policy().with_deadline(s(2)), None),
        (policy().with_deadline(s(60)), Some(s(2))),
        (policy(), Some(s(2))),
    ] {
        let metrics = Metrics::default();
        let (mut line, executions) = failing(policy, NOT_SENT, &metrics);
        let began = Instant::now();
        let call = Ask {
            deadline: own.map(|own| began + own),
            ..UNSAFE
        };
        line.call(call).await.unwrap_err();
        // At 0 and 1 s; the third would begin at the deadline, and is not waited for.
        assert_eq!(executions.load(Relaxed), 2);
        assert_eq!(began.elapsed(), s(1));
        assert_eq!(denied(&metrics), [0, 1, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_or_given_up_at_once() {
    let (mut line, mut handle) = line(policy().with_deadline(s(10)));
    let began = Instant::now();
    let call = tokio::spawn(line.ready().await.unwrap().call(UNSAFE));
    let told = |after| error(NOT_SENT).with_retry_after(after);
    assert_request_eq!(handle, UNSAFE).send_error(told(s(7)));
    assert_request_eq!(handle, UNSAFE).send_error(told(s(3)));
    drop(handle); // one attempt too many would find it gone
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.attempts(), 2);
    assert_eq!(began.elapsed(), s(7), "the second wait is not begun");
    assert_eq!(error.retry_after(), Some(s(3)), "the error itself");
}

#[tokio::test(start_paused = true)]
async fn retries_stay_a_fifth_of_the_calls_when_everything_fails() {
    const CALLS: u32 = 10_000;
    let metrics = Metrics::default();
    let policy = RetryPolicy::aggressive().retry_if(Error::is_outage);
    for verdict in [NOT_SENT, REFUSED] {
        let budget = RetryBudget::default();
        let policy = policy.clone().with_budget(budget);
        let (line, executions) = failing(policy, verdict, &metrics);
        let began = Instant::now();
        let calls = (0..CALLS).map(|_| line.clone().oneshot(UNSAFE));
        assert!(join_all(calls).await.iter().all(Result::is_err));

        let retries = executions.load(Relaxed) - CALLS;
        let reserve = 500 + 10 * (began.elapsed().as_millis() as u32).div_ceil(1_000);
        assert!(retries <= CALLS / 5 + reserve, "{retries} retries");
        assert!(retries >= CALLS / 5, "the budget is used: {retries}");
    }
    assert!(denied(&metrics)[0] > 0);
}

#[tokio::test(start_paused = true)]
async fn one_call_after_another_retries_are_a_fifth_too() {
    let metrics = Metrics::default();
    let budget = RetryBudget::new(0.2, 0).unwrap().with_burst(1);
    let (mut line, executions) = failing(policy().with_budget(budget), NOT_SENT, &metrics);
    for _ in 0..10_000 {
        line.call(UNSAFE).await.unwrap_err();
    }
    assert_eq!(executions.load(Relaxed), 12_000);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_makes_no_further_attempt_and_leaves_the_service_whole() {
    let metrics = Metrics::default();
    let (mut line, executions) = failing(policy(), NOT_SENT, &metrics);
    {
        let mut call = pin!(line.call(UNSAFE));
        assert!((&mut call).now_or_never().is_none(), "waits for its second");
    }
    tokio::time::advance(s(60)).await;
    assert_eq!(executions.swap(0, Relaxed), 1);
    assert_eq!(metrics.retry.retries.get(), 0, "counted as it begins");
    assert_eq!(line.call(UNSAFE).await.unwrap_err().attempts(), 4);
}

#[test]
fn every_reason_is_shown_from_the_start() {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let _layer = RetryLayer::default().with_metrics(metrics.retry);
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    for reason in ["budget", "deadline", "exhausted", "unrepeatable"] {
        let line = format!("seawall_retries_denied_total{{reason=\"{reason}\"}} 0");
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains("seawall_retry_budget_tokens 500"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_gauge_follows_the_budget_down_and_up() {
    let metrics = Metrics::default();
    let budget = RetryBudget::new(0.5, 0).unwrap().with_burst(10);
    let (mut line, _) = failing(policy().with_budget(budget), NOT_SENT, &metrics);
    line.call(UNSAFE).await.unwrap_err();
    assert_eq!(metrics.retry.budget.get(), 7.0);
    drop(line.call(UNSAFE));
    assert_eq!(metrics.retry.budget.get(), 7.5);
}

#[test]
fn a_setter_changes_its_own_clone_only() {
    let one = RetryPolicy::stepped();
    let other = one.clone().with_max_retries(9);
    assert!(format!("{one:?}").contains("max_retries: 3"));
    assert!(format!("{other:?}").contains("max_retries: 9"));
}

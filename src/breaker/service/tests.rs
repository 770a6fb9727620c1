//! The service's promises: tower's contract, cancellation, many tasks, and what the outside sees.

use std::{
    future::{Ready, pending, ready},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::core::Collector as _;
use tokio::{sync::Semaphore, task::JoinSet, time::advance};
use tower::{Layer as _, ServiceExt as _, retry::Retry, service_fn};

use super::*;
use crate::{
    breaker::{BreakerHandle, BreakerLayer, BreakerOptions, State, Tally},
    classify::{Class, Landed, Verdict},
    error::ErrorKind,
    metrics::BreakerMetrics,
};

const SECOND: Duration = Duration::from_secs(1);

/// What the leaf answers; a call is its own answer.
type Answer = Result<(), (Class, Landed)>;

const DOWN: Answer = Err((Class::Outage, Landed::No));

/// Answers as asked, once it is ready: a call without readiness is a broken contract.
#[derive(Debug, Default)]
struct Leaf {
    is_ready: bool,
    door: Arc<Door>,
}

#[derive(Debug, Default)]
struct Door {
    is_shut: AtomicBool,
    asked: AtomicU32,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            door: self.door.clone(),
        }
    }
}

impl Service<Answer> for Leaf {
    type Response = ();
    type Error = Error;
    type Future = Ready<Result<(), Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.door.asked.fetch_add(1, Ordering::Relaxed);
        self.is_ready = !self.door.is_shut.load(Ordering::Relaxed);
        if self.is_ready {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, answer: Answer) -> Self::Future {
        assert!(mem::take(&mut self.is_ready), "called without being ready");
        ready(
            answer.map_err(|(class, landed)| {
                Error::new(ErrorKind::Redis, Verdict::new(class, landed))
            }),
        )
    }
}

fn options() -> BreakerOptions {
    BreakerOptions::new()
        .with_open_time(SECOND)
        .with_open_time_jitter(0.0)
}

fn guarded(options: BreakerOptions) -> (Breaker<Leaf>, BreakerHandle) {
    let layer = BreakerLayer::new(options);
    (layer.layer(Leaf::default()), layer.handle())
}

async fn call(service: &mut Breaker<Leaf>, answer: Answer) -> Result<(), Error> {
    service.ready().await?.call(answer).await
}

async fn fail(service: &mut Breaker<Leaf>, times: u32) {
    for _ in 0..times {
        call(service, DOWN).await.expect_err("down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back_and_asks_nobody() {
    let (mut service, _) = guarded(options());
    fail(&mut service, 5).await;
    let asked = service.inner.door.asked.load(Ordering::Relaxed);
    advance(SECOND / 4).await;
    let refused = call(&mut service, Ok(())).await.expect_err("open");
    assert!(refused.is_breaker_open() && refused.is_outage() && !refused.may_have_landed());
    assert_eq!(refused.retry_after(), Some(SECOND * 3 / 4));
    assert_eq!(service.inner.door.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test(start_paused = true)]
async fn the_open_time_grows_with_each_probe_that_fails() {
    let (mut service, handle) = guarded(options().with_half_open_calls(1));
    fail(&mut service, 5).await;
    for seconds in [1, 2, 4, 8, 15, 15] {
        assert_eq!(handle.retry_after(), Some(SECOND * seconds));
        advance(SECOND * seconds).await;
        assert_eq!(
            (handle.state(), handle.retry_after()),
            (State::Open, Some(Duration::ZERO))
        );
        fail(&mut service, 1).await;
    }
    advance(SECOND * 15).await;
    call(&mut service, Ok(())).await.expect("up again");
    assert_eq!(
        (handle.state(), handle.retry_after()),
        (State::Closed, None)
    );
}

#[tokio::test(start_paused = true)]
async fn the_verdict_decides_what_counts() {
    let (mut service, handle) = guarded(options());
    fail(&mut service, 4).await;
    call(&mut service, Err((Class::Transient, Landed::No)))
        .await
        .expect_err("pool busy");
    assert_eq!(
        handle.tally().calls,
        4,
        "what was never sent does not count"
    );
    call(&mut service, Err((Class::Permanent, Landed::No)))
        .await
        .expect_err("wrong type");
    assert_eq!(
        handle.tally(),
        Tally {
            calls: 5,
            failures: 4,
            slow: 0
        }
    );
    fail(&mut service, 4).await;
    assert_eq!(
        handle.state(),
        State::Closed,
        "a refusal by Redis is a sign of life"
    );
    call(&mut service, Err((Class::Transient, Landed::Maybe)))
        .await
        .expect_err("reset");
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_dropped_probes_give_their_places_back() {
    let layer = BreakerLayer::new(options().with_half_open_calls(2));
    let handle = layer.handle();
    let mut hangs = layer.layer(service_fn(async |(): ()| {
        pending::<Result<(), Error>>().await
    }));
    handle.trip();
    advance(SECOND).await;
    for _ in 0..5_000 {
        let mut polled = Box::pin(hangs.ready().await.expect("ready").call(()));
        let unpolled = hangs.ready().await.expect("ready").call(());
        assert!(futures_util::poll!(&mut polled).is_pending());
        let refused = hangs.ready().await.expect("ready").call(()).await;
        assert!(
            refused
                .expect_err("both places are taken")
                .is_breaker_open()
        );
        drop((polled, unpolled));
        assert_eq!(handle.state(), State::HalfOpen);
    }
    let mut answers = layer.layer(Leaf::default());
    call(&mut answers, Ok(())).await.expect("a place");
    call(&mut answers, Ok(())).await.expect("a place");
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_the_trip_does_not_free_a_probes_place() {
    let layer = BreakerLayer::new(options().with_half_open_calls(1));
    let mut hangs = layer.layer(service_fn(async |(): ()| {
        pending::<Result<(), Error>>().await
    }));
    let before = hangs.ready().await.expect("ready").call(());
    layer.handle().trip();
    advance(SECOND).await;
    let _probe = hangs.ready().await.expect("ready").call(());
    drop(before);
    let refused = hangs.ready().await.expect("ready").call(()).await;
    assert!(refused.expect_err("the place is taken").is_breaker_open());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inners_while_closed_and_never_waits_while_open() {
    let (mut service, handle) = guarded(options());
    service.inner.door.is_shut.store(true, Ordering::Relaxed);
    assert!(futures_util::poll!(service.ready()).is_pending());
    handle.trip();
    assert!(futures_util::poll!(service.ready()).is_ready());
    let refused = service.call(Ok(())).await.expect_err("open");
    assert!(refused.is_breaker_open());
}

#[tokio::test(start_paused = true)]
async fn the_inner_is_called_only_if_it_was_ready() {
    let (mut service, handle) = guarded(options());
    // Ready because it would refuse, and let in by the time of the call.
    handle.force_open();
    service.ready().await.expect("ready");
    handle.reset();
    let refused = service
        .call(Ok(()))
        .await
        .expect_err("the inner was not asked");
    assert_eq!(refused.retry_after(), None);
    // Ready, and cloned: the clone is not.
    let mut clone = service.ready().await.expect("ready").clone();
    let refused = clone
        .call(Ok(()))
        .await
        .expect_err("the clone was not asked");
    assert_eq!(refused.retry_after(), Some(Duration::ZERO));
    service.call(Ok(())).await.expect("the original still is");
    // Ready once is ready for one call.
    service.call(Ok(())).await.expect_err("not asked again");
}

#[tokio::test(start_paused = true)]
async fn towers_retry_is_refused_rather_than_frozen() {
    #[derive(Clone)]
    struct Twice(u32);
    impl tower::retry::Policy<Answer, (), Error> for Twice {
        type Future = Ready<()>;
        fn retry(&mut self, _: &mut Answer, result: &mut Result<(), Error>) -> Option<Ready<()>> {
            self.0 = self.0.checked_sub(1)?;
            result.is_err().then(|| ready(()))
        }
        fn clone_request(&mut self, answer: &Answer) -> Option<Answer> {
            Some(*answer)
        }
    }

    let (service, _) = guarded(options().with_consecutive_failures(1));
    let door = service.inner.door.clone();
    let mut retry = Retry::new(Twice(3), service);
    let answer = retry.ready().await.expect("ready").call(DOWN);
    door.is_shut.store(true, Ordering::Relaxed);
    assert!(answer.await.expect_err("open").is_breaker_open());
}

#[tokio::test(start_paused = true)]
async fn an_inner_that_fails_to_become_ready_has_failed_a_call() {
    let layer = BreakerLayer::new(options().with_consecutive_failures(2));
    let (mock, mut far_end) = tower_test::mock::pair::<(), ()>();
    let mut service = layer.layer(mock);
    for state in [State::Closed, State::Open] {
        far_end.send_error("gone");
        service.ready().await.expect_err("gone");
        assert_eq!(layer.handle().state(), state);
    }
    assert!(service.ready().await.is_ok());
}

/// The published rule broken elsewhere: more probes than allowed got out under concurrency.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_probes_than_allowed_are_out_across_tasks() {
    const PROBES: usize = 3;
    const TASKS: usize = 32;
    let gate = Arc::new(Semaphore::new(0));
    let layer = BreakerLayer::new(
        options()
            .with_open_time(Duration::from_millis(1))
            .with_open_time_cap(Duration::from_millis(1))
            .with_half_open_calls(PROBES as u32)
            .with_half_open_max_wait(None),
    );
    let entered = Arc::new(AtomicU32::new(0));
    let service = layer.layer(service_fn({
        let (gate, entered) = (gate.clone(), entered.clone());
        move |()| {
            entered.fetch_add(1, Ordering::SeqCst);
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("never closed").forget();
                Ok::<_, Error>(())
            }
        }
    }));
    let handle = layer.handle();
    for round in 0..50 {
        entered.store(0, Ordering::SeqCst);
        handle.trip();
        while handle.retry_after() != Some(Duration::ZERO) {
            tokio::task::yield_now().await;
        }
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let service = service.clone();
            tasks.spawn(async move { service.oneshot(()).await });
        }
        for _ in PROBES..TASKS {
            let refused = tasks.join_next().await.expect("a task").expect("no panic");
            assert!(refused.expect_err("no place").is_breaker_open());
        }
        assert_eq!(entered.load(Ordering::SeqCst), PROBES as u32);
        if round % 2 == 0 {
            // All of them cancelled: the same number again, and no more.
            tasks.shutdown().await;
            assert_eq!(handle.state(), State::HalfOpen);
            for _ in 0..PROBES {
                let service = service.clone();
                tasks.spawn(async move { service.oneshot(()).await });
            }
        }
        gate.add_permits(PROBES);
        while let Some(answer) = tasks.join_next().await {
            answer.expect("no panic").expect("a place");
        }
        assert_eq!(handle.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn one_layer_is_one_breaker() {
    let layer = BreakerLayer::new(options());
    let mut one = layer.layer(Leaf::default());
    let mut other = layer.clone().layer(Leaf::default());
    fail(&mut one, 3).await;
    fail(&mut other, 2).await;
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_holds_until_taken_back() {
    let (mut service, handle) = guarded(options());
    handle.force_closed();
    fail(&mut service, 50).await;
    assert_eq!(
        (handle.state(), handle.tally().failures),
        (State::ForcedClosed, 50)
    );
    handle.disable();
    fail(&mut service, 50).await;
    assert_eq!(
        (handle.state(), handle.tally().failures),
        (State::Disabled, 50)
    );
    handle.force_open();
    advance(SECOND * 3_600).await;
    let refused = call(&mut service, Ok(())).await.expect_err("forced open");
    assert!(refused.is_breaker_open() && refused.retry_after().is_none());
    handle.enable();
    call(&mut service, Ok(())).await.expect("let through");
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn watchers_see_every_change_and_waiters_each_recovery() {
    let (mut service, handle) = guarded(options().with_half_open_calls(1));
    let mut watcher = handle.subscribe();
    let mut recoveries = handle.recoveries();
    assert_eq!(watcher.borrow_and_update().transitions, 0);
    fail(&mut service, 5).await;
    let opened = *watcher.borrow_and_update();
    assert_eq!((opened.state, opened.transitions), (State::Open, 1));
    let outage = handle.outage().expect("in progress");
    assert_eq!(outage.since, opened.since);

    advance(SECOND).await;
    fail(&mut service, 1).await;
    advance(SECOND * 2).await;
    assert_eq!(handle.outage(), Some(outage), "one outage, not two");
    assert!(!recoveries.has_changed().expect("alive"));
    call(&mut service, Ok(())).await.expect("up again");
    assert_eq!(*recoveries.borrow_and_update(), 1);
    let closed = *watcher.borrow_and_update();
    assert_eq!((closed.state, closed.transitions), (State::Closed, 5));
    assert_eq!(closed.since - opened.since, SECOND * 3);
    assert_eq!(handle.outage(), None);

    // Who waits for an operator to open the way again is woken, too.
    handle.force_open();
    assert_eq!(handle.outage(), None, "an operator is no outage");
    handle.enable();
    assert_eq!(*recoveries.borrow_and_update(), 2);
    handle.disable();
    handle.enable();
    assert_eq!(*recoveries.borrow(), 2, "calls were let through all along");
}

#[tokio::test(start_paused = true)]
async fn metrics_show_one_state_at_a_time_and_whole_outages() {
    let metrics = BreakerMetrics::default();
    let layer = BreakerLayer::new(options().with_half_open_calls(1)).with_metrics(metrics.clone());
    let mut service = layer.layer(Leaf::default());
    let shown = || {
        State::ALL
            .into_iter()
            .filter(|state| metrics.state.with_label_values(&[state.as_str()]).get() == 1)
            .collect::<Vec<_>>()
    };
    let entered = |state: State| {
        metrics
            .transitions
            .with_label_values(&[state.as_str()])
            .get()
    };
    assert_eq!(
        metrics.state.collect()[0].get_metric().len(),
        State::ALL.len()
    );
    assert_eq!(shown(), [State::Closed]);
    fail(&mut service, 7).await;
    assert_eq!(shown(), [State::Open]);
    assert_eq!((metrics.refused.get(), metrics.outage.get()), (2, 1));
    advance(SECOND).await;
    fail(&mut service, 1).await;
    advance(SECOND * 2).await;
    let probe = service.ready().await.expect("ready").call(Ok(()));
    assert_eq!(shown(), [State::HalfOpen]);
    probe.await.expect("up again");
    assert_eq!(shown(), [State::Closed]);
    assert_eq!((metrics.outages.get(), metrics.outage.get()), (1, 0));
    assert_eq!(metrics.outage_seconds.get(), 3.0);
    let transitions = [State::Open, State::HalfOpen, State::Closed].map(entered);
    assert_eq!(transitions, [2, 2, 1]);
    layer.handle().force_open();
    assert_eq!(
        (shown(), metrics.outages.get()),
        (vec![State::ForcedOpen], 1)
    );
}

#[tokio::test(start_paused = true)]
async fn events_are_one_per_change_and_none_per_call() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (mut service, handle) = guarded(options().with_half_open_calls(1));
    // tracing registers an event at its first use, which races with a new subscriber.
    handle.trip();
    advance(SECOND).await;
    call(&mut service, Ok(())).await.expect("up again");
    handle.reset();
    let _guard = tracing::subscriber::set_default(Lines(lines.clone()));
    fail(&mut service, 50).await;
    advance(SECOND * 2).await;
    for _ in 0..50 {
        call(&mut service, Ok(())).await.expect("up again");
    }
    use tracing::Level;
    assert_eq!(*lines.lock(), [Level::WARN, Level::DEBUG, Level::INFO]);
}

/// Keeps the levels of all events.
struct Lines(Arc<Mutex<Vec<tracing::Level>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("seawall")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().push(*event.metadata().level());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

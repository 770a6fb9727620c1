//! What the line adds to a call: time and allocations over a leaf that does nothing, and a refusal.
//!
//! `cargo bench --features chaos --bench line`

mod report;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::{Ready, ready},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
};

use seawall::{
    Error, RedisCall, Reply,
    breaker::{BreakerLayer, BreakerOptions},
    observe::ObserveLayer,
    retry::RetryLayer,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut report = Report::new("line");
    // Short ones, so that most pass without the machine doing something else in between.
    let rounds = report.sized(2_001, 21);
    let calls = 1_000;
    report.condition("rounds", &rounds);
    report.condition("calls a round", &calls);

    let call = RedisCall::new("ping", redis::cmd("PING"));
    let breaker = BreakerLayer::new(BreakerOptions::default());
    let mut line = ServiceBuilder::new()
        .layer(ObserveLayer::default())
        .layer(RetryLayer::default())
        .layer(breaker)
        .service(Nothing);
    let shut = BreakerLayer::new(BreakerOptions::default());
    let mut refusing = shut.layer(Nothing);
    shut.handle().trip();

    let (mut bare, mut whole, mut refusal) = Default::default();
    let (mut line_allocations, mut refusal_allocations) = (0, 0);
    for _ in 0..rounds {
        round(&mut bare, &mut Nothing, &call, calls).await;
        line_allocations = round(&mut whole, &mut line, &call, calls).await;
        // Long before it would let a probe through.
        shut.handle().reset();
        shut.handle().trip();
        refusal_allocations = round(&mut refusal, &mut refusing, &call, calls / 10).await;
    }

    let (bare, whole) = (bare.median(), whole.median());
    report.row(
        Row::new(
            "observe + retry + breaker: adds",
            Unit::Seconds,
            whole - bare,
        )
        .goal(Goal::Below(250e-9)),
    );
    report.row(Row::new("the whole call", Unit::Seconds, whole).against("bare no-op", bare));
    report.row(
        Row::new(
            "allocations a call",
            Unit::Count,
            per_call(line_allocations, calls),
        )
        .goal(Goal::AtMost(0.0)),
    );
    report.row(
        Row::new(
            "breaker refusal while open",
            Unit::Seconds,
            refusal.median(),
        )
        .goal(Goal::Below(100e-9)),
    );
    report.row(Row::new(
        "allocations a refusal (the error)",
        Unit::Count,
        per_call(refusal_allocations, calls / 10),
    ));
    report.finish();
}

/// The leaf.
#[derive(Clone, Copy)]
struct Nothing;

impl Service<RedisCall> for Nothing {
    type Response = Reply;
    type Error = Error;
    type Future = Ready<Result<Reply, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: RedisCall) -> Self::Future {
        ready(Ok(Reply::new(redis::Value::Okay)))
    }
}

/// The seconds of one call, and how many allocations all of them made.
async fn round<S>(into: &mut Rounds, service: &mut S, call: &RedisCall, calls: u32) -> u64
where
    S: Service<RedisCall, Response = Reply, Error = Error>,
{
    let before = ALLOCATIONS.load(Relaxed);
    let began = Instant::now();
    for _ in 0..calls {
        let ready = service.ready().await.expect("it is always ready");
        let _ = std::hint::black_box(ready.call(call.clone()).await);
    }
    into.push(began.elapsed().as_secs_f64() / f64::from(calls));
    ALLOCATIONS.load(Relaxed) - before
}

/// A first call resolves its metrics; that is not a cost of a call.
fn per_call(allocations: u64, calls: u32) -> f64 {
    (allocations as f64 / f64::from(calls) * 100.0).round() / 100.0
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its signature, and to count is all that this one does"
)]
// SAFETY: each method hands its arguments on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promises us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises us, and `alloc` got it from there.
        unsafe { System.dealloc(at, layout) }
    }
}

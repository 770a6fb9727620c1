//! The circuit breaker: stops knocking on a dead door, and looks now and then whether it opens.
//!
//! While Redis is away every call costs its caller a timeout and Redis a connection. The breaker
//! notices, and answers at once instead, with an error that says
//! [when to come back](crate::Error::retry_after). When that time has passed it lets a few calls
//! through; if they succeed, traffic flows again.
//!
//! ```text
//!             failures in a row, failure rate, slow calls
//!     Closed ---------------------------------------------> Open <--+
//!        ^                                                   |      | one fails, or hangs
//!        |                                    its time ran out      |
//!        +----------- all few calls passed ------------- HalfOpen --+
//! ```
//!
//! No timer runs: it is the first call after the open time that makes it half-open. An operator can
//! override it: forced open, forced closed, or disabled, see [`BreakerHandle`].
//!
//! # What counts
//!
//! [`Verdict::speaks_against`](crate::classify::Verdict::speaks_against) decides. An outage is a
//! failure, and so is an attempt that was sent and failed. A permanent error is a *success*: Redis
//! is alive and said no. An attempt that never left (our own pool was busy) does not count, nor does
//! a call that its caller cancelled.
//!
//! An answer counts only towards the period its call was let in. One from before the breaker opened
//! cannot close it, whenever it arrives.
//!
//! # Readiness
//!
//! A [`Breaker`] that refuses is *ready*, and refuses in `call`: tower's `Retry` awaits readiness
//! between two attempts and would hang on anything else. The inner service is not even asked then,
//! since some connect when asked. While calls are let through, the inner's readiness is the
//! breaker's: a caller that waits for it waits on, also if the breaker opens meanwhile. An inner that
//! fails to become ready has failed a call.
//!
//! # Cancel safety
//!
//! A call can be dropped at any time. If it was one of the few of a half-open breaker, another takes
//! its place.
//!
//! # The defaults, and why
//!
//! Resilience4j's are the best known, and made for slower things. Redis answers in under a
//! millisecond, and its clients are many and small.
//!
//! | [`BreakerOptions`] | here | Resilience4j | why |
//! |---|---|---|---|
//! | `consecutive_failures` | 5 | none | a dead Redis fails every call: five in a row are an outage at any traffic, after one call a minute or 100,000 a second |
//! | `failure_rate` | 50 % | 50 % | for what fails in part: a flaky path, one shard of a cluster |
//! | `sliding_window` | 100 calls | 100 calls | costs the least, and is as quick as the traffic: at 10,000 calls a second it is the last 10 ms |
//! | `minimum_calls` | 10 | 100 | a quiet producer sees 100 calls too late |
//! | `slow_call` | off | 60 s | an attempt is cut off, and fails, after 0.5 s; below that, slow is better than not at all |
//! | `open_time` | 0.5 s | 60 s | a failover takes seconds; a reset fells every call in flight at once and must not cost a minute |
//! | `open_time_factor`, `open_time_cap` | 2, 15 s | 1 | a long outage is not knocked on twice a second, its end is seen within 15 s |
//! | `open_time_jitter` | 25 % | 0 | a fleet does not come back in step |
//! | `healthy_after` | 30 s | - | what opens again sooner is not well, and stays open longer |
//! | `half_open_calls` | 3 | 10 | one answer can be luck, ten are a long wait on a quiet producer |
//! | `half_open_max_wait` | 1 s | for ever | twice what an attempt may take |
//!
//! # Default
//!
//! ```
//! use seawall::{Error, breaker::BreakerLayer};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let service = ServiceBuilder::new()
//!     .layer(BreakerLayer::default())
//!     .service(service_fn(async |n: u32| Ok::<_, Error>(n + 1)));
//! assert_eq!(service.oneshot(1).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! ```
//! use std::time::Duration;
//!
//! use seawall::{
//!     Error,
//!     breaker::{BreakerLayer, BreakerOptions, SlidingWindow, State},
//!     classify::{Class, Landed, Verdict},
//! };
//! use tower::{Layer as _, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = BreakerLayer::new(
//!     BreakerOptions::new()
//!         .with_sliding_window(SlidingWindow::Time(Duration::from_secs(10)))
//!         .with_consecutive_failures(2)
//!         .with_slow_call(Duration::from_millis(250))
//!         .with_open_time(Duration::from_secs(1)),
//! );
//! let handle = layer.handle();
//! let away = layer.layer(service_fn(async |(): ()| {
//!     let verdict = Verdict::new(Class::Outage, Landed::No);
//!     Err::<(), _>(Error::foreign(verdict, "connection refused"))
//! }));
//! for _ in 0..2 {
//!     assert!(away.clone().oneshot(()).await.is_err());
//! }
//! assert_eq!(handle.state(), State::Open);
//! let refused = away.oneshot(()).await.unwrap_err();
//! assert!(refused.is_breaker_open() && refused.retry_after().is_some());
//! # }
//! ```

pub mod future;
mod handle;
mod layer;
mod machine;
mod meters;
mod options;
mod permit;
mod service;
mod shared;
mod state;
mod window;

pub use self::{
    handle::BreakerHandle,
    layer::BreakerLayer,
    options::{BreakerOptions, SlidingWindow},
    service::Breaker,
    shared::{Outage, Snapshot},
    state::State,
    window::Tally,
};

//! Trying again what is safe to try again: with backoff, within a budget, before a deadline.
//!
//! [`RetryPolicy`] is a policy for [`tower::retry::Retry`], which makes the attempts. After each one
//! that failed it asks, in this order:
//!
//! | question | if not |
//! |---|---|
//! | Is the error [transient](crate::classify::Class), or an outage that [`retry_if`](RetryPolicy::retry_if) wants, and does [`never_if`](RetryPolicy::never_if) let it pass? | up at once |
//! | Can the call be sent again without doing its work [twice](crate::classify::Verdict::allows_repeat)? | denied: `unrepeatable` |
//! | Are there [retries](RetryPolicy::with_max_retries) left? | denied: `exhausted` |
//! | Can the next attempt begin before the [deadline](RetryPolicy::with_deadline) and the call's own? | denied: `deadline` |
//! | Is there a token in the [budget](RetryBudget)? | denied: `budget` |
//!
//! Then it waits for what the [`Backoff`] says, or for the error's
//! [`retry_after`](crate::Error::retry_after) if that is longer. When it gives up, the caller gets the
//! last error itself, with [`attempts`](crate::Error::attempts) and
//! [`elapsed`](crate::Error::elapsed) filled in, and if any attempt may have landed, the error says
//! so. What was denied is counted by reason in `seawall_retries_denied_total`.
//!
//! An outage goes up at once because what sits above it (the spool) or below it (the breaker and the
//! reconnect loop) deals with it better than a caller that waits.
//!
//! # Cancel safety
//!
//! A dropped call drops its wait or the attempt under way; there is no task behind it. A token that it
//! took is spent, one that it has not taken is not.
//!
//! The waits are timers of tokio, so the calls have to be made on a tokio runtime with time enabled.
//! If the inner service fails in `poll_ready` between attempts, tower passes that error up as it is.
//! seawall's own services never do.
//!
//! # Default
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use seawall::{Error, RedisCall, Reply, retry::RetryLayer};
//! use seawall::classify::{Class, Landed, Verdict};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Error> {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! // Stands for the breaker and the connection: refuses two attempts.
//! let leaf = service_fn(|_: RedisCall| async {
//!     match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
//!         0 | 1 => Err(Error::foreign(Verdict::new(Class::Transient, Landed::No), "try again")),
//!         _ => Ok(Reply::new(redis::Value::Okay)),
//!     }
//! });
//! let redis = ServiceBuilder::new().layer(RetryLayer::default()).service(leaf);
//! redis.oneshot(RedisCall::new("save", redis::cmd("SET").arg("user:1").arg("ann"))).await?;
//! assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! Background work with no spool above it, so it waits outages out by itself:
//!
//! ```
//! use std::time::Duration;
//! use seawall::{Error, metrics::Metrics};
//! use seawall::retry::{Backoff, Jitter, RetryBudget, RetryLayer, RetryPolicy};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let registry = prometheus::Registry::new();
//! let metrics = Metrics::register(&registry)?;
//! let backoff = Backoff::delays([10, 30, 60].map(Duration::from_secs))
//!     .with_jitter(Jitter::proportional(0.1)?);
//! let policy = RetryPolicy::new(backoff)
//!     .with_max_retries(5) // 10, 30, 60, 60, 60 s
//!     .with_deadline(Duration::from_secs(600))
//!     .with_budget(RetryBudget::new(0.1, 1)?.with_burst(20))
//!     .retry_if(Error::is_outage)
//!     .never_if(|error| error.kind() == seawall::error::ErrorKind::PoolBusy);
//! let layer = RetryLayer::new(policy).with_metrics(metrics.retry);
//! # drop(layer);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod budget;
mod counts;
mod decision;
mod jitter;
mod layer;
mod policy;
mod presets;

pub use self::{
    backoff::Backoff, budget::RetryBudget, jitter::Jitter, layer::RetryLayer, policy::RetryPolicy,
};
pub use crate::error::InvalidSetting;

#[cfg(test)]
mod tests;

//! Counts calls as their callers see them: all attempts together, refusals and cancellations too.
//!
//! It belongs on the outside, around retry and breaker. Each call counts once in
//! `seawall_calls_total`, by its [name](crate::call::Request::name) and its outcome:
//!
//! | outcome | the call |
//! |---|---|
//! | `ok` | was answered |
//! | `permanent`, `transient`, `outage` | failed, by its [class](crate::classify::Class) |
//! | `refused` | met an open circuit breaker |
//! | `cancelled` | was dropped by its caller before it was done |
//!
//! `seawall_call_seconds` has the times of the first four. A refusal takes no time and a cancelled
//! call has no end: both would make Redis look faster than it is.
//!
//! An error that has no call's name yet gets it here.
//!
//! # Cancel safety
//!
//! A call can be dropped at any time, and then counts as `cancelled`.
//!
//! # Default
//!
//! ```
//! use seawall::{Error, RedisCall, observe::ObserveLayer};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let service = ServiceBuilder::new()
//!     .layer(ObserveLayer::default())
//!     .service(service_fn(async |_: RedisCall| Ok::<_, Error>("PONG")));
//! service.oneshot(RedisCall::new("ping", redis::cmd("PING"))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! In the application's registry, and around a client that is not seawall's:
//!
//! ```
//! use seawall::{Error, call::Request, metrics::Metrics, observe::ObserveLayer};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! struct Mail(&'static str);
//!
//! impl Request for Mail {
//!     fn name(&self) -> &'static str {
//!         "mail"
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = prometheus::Registry::new();
//! let metrics = Metrics::register(&registry)?;
//! let service = ServiceBuilder::new()
//!     .layer(ObserveLayer::new(metrics.call))
//!     .service(service_fn(async |mail: Mail| Ok::<_, Error>(mail.0.len())));
//! service.oneshot(Mail("hello")).await?;
//!
//! let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather())?;
//! assert!(text.contains(r#"seawall_calls_total{call="mail",outcome="ok"} 1"#));
//! # Ok(())
//! # }
//! ```

pub mod future;
mod layer;
mod names;
mod service;

pub use self::{layer::ObserveLayer, service::Observe};

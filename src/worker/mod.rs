//! Executes the jobs of a queue: [`Seawall::worker`](crate::Seawall::worker).
//!
//! A job is enqueued [for a worker](crate::Job::for_worker), and executed by one of those that work its queue, in any
//! process that reaches the same Redis.
//!
//! # What is promised
//!
//! - **No job is lost.** It stays in Redis until it has succeeded, expired, been discarded, or become a dead letter
//!   that is looked at or has expired.
//! - **At least once.** An execution whose worker died, or was cut off for longer than its lease, is made again. Its
//!   [id](Delivery::id) is there for a handler to be idempotent by.
//! - **Not twice for want of an answer.** What a handler has finished while Redis is out is kept by the
//!   [spool](crate::spool), and applied when it is back, once. Whether a job was handed out in an answer that got
//!   lost is found out, and the job is executed by the worker it was meant for.
//! - **In order as far as it goes.** Jobs start in the order they are in the queue; with a concurrency of 1 each ends
//!   before the next one starts. Retries and jobs of dead workers come later.
//!
//! # Executions
//!
//! An execution has a time limit, and ends early if the worker shuts down, or has lost the job to another one: then
//! the handler's future is dropped at an await, and its [`cancellation`](Delivery::cancellation) tells whatever it
//! has started elsewhere. A panic is a failure like any other. Handlers share the runtime with what keeps the
//! worker's lease, so they must not block: that is for [`tokio::task::spawn_blocking`].
//!
//! What becomes of a failed job is decided by [`Retries`](crate::job::Retries), and by the [`Failure`] itself. A retry
//! waits in Redis, and takes no slot meanwhile.
//!
//! # Outages
//!
//! Nothing here ends because Redis is away. Running handlers go on, and no new jobs are fetched. Afterwards every
//! worker first gets a whole lease to say that it is alive, and to deliver what it has finished, before others may
//! take its jobs over.
//!
//! # Default
//!
//! ```no_run
//! use seawall::{Job, Seawall, worker::{Delivery, Failure}};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Email { to: String }
//!
//! async fn send(email: Email, delivery: Delivery) -> Result<(), Failure> {
//!     println!("{} to {}, attempt {}", delivery.id(), email.to, delivery.attempt());
//!     Ok(())
//! }
//!
//! # async fn run(seawall: Seawall) -> Result<(), Box<dyn std::error::Error>> {
//! let email = Email { to: "ann@example.org".into() };
//! let receipt = seawall.enqueue(Job::json("emails", &email)?.for_worker()).await?;
//! # let _ = receipt;
//! let report = seawall.worker("emails").run(send).await?;
//! # let _ = report;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! ```no_run
//! use std::time::Duration;
//! use seawall::{Seawall, job::Retries, worker::{Delivery, Failure}};
//!
//! struct Mailer;
//!
//! # async fn run(seawall: Seawall, stop: impl Future<Output = ()> + Send + 'static)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let report = seawall
//!     .worker("emails")
//!     .weight(3)
//!     .queue("newsletters", 1)
//!     .concurrency(64)
//!     .retries(Retries::exponential(Duration::from_secs(2), Duration::from_secs(600)).with_max(8))
//!     .never_if(|failure| failure.error_type() == "http_401")
//!     .timeout(Duration::from_secs(30))
//!     .result_ttl(Duration::from_secs(3600))
//!     .extension(Mailer)
//!     .shutdown_on(stop)
//!     .run(|delivery: Delivery| async move {
//!         let Some(Mailer) = delivery.extension() else {
//!             return Err(Failure::new("no_mailer", "there is no mailer").permanently());
//!         };
//!         match delivery.payload().len() {
//!             0 => Err(Failure::new("empty", "nothing to send").discard()),
//!             bytes => Ok(bytes),
//!         }
//!     })
//!     .await?;
//! println!("{} jobs succeeded", report.succeeded);
//! # Ok(())
//! # }
//! ```

mod budget;
mod builder;
mod conclude;
mod decision;
mod delivery;
mod dispatch;
mod ending;
mod execute;
mod extensions;
mod failure;
mod handler;
mod jobs;
mod lease;
mod line;
mod presence;
mod queue;
mod report;
mod settle;
mod source;
mod task_error;
mod turn;
mod wait;
mod weights;

pub(crate) use self::line::Line;
pub use self::{
    builder::Builder,
    decision::DeadReason,
    delivery::{Cancellation, Delivery, InvalidPayload},
    failure::Failure,
    handler::{Handler, IntoHandler, OfService, Output, Plain, Typed},
    presence::WorkerId,
    queue::{
        InvalidJobState, JobInfo, JobPage, JobState, Page, Queue, QueueCounters, QueueStat,
        WorkerCounters, WorkerInfo, WorkerState, queues,
    },
    report::{WorkerError, WorkerReport},
    task_error::{FailedAttempt, TaskError},
};

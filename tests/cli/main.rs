//! The command `seawall`, run as a user runs it, on spools that the library has made and on queues.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod draining;
mod looking;
mod moving;
mod queue;
mod queue_trouble;
#[path = "../shared/queues.rs"]
mod queues;
mod support;
mod tails;
mod trouble;

//! A queue of workers, looked at from outside and put right by hand, on a real Redis.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod away;
mod dead;
mod life;
mod lists;
mod names;
#[path = "../shared/packed.rs"]
mod packed;
mod states;
#[path = "../shared/queues.rs"]
mod support;
mod workers;

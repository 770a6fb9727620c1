//! The script that a queue of workers is changed by, on a real Redis, against a plain model of what it promises.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

#[path = "../shared/packed.rs"]
mod packed;
#[path = "../shared/seeds.rs"]
mod seeds;

mod again;
mod batches;
mod mixed;
mod model;
mod queue;

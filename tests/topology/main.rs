//! Two deployments, of which one is used at a time: killed, frozen, moved and mixed up.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod directories;
mod moving;
mod restarts;
mod seeded;
#[path = "../shared/seeds.rs"]
mod seeds;
mod support;
mod switching;
mod workers;

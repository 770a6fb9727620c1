//! Workers that are killed, frozen and cut off, and a Redis that is killed, frozen and failed over: and every job ends.
//!
//! A worker that is to be hurt is this test binary run again ([`crew`]). It notes on the local disk when an execution
//! begins and how it ends ([`diary`]); the test holds these notes against what Redis says of the jobs, and against
//! what was done to whom ([`judge`]). A job that was executed more often than it failed is explained by one of the
//! few causes that allow it, or the test fails.
//!
//! `SEAWALL_SEEDS=2000` runs ten times as many seeds as usual; `SEAWALL_SEED=7` runs that one only.
#![allow(
    clippy::print_stdout,
    reason = "a worker speaks on its standard output, and the books are shown"
)]

mod crew;
mod diary;
mod failover;
mod freezes;
mod judge;
mod kills;
mod outages;
mod poison;
mod scene;
#[path = "../../shared/seeds.rs"]
mod seeds;
mod storm;

use std::time::Duration;

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(120);

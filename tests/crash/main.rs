//! The application dies, the disk fills, callers go away: and the books balance.
//!
//! An application that is to die is this test binary run again ([`app`]); it says on its standard
//! output what it was promised, and the test holds the promises against what Redis has
//! ([`scene`]). `SEAWALL_SEEDS=2000` runs ten times as many seeds as usual, 200 being the measure for all
//! tests; `SEAWALL_SEED=7` runs that one only.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that unwraps an error fails, as it should, and speaks on its standard output"
)]

mod adopting;
mod app;
mod cancel;
mod cycles;
mod deque;
mod direct;
mod disk;
mod ending;
mod full;
mod model;
mod neighbours;
mod opening;
mod replaying;
mod scene;
#[path = "../shared/seeds.rs"]
mod seeds;
mod slots;
mod spooling;
mod unparking;
mod unreadable;

use std::time::Duration;

use self::seeds::{dice, seeds};

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(60);

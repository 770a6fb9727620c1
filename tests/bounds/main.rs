//! How much a spool may hold, what happens to the rest, and who is told.
//!
//! The far end is a model that is up or down as the test says; the disk is real.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod age;
mod crowd;
mod drops;
mod far;
mod heard;
mod signals;
mod weather;

use std::time::Duration;

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(60);

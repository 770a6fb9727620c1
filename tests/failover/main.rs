//! Writes that Redis has acknowledged and lost, given back: failovers to replicas that lag, split brains,
//! restarts without data, and what somebody has removed.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod adopted;
mod lost;
mod removed;
mod replicated;
mod restarted;
mod spilled;
mod support;

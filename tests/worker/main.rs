//! Workers against a real Redis that is killed, frozen and lied about.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod agree;
mod basic;
mod chaos;
mod edges;
mod leases;
mod outage;
mod prefetch;
mod refusals;
mod script;
mod shutdown;
mod span;
mod standstill;
mod support;

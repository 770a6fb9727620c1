//! Redis Cluster: real nodes that are killed, frozen, failed over and resharded under load.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod calls;
mod kit;
mod moves;
mod outages;
mod peer;
mod repair;
#[path = "../shared/seeds.rs"]
mod seeds;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod workers;

//! What Redis, or the way to it, can say to a call, said by real servers, and what becomes of the call.
//!
//! `network`, `answers`, `cluster`: each row of the table in [`seawall::classify`], at the leaf. `calls`
//! and `lanes`: the same through the whole line. `parked`, `unparked`, `expired`, `destinations`: what becomes of
//! jobs that Redis takes, or never will. `secrets`: what none of it may show.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]
#![allow(unreachable_pub, reason = "there is nothing outside a test")]

mod answers;
mod calls;
mod cluster;
mod destinations;
mod expired;
mod lanes;
mod network;
mod parked;
mod secrets;
mod support;
mod unparked;

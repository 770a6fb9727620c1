//! Encryption at rest: what is on disk, what it takes to open it, and what becomes of it when somebody has
//! been at it. Real files, and a service that is out or takes all.
#![cfg(all(feature = "encrypt", feature = "chaos"))]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod altered;
mod chunks;
mod keys;
mod left;
mod support;

//! Records on disk while Redis is away.

// The lanes are what uses this.
#[allow(dead_code)]
mod chunk;
#[allow(dead_code)]
mod commit;
mod dir;
mod error;
mod store;

pub use self::{chunk::LaneId, commit::Durability, error::OpenError};

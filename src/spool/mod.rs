//! Records on disk while Redis is away.

// What uses the disk, the lanes, comes next.
#[allow(dead_code, unused_imports)]
mod chunk;
#[allow(dead_code, unused_imports)]
mod commit;
mod dir;
#[allow(dead_code)]
mod error;
mod store;

pub use self::{chunk::LaneId, commit::Durability, error::OpenError};

//! seawall
mod builder;
mod connection;
mod fault;
mod port;
mod process;
mod proxy;
mod resp;
mod server;
mod wait;

pub use builder::{RedisServerBuilder, StartError};
pub use fault::Fault;
pub use proxy::{Counts, FaultProxy};
pub use server::RedisServer;
pub use wait::{NotMet, wait_until};

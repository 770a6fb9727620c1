//! seawall keeps an application's Redis calls and job enqueues working through a Redis outage.

pub mod breaker;
pub mod call;
#[cfg(feature = "chaos")]
pub mod chaos;
pub mod classify;
pub mod connect;
pub mod error;
pub mod job;
pub mod metrics;
pub mod observe;
pub mod retry;
pub mod sequence;
pub mod spool;
pub mod stack;
pub mod wrap;

pub use self::{
    call::{RedisCall, Reply},
    error::Error,
    job::Job,
    stack::Seawall,
};

//! seawall keeps an application's Redis calls and job enqueues working through a Redis outage.

pub mod call;
pub mod classify;
pub mod connect;
pub mod error;
pub mod metrics;

pub use self::{
    call::{RedisCall, Reply},
    error::Error,
};

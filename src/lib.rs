//! seawall keeps an application's Redis calls and job enqueues working through a Redis outage.

pub mod call;

#[cfg(feature = "chaos")]
pub mod chaos;

//! A job for a [worker](crate::worker): what is stored of it, under which keys, and what changes it.
//!
//! All that a queue of workers is lies in the queue's hash slot, under the names of [`Keys`]. What producers and
//! finished handlers write goes through the [spool](crate::spool) like any other record, as an [`Operation`] of the
//! [`PROCEDURE`]: once and in order, kept on disk while Redis is out, and given back when a failover has lost it.

mod handling;
mod keys;
mod operation;
mod record;
mod retries;

pub use self::{
    handling::Handling,
    operation::{PROCEDURE, Step},
    retries::Retries,
};
pub(crate) use self::{
    handling::millis_in,
    keys::Keys,
    operation::{Due, Execution, Operation, Outcome, add},
    record::{Record, Unreadable, millis},
};

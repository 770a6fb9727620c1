//! Turns a numbered [`Batch`] into one Lua call that applies what Redis has not seen yet.
//!
//! Redis keeps one small key per lane, `seawall:{queue}:lane:<id>`, in the queue's hash slot: the last
//! number applied. The script reads it, skips what is not newer, applies the rest, stores it, all in
//! one step. So a batch whose reply was lost can be sent again, and one that a dead connection left
//! behind may still arrive: neither does anything twice. Kafka's idempotent producer numbers its
//! batches for the same reason.
//!
//! There are two scripts. Records that are one push to one list go the fast way, as one LPUSH or RPUSH
//! of all values. Anything else goes the general way: each record is a group of commands, or what a
//! [`Procedure`] makes of it.
//!
//! What the script answers, and what it means:
//!
//! | answer | |
//! |---|---|
//! | done | all are in; so many were in before |
//! | refused | Redis will never take the next record: its key has the wrong type, its command is malformed |
//! | stopped | the next record met something that is not its fault: a missing permission |
//! | gap | Redis has lost writes it had acknowledged; nothing was done |
//! | an error | the server takes nothing now (OOM, READONLY, ..); nothing was done |
//!
//! A group of commands is carried out with nothing in between, but Redis has no rollback: when a command
//! in its middle is refused, those before it have been carried out, and the reason says so. If the answer that says so is lost, they
//! are carried out once more.
//!
//! # Default
//!
//! ```
//! use seawall::sequence::SequenceLayer;
//! let layer = SequenceLayer::new();
//! # let _ = layer;
//! ```
//!
//! # Customised
//!
//! A group of commands as one record, exactly once and in order with the others of its queue:
//!
//! ```
//! use seawall::sequence::{Command, Write};
//!
//! let id = "8c1f";
//! let write = Write::group("rq:queue:mail", vec![
//!     Command::new("HSET").arg(format!("rq:job:{id}")).arg("status").arg("queued"),
//!     Command::new("RPUSH").arg("rq:queue:mail").arg(id),
//! ]);
//! # let _ = write;
//! ```

pub mod future;
mod procedure;
mod script;
mod service;
mod write;

pub use self::{
    procedure::Procedure,
    service::{Sequence, SequenceLayer},
    write::{Action, Command, Side, Write},
};
#[cfg(doc)]
use crate::spool::Batch;

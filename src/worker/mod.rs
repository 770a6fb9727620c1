//! Executes jobs. A placeholder: the worker itself has this file.

mod budget;
mod decision;
mod failure;
mod task_error;

pub use self::{
    decision::DeadReason,
    failure::Failure,
    task_error::{FailedAttempt, TaskError},
};

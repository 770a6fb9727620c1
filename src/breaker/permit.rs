//! A call's leave to pass, which comes back exactly once.

use std::sync::Arc;

use super::{
    machine::{Entry, Outcome},
    shared::Shared,
};
use crate::error::Error;

/// Settled by the answer; dropped without one, it gives its place back.
#[derive(Debug)]
pub(super) struct Permit {
    shared: Arc<Shared>,
    /// `None` once settled.
    entry: Option<Entry>,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, entry: Entry) -> Self {
        Self {
            shared,
            entry: Some(entry),
        }
    }

    pub(super) fn settle<T>(mut self, result: &Result<T, Error>) {
        let outcome = match result {
            Ok(_) => Outcome::Success,
            Err(error) => match error.verdict().speaks_against() {
                Some(true) => Outcome::Failure,
                Some(false) => Outcome::Success,
                None => Outcome::Ignored,
            },
        };
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        if let Some(entry) = self.entry.take() {
            self.shared.record(entry, outcome);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(Outcome::Ignored);
    }
}

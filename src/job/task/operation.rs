//! What producers and finished executions write to a queue: [`Operation`].

use std::sync::Arc;

use bytes::Bytes;

use super::{Keys, Record};
use crate::{
    job::JobId,
    sequence::{Procedure, Write},
};

/// What the jobs of workers are written by. The line of a [`Seawall`](crate::Seawall) knows it; one that is built
/// by hand is told with [`SequenceLayer::with_procedure`](crate::sequence::SequenceLayer::with_procedure).
pub static PROCEDURE: Procedure = Procedure::new("queue", include_str!("queue.lua"), Keys::written);

/// A change of a queue, as one record of a lane.
///
/// An execution is told by its job, the number of its attempt and the `token` of its worker. What arrives late,
/// after the job has been taken away, changes nothing: see `queue.lua`.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// A new job, unless the queue has this id already.
    Add { id: JobId, record: Record },
    /// It is finished, and nothing is left of it but how it ended, for `ttl_ms`; 0 is nothing at all.
    End {
        execution: Execution,
        outcome: Outcome,
        ttl_ms: u64,
        result: Bytes,
    },
    /// It has failed, and is due again.
    Retry {
        execution: Execution,
        due: Due,
        failures: Bytes,
    },
    /// It has failed for good. Of the dead letters the oldest are removed beyond `most`.
    Bury {
        execution: Execution,
        expires_ms: u64,
        most: u64,
        failures: Bytes,
    },
    /// It goes back to the front of the queue as if it had not been started.
    GiveBack { execution: Execution },
}

/// When a job that has failed is to be executed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    /// Milliseconds since 1970.
    At(u64),
    /// As soon as there is a worker that executes no other such job.
    Alone,
}

impl Due {
    /// As the script has it.
    fn bytes(self) -> Bytes {
        match self {
            Self::Now => number(0),
            Self::At(ms) => number(ms),
            Self::Alone => Bytes::from_static(b"-1"),
        }
    }
}

/// One execution of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) id: JobId,
    /// 1 for the first.
    pub(crate) attempt: u32,
    /// The worker's.
    pub(crate) token: Arc<str>,
    /// When its job was enqueued, which tells it from an earlier one of the same id.
    pub(crate) enqueued_ms: u64,
}

/// How a job ended that is no dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Expired,
    Discarded,
}

impl Outcome {
    /// As the script has it.
    const fn letter(self) -> &'static [u8; 1] {
        match self {
            Self::Succeeded => b"s",
            Self::Expired => b"x",
            Self::Discarded => b"d",
        }
    }

    pub(crate) fn of_letter(letter: u8) -> Option<Self> {
        let all = [Self::Succeeded, Self::Expired, Self::Discarded];
        all.into_iter()
            .find(|outcome| *outcome.letter() == [letter])
    }
}

impl Operation {
    pub(crate) fn into_write(self, queue: Arc<str>) -> Write {
        match self {
            Self::Add { id, record } => {
                let kind = Bytes::from_static(b"A");
                let id = Bytes::copy_from_slice(id.as_bytes());
                let arguments = vec![kind, id, record.encode(), number(record.due_ms)];
                Write::procedure(queue, &PROCEDURE, arguments)
            }
            Self::End {
                execution,
                outcome,
                ttl_ms: 0,
                ..
            } => of(
                queue,
                b"E",
                &execution,
                [Bytes::from_static(outcome.letter())],
            ),
            Self::End {
                execution,
                outcome,
                ttl_ms,
                result,
            } => {
                let kept = [Bytes::from_static(outcome.letter()), number(ttl_ms), result];
                of(queue, b"E", &execution, kept)
            }
            Self::Retry {
                execution,
                due,
                failures,
            } => of(queue, b"R", &execution, [due.bytes(), failures]),
            Self::Bury {
                execution,
                expires_ms,
                most,
                failures,
            } => {
                let more = [number(expires_ms), number(most), failures];
                of(queue, b"D", &execution, more)
            }
            Self::GiveBack { execution } => of(queue, b"G", &execution, []),
        }
    }
}

/// What all operations of executions begin with, and `more`.
fn of<const N: usize>(
    queue: Arc<str>,
    kind: &'static [u8; 1],
    execution: &Execution,
    more: [Bytes; N],
) -> Write {
    let Execution {
        id,
        attempt,
        token,
        enqueued_ms,
    } = execution;
    // One allocation for all three.
    let mut parts = Vec::with_capacity(24 + 11 + token.len());
    parts.extend(id.as_bytes());
    // As the record has it.
    parts.extend(enqueued_ms.to_le_bytes());
    parts.extend(attempt.to_string().as_bytes());
    parts.push(b' ');
    parts.extend(token.as_bytes());
    let parts = Bytes::from(parts);
    let mut arguments = Vec::with_capacity(4 + N);
    arguments.extend([
        Bytes::from_static(kind),
        parts.slice(..16),
        parts.slice(24..),
        parts.slice(16..24),
    ]);
    arguments.extend(more);
    Write::procedure(queue, &PROCEDURE, arguments)
}

fn number(number: u64) -> Bytes {
    match number {
        0 => Bytes::from_static(b"0"),
        1 => Bytes::from_static(b"1"),
        number => number.to_string().into(),
    }
}

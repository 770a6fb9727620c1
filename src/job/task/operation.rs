//! What producers and finished executions write to a queue: [`Operation`].

use std::{io::Write as _, sync::Arc};

use bytes::{BufMut, Bytes};

use super::{Keys, Record, record::LATEST};
use crate::{
    job::JobId,
    sequence::{Procedure, Write},
};

/// What the jobs of workers are written by. The line of a [`Seawall`](crate::Seawall) knows it; one that is built
/// by hand is told with [`SequenceLayer::with_procedure`](crate::sequence::SequenceLayer::with_procedure).
pub static PROCEDURE: Procedure = Procedure::new("queue", include_str!("queue.lua"), Keys::written);

/// What a record for the [`PROCEDURE`] does, and to which job: for whoever wants to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step<'a> {
    /// `add`, `end`, `retry`, `bury` (a dead letter) or `release` (as if it had not begun).
    pub verb: &'static str,
    /// Which job.
    pub job: JobId,
    /// All else, as the procedure reads it.
    pub rest: &'a [u8],
}

impl<'a> Step<'a> {
    /// Of what the procedure is given. `None` if that is not of this version, or of another procedure.
    pub fn read(argument: &'a [u8]) -> Option<Self> {
        let (kind, rest) = argument.split_first()?;
        let verb = match kind {
            b'A' => "add",
            b'E' => "end",
            b'R' => "retry",
            b'D' => "bury",
            b'G' => "release",
            _ => return None,
        };
        let (id, rest) = rest.split_first_chunk()?;
        let job = JobId::from_bytes(*id);
        Some(Self { verb, job, rest })
    }
}

/// A new job, unless the queue has this id already, as one record of a lane.
pub(crate) fn add(queue: Arc<str>, id: JobId, record: &Record) -> Write {
    let mut packed = Vec::with_capacity(HEAD + record.size());
    packed.put_u8(b'A');
    packed.put_slice(id.as_bytes());
    packed.put_u64_le(record.due_ms);
    record.encode(&mut packed);
    Write::procedure(queue, &PROCEDURE, packed)
}

/// What an execution leads to, as one record of a lane.
///
/// An execution is told by its job, the number of its attempt and the `token` of its worker. What arrives late,
/// after the job has been taken away, changes nothing: see `queue.lua`.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
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
    fn number(self) -> u64 {
        match self {
            Self::Now => 0,
            // What is later is as good as never, and must not be taken for another number.
            Self::At(ms) => ms.min(LATEST),
            Self::Alone => u64::MAX,
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
    const fn letter(self) -> u8 {
        match self {
            Self::Succeeded => b's',
            Self::Expired => b'x',
            Self::Discarded => b'd',
        }
    }

    pub(crate) fn of_letter(letter: u8) -> Option<Self> {
        let all = [Self::Succeeded, Self::Expired, Self::Discarded];
        all.into_iter().find(|outcome| outcome.letter() == letter)
    }
}

impl Operation {
    pub(crate) fn to_write(&self, queue: Arc<str>) -> Write {
        Write::procedure(queue, &PROCEDURE, self.packed())
    }

    pub(crate) fn execution(&self) -> &Execution {
        match self {
            Self::End { execution, .. }
            | Self::Retry { execution, .. }
            | Self::Bury { execution, .. }
            | Self::GiveBack { execution } => execution,
        }
    }

    /// The same, as the worker says it that is now called so.
    pub(crate) fn said_by(mut self, token: Arc<str>) -> Self {
        let (Self::End { execution, .. }
        | Self::Retry { execution, .. }
        | Self::Bury { execution, .. }
        | Self::GiveBack { execution }) = &mut self;
        execution.token = token;
        self
    }

    /// As `queue.lua` has it.
    fn packed(&self) -> Vec<u8> {
        match self {
            Self::End {
                execution,
                outcome,
                ttl_ms,
                result,
            } => {
                let result = if *ttl_ms > 0 { &result[..] } else { &[] };
                let mut into = execution.head(b'E', 9 + result.len());
                into.put_u8(outcome.letter());
                into.put_u64_le(*ttl_ms);
                execution.put_run(&mut into);
                into.put_slice(result);
                into
            }
            Self::Retry {
                execution,
                due,
                failures,
            } => {
                let mut into = execution.head(b'R', 8 + failures.len());
                into.put_u64_le(due.number());
                execution.put_run(&mut into);
                into.put_slice(failures);
                into
            }
            Self::Bury {
                execution,
                expires_ms,
                most,
                failures,
            } => {
                let mut into = execution.head(b'D', 16 + failures.len());
                into.put_u64_le(*expires_ms);
                into.put_u64_le(*most);
                execution.put_run(&mut into);
                into.put_slice(failures);
                into
            }
            Self::GiveBack { execution } => {
                let mut into = execution.head(b'G', 0);
                execution.put_run(&mut into);
                into
            }
        }
    }
}

impl Execution {
    /// What all operations begin with, with room for the run and for so much more.
    fn head(&self, kind: u8, more: usize) -> Vec<u8> {
        let mut into = Vec::with_capacity(HEAD + LONGEST_ATTEMPT + 2 + self.token.len() + more);
        into.put_u8(kind);
        into.put_slice(self.id.as_bytes());
        into.put_u64_le(self.enqueued_ms);
        into
    }

    fn put_run(&self, into: &mut Vec<u8>) {
        let at = into.len();
        into.put_u8(0);
        write!(into, "{} {}", self.attempt, self.token).expect("memory takes all that is written");
        let length = into.len() - at - 1;
        into[at] = u8::try_from(length).expect("a worker's token has 64 digits");
    }
}

/// The letter, the id, and a number.
const HEAD: usize = 1 + 16 + 8;
/// In digits.
const LONGEST_ATTEMPT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_operation_is_shown_as_none() {
        for other in [&b""[..], b"A", b"A123456789012345", b"?1234567890123456"] {
            assert_eq!(Step::read(other), None);
        }
    }

    #[test]
    fn an_operation_is_packed_as_the_script_reads_it() {
        let execution = Execution {
            id: JobId::from_bytes([7; 16]),
            attempt: 3,
            token: "me".into(),
            enqueued_ms: 1,
        };
        let born = [&[7; 16][..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let number = u64::to_le_bytes;
        let end = |ttl_ms| Operation::End {
            execution: execution.clone(),
            outcome: Outcome::Succeeded,
            ttl_ms,
            result: "42".into(),
        };
        let retry = |due| Operation::Retry {
            execution: execution.clone(),
            due,
            failures: "3 1".into(),
        };
        let bury = Operation::Bury {
            execution: execution.clone(),
            expires_ms: 9,
            most: 5,
            failures: "3 1".into(),
        };
        let cases = [
            (end(8), [&b"Es"[..], &number(8), b"\x043 me42"]),
            (end(0), [b"Es", &number(0), b"\x043 me"]),
            (retry(Due::Now), [b"R", &number(0), b"\x043 me3 1"]),
            (retry(Due::Alone), [b"R", &[255; 8], b"\x043 me3 1"]),
            (
                bury,
                [b"D", &[number(9), number(5)].concat(), b"\x043 me3 1"],
            ),
            (
                Operation::GiveBack {
                    execution: execution.clone(),
                },
                [b"G", b"", b"\x043 me"],
            ),
        ];
        for (operation, [letters, numbers, rest]) in cases {
            let (kind, outcome) = letters.split_at(1);
            let expected = [kind, &born, outcome, numbers, rest].concat();
            assert_eq!(operation.packed(), expected, "{operation:?}");
            let step = Step::read(&expected).expect("it is one");
            assert_eq!(step.job, execution.id);
        }
    }
}

//! One round of a worker on a queue, as a call and as what is read of its answer: see `turn.lua`.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use bytes::{Buf as _, Bytes};
use redis::{Cmd, Script, Value};

use crate::{
    call::{RedisCall, Repeat, Reply, ScriptCall},
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    job::{
        JobId,
        task::{Keys, Record, millis_in},
    },
    worker::settle::Key,
};

/// What a worker says and asks in one round.
pub(super) struct Turn<'a> {
    pub(super) token: &'a str,
    /// Each is greater than the one before.
    pub(super) number: u64,
    pub(super) lease: Duration,
    pub(super) wanted: usize,
    /// One of them may be a job that may have no other such beside it.
    pub(super) alone: bool,
    /// Looks for what dead workers have left, from where the last look has ended.
    pub(super) claim_from: Option<&'a str>,
    /// Until then by the clock of Redis, in milliseconds since 1970.
    pub(super) claim_until: u64,
    /// About the worker, if it is time to say so again.
    pub(super) about: Option<&'a str>,
    /// All executions there are, if the worker's view and that of Redis may differ.
    pub(super) known: Option<&'a [(JobId, u32)]>,
}

impl Turn<'_> {
    /// The call, which may be done only once: what it hands out would be lost to the second one.
    pub(super) fn call(&self, keys: &Keys, limit: Duration) -> RedisCall {
        let known = self.known.unwrap_or_default();
        let keys = keys.all();
        let mut cmd = Cmd::with_capacity(14 + keys.len() + 2 * known.len(), 1024);
        cmd.arg("EVALSHA").arg(TURN.get_hash()).arg(keys.len());
        for key in keys {
            cmd.arg(key);
        }
        let lease = millis_in(self.lease);
        cmd.arg(self.token)
            .arg(self.number)
            .arg(lease)
            .arg(self.wanted)
            .arg(self.claim_from.map_or(0, |_| MOST_CLAIMS))
            .arg(self.claim_until)
            .arg(self.claim_from.unwrap_or("0"))
            .arg(self.about.unwrap_or_default())
            .arg(i32::from(self.alone))
            .arg(i32::from(self.known.is_some()));
        for (id, attempt) in known {
            cmd.arg(&id.as_bytes()[..]).arg(*attempt);
        }
        script("worker_turn", TURN_SOURCE, cmd).with_timeout(limit)
    }
}

/// Says that the worker with this token works no more. Of one whose last turn may still be under way (`in_doubt`)
/// the token is spent.
pub(super) fn leave(keys: &Keys, token: &str, in_doubt: bool, limit: Duration) -> RedisCall {
    let keys = keys.all();
    let mut cmd = Cmd::new();
    cmd.arg("EVALSHA").arg(LEAVE.get_hash()).arg(keys.len());
    for key in keys {
        cmd.arg(key);
    }
    cmd.arg(token).arg(i32::from(in_doubt));
    script("worker_leave", LEAVE_SOURCE, cmd)
        .with_repeat(Repeat::Safe)
        .with_timeout(limit)
}

fn script(name: &'static str, source: &'static str, evalsha: Cmd) -> RedisCall {
    RedisCall::new(name, ScriptCall::new(source, evalsha))
}

/// Where a look begins that goes over everything, and not only if a worker has died.
pub(super) const ALL: &str = "all";

/// Where a look has ended that there was no need for.
pub(super) const CLEAN: &str = "clean";

/// How many jobs of dead workers are taken over at once.
const MOST_CLAIMS: usize = 250;

const TURN_SOURCE: &str = include_str!("turn.lua");
const LEAVE_SOURCE: &str = include_str!("leave.lua");

static TURN: LazyLock<Script> = LazyLock::new(|| Script::new(TURN_SOURCE));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(LEAVE_SOURCE));

/// What Redis answered.
#[derive(Debug)]
pub(super) enum Answer {
    Round(Round),
    /// Others take this worker for dead, and have its jobs.
    Gone,
    /// A later turn has come before this one, which has done nothing.
    Late,
}

#[derive(Debug)]
pub(super) struct Round {
    /// By the clock of Redis, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// When the next scheduled job is due, by the same clock.
    pub(super) next_due_ms: Option<u64>,
    /// Where the look for what dead workers have left has ended.
    pub(super) cursor: String,
    pub(super) depths: Depths,
    /// To be executed.
    pub(super) jobs: Vec<Taken>,
    /// Left by dead workers, and to be decided on.
    pub(super) claimed: Vec<Taken>,
    /// Executions that are no longer this worker's.
    pub(super) lost: Vec<JobId>,
    /// Those that a look has found to be this worker's, and their attempts.
    pub(super) own: Vec<(JobId, u32)>,
}

/// How many jobs the queue has, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depths {
    pub(super) ready: u64,
    pub(super) later: u64,
    pub(super) running: u64,
    pub(super) dead: u64,
    /// Of those in `later`: they wait for a worker that has no other such.
    pub(super) alone: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) id: JobId,
    pub(super) attempt: u32,
    pub(super) record: Bytes,
    /// How its earlier attempts have ended; empty if there were none.
    pub(super) failures: Bytes,
    /// The worker that had it before, if it died; or [`ALONE`].
    before: Bytes,
}

/// Stands in the place of the worker before.
const ALONE: &[u8] = b"alone";

impl Taken {
    /// The worker that had it before, and died.
    pub(super) fn before(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.before)
    }

    /// Whether no other such job may be beside it.
    pub(super) fn is_alone(&self) -> bool {
        self.before == ALONE
    }
}

impl Taken {
    pub(super) fn key(&self) -> Key {
        (self.id, self.attempt, Record::enqueued(&self.record))
    }

    /// Whether its record has come with it: the answer may have had no room for that.
    pub(super) fn has_come(&self) -> bool {
        !self.record.is_empty()
    }
}

impl Answer {
    pub(super) fn read(reply: Reply) -> Result<Self, Error> {
        answer(reply.into_value()).ok_or_else(|| {
            Error::new(
                ErrorKind::Redis,
                Verdict::new(Class::Permanent, Landed::Maybe),
            )
            .with_cause("the answer is not one of seawall's script")
        })
    }
}

fn answer(value: Value) -> Option<Answer> {
    let mut parts = list(value)?.into_iter();
    let status = bytes(parts.next()?)?;
    let now_ms = number(&parts.next()?)?;
    match &status[..] {
        b"ok" => {}
        b"gone" => return Some(Answer::Gone),
        b"late" => return Some(Answer::Late),
        _ => return None,
    }
    let next_due_ms = match parts.next()? {
        Value::Int(-1) => None,
        due => Some(number(&due)?),
    };
    let cursor = String::from_utf8(bytes(parts.next()?)?.into()).ok()?;
    let depths = list(parts.next()?)?;
    let depths = depths.iter().map(number).collect::<Option<Vec<_>>>()?;
    let [ready, later, running, dead, alone] = depths[..] else {
        return None;
    };
    let jobs = taken(parts.next()?)?;
    let claimed = taken(parts.next()?)?;
    let lost = list(parts.next()?)?.into_iter().map(id);
    let lost = lost.collect::<Option<_>>()?;
    let mut parts = list(parts.next()?)?.into_iter();
    let mut own = Vec::with_capacity(parts.len() / 2);
    while let Some(first) = parts.next() {
        own.push((id(first)?, attempt(number(&parts.next()?)?)));
    }
    Some(Answer::Round(Round {
        now_ms,
        next_due_ms,
        cursor,
        depths: Depths {
            ready,
            later,
            running,
            dead,
            alone,
        },
        jobs,
        claimed,
        lost,
        own,
    }))
}

fn taken(value: Value) -> Option<Vec<Taken>> {
    list(value)?
        .into_iter()
        .map(|value| unpack(bytes(value)?))
        .collect()
}

fn unpack(mut bytes: Bytes) -> Option<Taken> {
    let id = JobId::from_bytes(*bytes.first_chunk()?);
    bytes.advance(16);
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let counts = bytes.split_to(end);
    bytes.advance(1);
    let mut counts = std::str::from_utf8(&counts).ok()?.split(' ');
    let mut count = || counts.next()?.parse::<u64>().ok();
    let attempt = attempt(count()?);
    let mut part = || {
        let length = usize::try_from(count()?).ok()?;
        (length <= bytes.len()).then(|| bytes.split_to(length))
    };
    let (before, failures) = (part()?, part()?);
    Some(Taken {
        id,
        attempt,
        record: bytes,
        failures,
        before,
    })
}

fn id(value: Value) -> Option<JobId> {
    let bytes: [u8; 16] = bytes(value)?[..].try_into().ok()?;
    Some(JobId::from_bytes(bytes))
}

/// Counts are read as far as they go: see `TaskError`.
fn attempt(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn round() -> Vec<Value> {
        let depths = [1, 2, 3, 4, 5].map(Value::Int);
        let job = |rest: &[u8]| vec![Value::BulkString([&[7; 16], rest].concat())];
        vec![
            text("ok"),
            Value::Int(1_000),
            Value::Int(-1),
            text("0"),
            Value::Array(depths.into()),
            Value::Array(job(b"1 0 0\nrecord")),
            Value::Array(job(b"2 3 5\nher1 1\n\nrecord")),
            Value::Array(vec![Value::BulkString(vec![9; 16])]),
            Value::Array(vec![Value::BulkString(vec![8; 16]), Value::Int(3)]),
        ]
    }

    #[test]
    fn a_round_is_read_whole() {
        let answer = Answer::read(Reply::new(Value::Array(round())));
        let Ok(Answer::Round(round)) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((round.now_ms, round.next_due_ms), (1_000, None));
        assert_eq!((round.depths.dead, round.depths.alone), (4, 5));
        let [taken, claimed] = [&round.jobs[0], &round.claimed[0]];
        assert_eq!((taken.attempt, claimed.attempt), (1, 2));
        assert_eq!((&*taken.before(), &*claimed.before()), ("", "her"));
        assert_eq!(
            (&taken.failures[..], &claimed.failures[..]),
            (&b""[..], &b"1 1\n\n"[..])
        );
        assert_eq!(
            (&taken.record[..], &claimed.record[..]),
            (&b"record"[..], &b"record"[..])
        );
        assert_eq!(round.lost, [JobId::from_bytes([9; 16])]);
        assert_eq!(round.own, [(JobId::from_bytes([8; 16]), 3)]);
    }

    #[test]
    fn an_answer_that_is_not_the_scripts_is_an_error() {
        for at in 0..9 {
            let mut parts = round();
            parts[at] = Value::Okay;
            assert!(
                Answer::read(Reply::new(Value::Array(parts))).is_err(),
                "{at}"
            );
            let cut = round().into_iter().take(at).collect();
            assert!(Answer::read(Reply::new(Value::Array(cut))).is_err(), "{at}");
        }
        assert!(Answer::read(Reply::new(Value::Nil)).is_err());
        for job in ["short", "1234567890123456", "12345678901234561 0 9\nrecord"] {
            assert!(unpack(job.into()).is_none(), "{job}");
        }
    }
}

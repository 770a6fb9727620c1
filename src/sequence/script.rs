//! From a batch to a script call, and from the script's answer to what became of the batch.

use std::{sync::LazyLock, time::Duration};

use redis::{Cmd, Value};

use super::write::{Effect, Side, Write};
use crate::{
    call::{RedisCall, Repeat, Reply, Request, ScriptCall},
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{Applied, Asks, Batch},
};

/// The call that applies `batch`.
pub(super) fn call(batch: &Batch<Write>) -> RedisCall {
    let lane = format!(
        "seawall:{{{}}}:lane:{}",
        hash_tag(batch.queue()),
        batch.lane()
    );
    let call = match batch.asks() {
        Asks::End => RedisCall::new("end_lane", redis::cmd("UNLINK").arg(lane)),
        Asks::Reached => RedisCall::new("ask_lane", redis::cmd("GET").arg(lane)),
        Asks::Confirm {
            replicas,
            timeout,
            on_disk,
        } => confirm(batch, &lane, replicas, timeout, on_disk),
        _ => {
            let script = match one_list(batch) {
                Some((key, side)) => push(batch, &lane, key, side),
                None => group(batch, &lane),
            };
            RedisCall::new("apply", script)
        }
    };
    let mut call = call.with_repeat(Repeat::Safe);
    if let Some(generation) = batch.generation() {
        call = call.with_generation(generation);
    }
    match batch.deadline() {
        Some(deadline) => call.with_deadline(deadline),
        None => call,
    }
}

/// What the script answered.
pub(super) fn read(reply: Reply) -> Result<Applied, Error> {
    let parts = match reply.into_value() {
        // The answer to UNLINK.
        Value::Int(_) => return Ok(Applied::all()),
        // Those to GET.
        Value::Nil => return Ok(Applied::reached(0)),
        Value::BulkString(number) => return number_in(&number).map(Applied::reached),
        Value::Array(parts) => parts,
        _ => return Err(unreadable()),
    };
    if let [last, Value::Int(_), waited] = &parts[..] {
        return confirmed(last, waited);
    }
    let text = |at: usize| match parts.get(at) {
        Some(Value::BulkString(bytes)) => Ok(String::from_utf8_lossy(bytes)),
        Some(Value::SimpleString(text)) => Ok(text.as_str().into()),
        _ => Err(unreadable()),
    };
    let number = |at: usize| match parts.get(at) {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| unreadable()),
        None => Ok(0),
        _ => Err(unreadable()),
    };
    match &*text(0)? {
        "done" => Ok(Applied::all().with_duplicates(number(1)?)),
        "gap" => Ok(Applied::gap(number(1)?)),
        "refused" => {
            let error = Error::refused(&text(3)?);
            Ok(Applied::refused(number(1)?, number(2)?, error).with_duplicates(number(4)?))
        }
        "stopped" => {
            let error = Error::refused(&text(2)?);
            Ok(Applied::stopped(number(1)?, error).with_duplicates(number(3)?))
        }
        _ => Err(unreadable()),
    }
}

/// The answers to GET, EXPIRE and WAIT. WAITAOF has the number of primaries before that of replicas. Both
/// answer the same when time is up as when enough have it.
fn confirmed(last: &Value, waited: &Value) -> Result<Applied, Error> {
    let last = match last {
        Value::Nil => 0,
        Value::BulkString(number) => number_in(number)?,
        _ => return Err(unreadable()),
    };
    let replicas = match waited {
        Value::Int(replicas) => *replicas,
        Value::Array(counts) => match &counts[..] {
            [Value::Int(0), _] => 0,
            [Value::Int(_), Value::Int(replicas)] => *replicas,
            _ => return Err(unreadable()),
        },
        Value::ServerError(refusal) => return Err(Error::refused(refusal.code())),
        _ => return Err(unreadable()),
    };
    let replicas = u64::try_from(replicas).map_err(|_| unreadable())?;
    Ok(Applied::confirmed(last, replicas))
}

fn number_in(text: &[u8]) -> Result<u64, Error> {
    let number = std::str::from_utf8(text).ok();
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(unreadable)
}

/// Not one of our scripts' answers: a proxy in between, perhaps. The batch is kept.
fn unreadable() -> Error {
    Error::new(
        ErrorKind::Redis,
        Verdict::new(Class::Permanent, Landed::Maybe),
    )
    .with_cause("the answer is not one of seawall's script")
}

/// The list that all records of the batch push to, if they do.
fn one_list(batch: &Batch<Write>) -> Option<(&str, Side)> {
    if batch.has_spent() {
        return None;
    }
    let mut target = None;
    for (_, write) in batch.iter() {
        let Some(Write {
            effect: Effect::Push { key, side, .. },
            ..
        }) = write
        else {
            return None;
        };
        let this = (key.as_deref().unwrap_or(batch.queue()), *side);
        if *target.get_or_insert(this) != this {
            return None;
        }
    }
    target
}

fn push(batch: &Batch<Write>, lane: &str, key: &str, side: Side) -> ScriptCall {
    let mut cmd = Cmd::with_capacity(9 + batch.len(), size(batch) + 256);
    cmd.arg("EVALSHA")
        .arg(PUSH.get_hash())
        .arg(2)
        .arg(lane)
        .arg(key);
    head(&mut cmd, batch);
    cmd.arg(side.verb());
    for (_, write) in batch.iter() {
        if let Some(Write {
            effect: Effect::Push { value, .. },
            ..
        }) = write
        {
            cmd.arg(&value[..]);
        }
    }
    ScriptCall::new(PUSH_SOURCE, cmd)
}

fn group(batch: &Batch<Write>, lane: &str) -> ScriptCall {
    let mut cmd = Cmd::with_capacity(7 + 6 * batch.len(), size(batch) + 256);
    cmd.arg("EVALSHA").arg(GROUP.get_hash()).arg(1).arg(lane);
    head(&mut cmd, batch);
    for (_, write) in batch.iter() {
        match write.map(|write| &write.effect) {
            None => {
                cmd.arg(0);
            }
            Some(Effect::Push { key, side, value }) => {
                let key = key.as_deref().unwrap_or(batch.queue());
                cmd.arg(1).arg(3).arg(side.verb()).arg(key).arg(&value[..]);
            }
            Some(Effect::Group(commands)) => {
                cmd.arg(commands.len());
                for command in commands {
                    let count = command.arguments.len() as i64;
                    cmd.arg(if command.must_add { -count } else { count });
                    for argument in &command.arguments {
                        cmd.arg(&argument[..]);
                    }
                }
            }
        }
    }
    ScriptCall::new(GROUP_SOURCE, cmd)
}

/// Says how far the lane is, and waits for the replicas of that.
///
/// WAIT only waits for what its own connection has written, and this one has written nothing: so it writes
/// the lane's time to live once more.
fn confirm(
    batch: &Batch<Write>,
    lane: &str,
    replicas: u32,
    timeout: Duration,
    on_disk: bool,
) -> RedisCall {
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(lane);
    pipeline
        .cmd("EXPIRE")
        .arg(lane)
        .arg(batch.lifetime().as_secs().max(1));
    // 0 would be for ever.
    let millis = u64::try_from(timeout.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    if on_disk {
        pipeline.cmd("WAITAOF").arg(1).arg(replicas).arg(millis);
    } else {
        pipeline.cmd("WAIT").arg(replicas).arg(millis);
    }
    RedisCall::new("confirm", pipeline).with_exclusive()
}

fn head(cmd: &mut Cmd, batch: &Batch<Write>) {
    cmd.arg(batch.first())
        .arg(batch.after())
        .arg(batch.lifetime().as_secs().max(1));
}

fn size(batch: &Batch<Write>) -> usize {
    use crate::spool::Spoolable;
    batch
        .iter()
        .filter_map(|(_, write)| write)
        .map(Spoolable::size)
        .sum()
}

/// The part of a key that decides its hash slot, so that the lane's key is in the queue's slot.
fn hash_tag(queue: &str) -> &str {
    let tag = queue
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => queue,
    }
}

const PUSH_SOURCE: &str = include_str!("push.lua");
const GROUP_SOURCE: &str = include_str!("group.lua");

static PUSH: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(PUSH_SOURCE));
static GROUP: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(GROUP_SOURCE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_key_falls_into_the_queues_slot() {
        assert_eq!(hash_tag("emails"), "emails");
        assert_eq!(hash_tag("app:{emails}:high"), "emails");
        assert_eq!(hash_tag("{}emails"), "{}emails");
        assert_eq!(hash_tag("{emails"), "{emails");
    }

    #[test]
    fn an_answer_that_is_not_the_scripts_keeps_the_batch() {
        for value in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
        ] {
            assert!(read(Reply::new(value)).is_err());
        }
    }
}

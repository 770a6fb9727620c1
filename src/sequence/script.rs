//! From a batch to a script call, and from the script's answer to what became of the batch.

use std::{collections::BTreeSet, iter::Peekable, sync::LazyLock, time::Duration, vec};

use redis::{Cmd, Value};

use super::{
    procedure::Procedures,
    write::{Effect, Side, Write},
};
use crate::{
    call::{RedisCall, Repeat, Reply, Request, ScriptCall, keys::each_key, slot},
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::{Applied, Asks, Batch},
};

/// The call that applies `batch`.
pub(super) fn call(batch: &Batch<Write>, procedures: &Procedures) -> RedisCall {
    let lane = format!(
        "seawall:{{{}}}:lane:{}",
        slot::tag_of(batch.queue()),
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
                None => group(batch, &lane, procedures),
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

/// The numbers of a batch that pushes to one list: the first, and how many.
pub(super) fn pushed(batch: &Batch<Write>) -> Option<(u64, u64)> {
    one_list(batch)?;
    Some((batch.first(), batch.len() as u64))
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
    if let [last, Value::Int(touched), waited] = &parts[..] {
        // Where there was nothing to touch, the replicas were not waited for.
        let last = if *touched == 1 { last } else { &Value::Nil };
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

fn group(batch: &Batch<Write>, lane: &str, procedures: &Procedures) -> ScriptCall {
    let mut cmd = Cmd::with_capacity(8 + 6 * batch.len(), size(batch) + 256);
    let home = slot::slot(lane.as_bytes());
    let used = used(batch, procedures);
    let mut declared = BTreeSet::new();
    let mut elsewhere = Vec::with_capacity(batch.len());
    for (_, write) in batch.iter() {
        let mut keys = Vec::new();
        if let Some(write) = write {
            for_each_key(write, batch.queue(), |key| keys.push(key));
        }
        let is_home = keys.iter().all(|key| slot::slot(key) == home);
        if is_home {
            declared.extend(keys);
        }
        elsewhere.push(!is_home);
    }
    cmd.arg("EVALSHA")
        .arg(procedures.sha1())
        .arg(1 + declared.len() + used.iter().map(|(_, keys)| keys.len()).sum::<usize>())
        .arg(lane);
    for key in declared {
        cmd.arg(key);
    }
    for key in used.iter().flat_map(|(_, keys)| keys) {
        cmd.arg(key);
    }
    head(&mut cmd, batch);
    cmd.arg(used.len());
    for (name, keys) in &used {
        cmd.arg(name).arg(keys.len());
        for key in keys {
            cmd.arg(key);
        }
    }
    let mut runs = runs(batch);
    for ((at, (_, write)), elsewhere) in batch.iter().enumerate().zip(elsewhere) {
        let sign = if elsewhere { -1 } else { 1 };
        match write.map(|write| &write.effect) {
            None => {
                cmd.arg(0);
            }
            Some(Effect::Push { key, side, value }) => {
                let key = key.as_deref().unwrap_or(batch.queue());
                cmd.arg(sign)
                    .arg(3)
                    .arg(side.verb())
                    .arg(key)
                    .arg(&value[..]);
            }
            Some(Effect::Group(commands)) => {
                cmd.arg(commands.len() as i64 * sign);
                for command in commands {
                    let count = command.arguments.len() as i64;
                    cmd.arg(if command.must_add { -count } else { count });
                    for argument in &command.arguments {
                        cmd.arg(&argument[..]);
                    }
                }
            }
            Some(Effect::Procedure { name, argument }) => {
                if let Some((_, count)) = runs.next_if(|(first, _)| *first == at) {
                    cmd.arg("run").arg(&**name).arg(count);
                }
                cmd.arg(&argument[..]);
            }
        }
    }
    ScriptCall::made(procedures.source().clone(), cmd)
}

/// Where in the batch there are records of one procedure next to each other, and how many.
fn runs(batch: &Batch<Write>) -> Peekable<vec::IntoIter<(usize, usize)>> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut before: Option<&str> = None;
    for (at, (_, write)) in batch.iter().enumerate() {
        let name = match write.map(|write| &write.effect) {
            Some(Effect::Procedure { name, .. }) => Some(&**name),
            _ => None,
        };
        match runs.last_mut() {
            Some((_, count)) if name.is_some() && name == before => *count += 1,
            _ if name.is_some() => runs.push((at, 1)),
            _ => {}
        }
        before = name;
    }
    runs.into_iter().peekable()
}

/// The procedures that records of the batch are for, each with its keys.
fn used<'a>(batch: &'a Batch<Write>, procedures: &Procedures) -> Vec<(&'a str, Vec<String>)> {
    let mut used: Vec<(&str, Vec<String>)> = Vec::new();
    for (_, write) in batch.iter() {
        let Some(Effect::Procedure { name, .. }) = write.map(|write| &write.effect) else {
            continue;
        };
        if used.iter().all(|(known, _)| known != name)
            && let Some(procedure) = procedures.find(name)
        {
            used.push((name, procedure.keys(batch.queue())));
        }
    }
    used
}

/// The keys of a write, so far as its commands' names tell.
fn for_each_key<'a>(write: &'a Write, queue: &'a str, mut found: impl FnMut(&'a [u8])) {
    match &write.effect {
        Effect::Push { key, .. } => found(key.as_deref().unwrap_or(queue).as_bytes()),
        Effect::Group(commands) => {
            for command in commands {
                let arguments: Vec<&[u8]> = command
                    .arguments
                    .iter()
                    .map(|argument| &argument[..])
                    .collect();
                each_key(&arguments, &mut found);
            }
        }
        // Its keys are in the lane's slot.
        Effect::Procedure { .. } => {}
    }
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

const PUSH_SOURCE: &str = include_str!("push.lua");
/// It needs `procedures` in front of it: see [`Procedures`].
pub(super) const GROUP_SOURCE: &str = include_str!("group.lua");

static PUSH: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(PUSH_SOURCE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_count_for_nothing_if_the_lane_was_gone_before_they_were_waited_for() {
        let read = |touched| {
            let last = Value::BulkString(b"7".to_vec());
            let answer = Value::Array(vec![last, Value::Int(touched), Value::Int(2)]);
            format!("{:?}", read(Reply::new(answer)))
        };
        assert!(read(1).contains("Confirmed { last: 7, replicas: 2 }"));
        assert!(read(0).contains("Confirmed { last: 0,"));
    }

    #[test]
    fn an_answer_that_is_not_the_scripts_keeps_the_batch() {
        for value in [
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
        ] {
            assert!(read(Reply::new(value)).is_err());
        }
    }
}

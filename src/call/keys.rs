//! Which arguments of a command are keys, so far as its name tells.

use redis::{Arg, Cmd};

use super::{Body, slot::slot};

/// The keys of a request lie in more than one slot, so no node of a cluster can carry it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrossSlot;

/// The slot of all keys of a request; `None` if it names none.
///
/// # Errors
///
/// [`CrossSlot`] if there are several slots. What this table does not know, the server notices.
pub(crate) fn slot_of(body: &Body) -> Result<Option<u16>, CrossSlot> {
    match body {
        Body::Command(cmd) => slot_of_cmd(cmd),
        Body::Script(script) => slot_of_cmd(script.evalsha()),
        Body::Pipeline(pipeline) => pipeline
            .cmd_iter()
            .try_fold(None, |known, cmd| same(known, slot_of_cmd(cmd)?)),
    }
}

fn slot_of_cmd(cmd: &Cmd) -> Result<Option<u16>, CrossSlot> {
    let arguments: Vec<&[u8]> = cmd
        .args_iter()
        .map(|argument| match argument {
            Arg::Simple(bytes) => bytes,
            _ => b"".as_slice(),
        })
        .collect();
    let mut found = Ok(None);
    each_key(&arguments, |key| {
        found = found.and_then(|known| same(known, Some(slot(key))));
    });
    found
}

fn same(known: Option<u16>, this: Option<u16>) -> Result<Option<u16>, CrossSlot> {
    match (known, this) {
        (Some(known), Some(this)) if known != this => Err(CrossSlot),
        _ => Ok(known.or(this)),
    }
}

/// Calls `found` with each key of a command, whose name is its first argument.
pub(crate) fn each_key<'a>(arguments: &[&'a [u8]], mut found: impl FnMut(&'a [u8])) {
    let Some(name) = arguments.first() else {
        return;
    };
    let mut name = name.to_vec();
    name.make_ascii_uppercase();
    let last = arguments.len() - 1;
    let mut range = |first: usize, last: usize, step: usize| {
        let end = arguments.len().min(last + 1);
        for key in arguments[first.min(end)..end].iter().step_by(step) {
            found(key);
        }
    };
    match &*name {
        b"DEL" | b"UNLINK" | b"EXISTS" | b"TOUCH" | b"MGET" | b"WATCH" | b"PFCOUNT"
        | b"PFMERGE" | b"SDIFF" | b"SINTER" | b"SUNION" | b"SDIFFSTORE" | b"SINTERSTORE"
        | b"SUNIONSTORE" => range(1, last, 1),
        b"MSET" | b"MSETNX" => range(1, last, 2),
        b"RENAME" | b"RENAMENX" | b"RPOPLPUSH" | b"BRPOPLPUSH" | b"LMOVE" | b"BLMOVE"
        | b"SMOVE" | b"COPY" | b"LCS" | b"GEOSEARCHSTORE" | b"ZRANGESTORE" => range(1, 2, 1),
        b"BLPOP" | b"BRPOP" | b"BZPOPMIN" | b"BZPOPMAX" => range(1, last.saturating_sub(1), 1),
        b"BITOP" => range(2, last, 1),
        b"XGROUP" | b"XINFO" | b"OBJECT" => range(2, 2, 1),
        b"MIGRATE" => range(3, 3, 1),
        b"SINTERCARD" | b"ZINTER" | b"ZUNION" | b"ZDIFF" | b"ZINTERCARD" | b"LMPOP" | b"ZMPOP" => {
            range(2, 1 + count(arguments, 1), 1);
        }
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO" | b"BLMPOP"
        | b"BZMPOP" => range(3, 2 + count(arguments, 2), 1),
        b"ZUNIONSTORE" | b"ZINTERSTORE" | b"ZDIFFSTORE" => {
            range(1, 1, 1);
            range(3, 2 + count(arguments, 2), 1);
        }
        b"XREAD" | b"XREADGROUP" => {
            // Keys, and as many ids.
            if let Some(at) = position(arguments, b"STREAMS") {
                range(at + 1, at + (last - at) / 2, 1);
            }
        }
        b"SORT" | b"GEORADIUS" | b"GEORADIUSBYMEMBER" => {
            range(1, 1, 1);
            for option in [b"STORE".as_slice(), b"STOREDIST"] {
                if let Some(at) = position(arguments, option) {
                    range(at + 1, at + 1, 1);
                }
            }
        }
        name if KEYLESS.contains(&name) => {}
        _ => range(1, 1, 1),
    }
}

/// Commands about a server, a connection or channels.
const KEYLESS: &[&[u8]] = &[
    b"ACL",
    b"ASKING",
    b"AUTH",
    b"BGREWRITEAOF",
    b"BGSAVE",
    b"CLIENT",
    b"CLUSTER",
    b"COMMAND",
    b"CONFIG",
    b"DBSIZE",
    b"DEBUG",
    b"DISCARD",
    b"ECHO",
    b"EXEC",
    b"FAILOVER",
    b"FLUSHALL",
    b"FLUSHDB",
    b"FUNCTION",
    b"HELLO",
    b"INFO",
    b"KEYS",
    b"LASTSAVE",
    b"LATENCY",
    b"LOLWUT",
    b"MEMORY",
    b"MODULE",
    b"MULTI",
    b"PING",
    b"PSUBSCRIBE",
    b"PUBLISH",
    b"PUBSUB",
    b"QUIT",
    b"RANDOMKEY",
    b"READONLY",
    b"READWRITE",
    b"RESET",
    b"ROLE",
    b"SAVE",
    b"SCAN",
    b"SCRIPT",
    b"SELECT",
    b"SHUTDOWN",
    b"SLOWLOG",
    b"SUBSCRIBE",
    b"SWAPDB",
    b"TIME",
    b"UNWATCH",
    b"WAIT",
    b"WAITAOF",
];

/// The number at this place; one that is not there is the server's to refuse.
fn count(arguments: &[&[u8]], at: usize) -> usize {
    arguments
        .get(at)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse().ok())
        .map_or(0, |count: usize| count.min(arguments.len()))
}

fn position(arguments: &[&[u8]], word: &[u8]) -> Option<usize> {
    arguments
        .iter()
        .skip(1)
        .position(|argument| argument.eq_ignore_ascii_case(word))
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut keys = Vec::new();
        each_key(&words, |key| keys.push(String::from_utf8_lossy(key)));
        keys.join(" ")
    }

    #[test]
    fn each_form_of_command_gives_its_keys() {
        for (line, expected) in [
            ("get k1", "k1"),
            ("LPUSH k1 a b", "k1"),
            ("MGET k1 k2 k3", "k1 k2 k3"),
            ("MSET k1 a k2 b", "k1 k2"),
            ("LMOVE k1 k2 LEFT RIGHT", "k1 k2"),
            ("BLPOP k1 k2 0", "k1 k2"),
            ("EVALSHA sha 2 k1 k2 a", "k1 k2"),
            ("EVAL text 0 a", ""),
            ("ZUNIONSTORE k1 2 k2 k3 WEIGHTS 1 2", "k1 k2 k3"),
            ("XREAD COUNT 5 streams k1 k2 0 0", "k1 k2"),
            ("SORT k1 BY x STORE k2", "k1 k2"),
            ("OBJECT ENCODING k1", "k1"),
            ("PING", ""),
            ("BLPOP", ""),
            ("EVALSHA sha 99 k1", "k1"),
            ("EVALSHA sha", ""),
            ("XREAD STREAMS", ""),
        ] {
            assert_eq!(keys(line), expected, "{line}");
        }
    }

    #[test]
    fn several_slots_are_noticed_in_commands_and_pipelines() {
        let cmd = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).to_owned();
        let of = |body: Body| slot_of(&body);
        assert_eq!(
            of(cmd(&["MGET", "{a}1", "{a}2"]).into()),
            Ok(Some(slot(b"a")))
        );
        assert_eq!(of(cmd(&["MGET", "a", "b"]).into()), Err(CrossSlot));
        assert_eq!(of(cmd(&["PING"]).into()), Ok(None));
        let mut pipe = redis::pipe();
        pipe.cmd("PING").cmd("SET").arg("a").arg(1);
        assert_eq!(of(pipe.clone().into()), Ok(Some(slot(b"a"))));
        pipe.cmd("GET").arg("b");
        assert_eq!(of(pipe.into()), Err(CrossSlot));
    }
}

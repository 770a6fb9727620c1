//! What to ask a sentinel, and how to read what it answers: pure.

use std::sync::Arc;

use redis::{Pipeline, Value};

use crate::connect::{deployment::Endpoint, status::Trouble};

/// A server that a sentinel takes for the master, and since which of its failovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::connect) struct Candidate {
    pub(in crate::connect) at: Endpoint,
    pub(in crate::connect) epoch: u64,
}

/// What a sentinel has to say.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::connect) enum Said {
    Master(Candidate),
    /// It knows no master of that name, but these.
    Unknown(Vec<Arc<str>>),
    Failed(Trouble),
}

/// Another sentinel of the group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Peer {
    pub(super) at: Endpoint,
    pub(super) id: Option<Arc<str>>,
}

/// All that one poll asks.
pub(super) fn questions(master: &str, replicas: bool) -> Pipeline {
    let mut questions = Pipeline::with_capacity(4);
    // Of the two, the first names the new master earlier, and only the second has the epoch.
    questions
        .cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(master);
    questions.cmd("SENTINEL").arg("MASTER").arg(master);
    questions.cmd("SENTINEL").arg("SENTINELS").arg(master);
    if replicas {
        questions.cmd("SENTINEL").arg("REPLICAS").arg(master);
    }
    questions
}

/// What one poll was answered.
pub(super) struct Answers {
    /// `None`: it knows no such master, and is to be asked for the others' names.
    pub(super) said: Option<Said>,
    pub(super) peers: Vec<Peer>,
    pub(super) replicas: Vec<Endpoint>,
}

pub(super) fn read(answers: &[Value]) -> Answers {
    let said = match answers {
        [Value::Nil, ..] => None,
        [Value::ServerError(refusal), ..] => Some(Said::Failed(match refusal.code() {
            "NOAUTH" | "NOPERM" | "WRONGPASS" => Trouble::SentinelCredentials,
            _ => Trouble::Protocol,
        })),
        [Value::Array(address), master, ..] => Some(match address.as_slice() {
            [host, port] => {
                endpoint(text(host), text(port)).map_or(Said::Failed(Trouble::Protocol), |at| {
                    Said::Master(Candidate {
                        at,
                        epoch: number(master, "config-epoch"),
                    })
                })
            }
            _ => Said::Failed(Trouble::Protocol),
        }),
        _ => Some(Said::Failed(Trouble::Protocol)),
    };
    let list = |at: usize| match answers.get(at) {
        Some(Value::Array(items)) => items.as_slice(),
        _ => &[],
    };
    let peer = |item| {
        let at = endpoint(field(item, "ip"), field(item, "port"))?;
        let id = field(item, "runid").filter(|id| !id.is_empty());
        Some(Peer {
            at,
            id: id.map(Into::into),
        })
    };
    Answers {
        said,
        peers: list(2).iter().filter_map(peer).collect(),
        replicas: list(3).iter().filter_map(healthy).collect(),
    }
}

/// The names in an answer to SENTINEL MASTERS, a few of them.
pub(super) fn names(answer: &Value) -> Vec<Arc<str>> {
    let Value::Array(masters) = answer else {
        return Vec::new();
    };
    masters
        .iter()
        .filter_map(|master| field(master, "name"))
        .filter(|name| name.len() <= LONGEST_NAME)
        .take(MOST_NAMES)
        .map(Into::into)
        .collect()
}

const MOST_NAMES: usize = 16;
const LONGEST_NAME: usize = 100;

/// Whether a message tells of a change of this master.
pub(super) fn is_switch(message: &[Value], master: &str) -> bool {
    match message {
        [_, payload] => text(payload)
            .and_then(|payload| payload.split(' ').next())
            .is_some_and(|name| name == master),
        _ => false,
    }
}

/// Where a replica is, if the sentinel would send a reader there.
fn healthy(replica: &Value) -> Option<Endpoint> {
    let flags = field(replica, "flags")?;
    let down = ["s_down", "o_down", "disconnected", "master_down"];
    let linked = field(replica, "master-link-status") == Some("ok");
    if !linked || flags.split(',').any(|flag| down.contains(&flag)) {
        return None;
    }
    endpoint(field(replica, "ip"), field(replica, "port"))
}

fn endpoint(host: Option<&str>, port: Option<&str>) -> Option<Endpoint> {
    let port = port?.parse().ok().filter(|port| *port != 0)?;
    let host = host.filter(|host| !host.is_empty())?;
    Some(Endpoint::new(host, port))
}

fn number(map: &Value, name: &str) -> u64 {
    field(map, name)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// A map is one in RESP3, and a flat list in RESP2.
fn field<'a>(map: &'a Value, name: &str) -> Option<&'a str> {
    match map {
        Value::Map(pairs) => {
            let pair = pairs.iter().find(|(key, _)| text(key) == Some(name));
            pair.and_then(|(_, value)| text(value))
        }
        Value::Array(flat) => {
            let pair = flat
                .chunks_exact(2)
                .find(|pair| text(&pair[0]) == Some(name));
            pair.and_then(|pair| text(&pair[1]))
        }
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn value(wire: &str) -> Value {
        parse_redis_value(wire.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    const ADDRESS: &str = "*2 $9 127.0.0.1 $4 7001 ";

    #[test]
    fn the_master_is_read_with_its_epoch_in_both_protocols() {
        for master in [
            "%2 $4 name $1 m $12 config-epoch $1 7 ",
            "*4 $4 name $1 m $12 config-epoch $1 7 ",
        ] {
            let read = read(&[value(ADDRESS), value(master)]);
            let at = Endpoint::new("127.0.0.1", 7001);
            assert_eq!(read.said, Some(Said::Master(Candidate { at, epoch: 7 })));
        }
    }

    #[test]
    fn a_host_may_be_a_name() {
        let read = read(&[value("*2 $7 redis-0 $4 6379 "), Value::Nil]);
        let at = Endpoint::new("redis-0", 6379);
        assert_eq!(read.said, Some(Said::Master(Candidate { at, epoch: 0 })));
    }

    #[test]
    fn an_unknown_name_and_a_refusal_are_told_apart() {
        let refused = |error: &str| parse_redis_value(error.as_bytes()).unwrap();
        let no_such = refused("-ERR No such master with that name\r\n");
        assert_eq!(read(&[Value::Nil, no_such]).said, None);
        for (error, trouble) in [
            (
                "-NOAUTH Authentication required.\r\n",
                Trouble::SentinelCredentials,
            ),
            ("-NOPERM no permissions\r\n", Trouble::SentinelCredentials),
            ("-ERR unknown command\r\n", Trouble::Protocol),
        ] {
            let said = read(&[refused(error), refused(error)]).said;
            assert_eq!(said, Some(Said::Failed(trouble)));
        }
        let nonsense = read(&[value("*2 $0  $4 6379 "), Value::Nil]).said;
        assert_eq!(nonsense, Some(Said::Failed(Trouble::Protocol)));
    }

    #[test]
    fn only_replicas_that_follow_are_read_from() {
        let replica = |flags: &str, link: &str| {
            value(&format!(
                "%4 $2 ip $1 h $4 port $1 1 $5 flags ${} {flags} $18 master-link-status ${} {link} ",
                flags.len(),
                link.len()
            ))
        };
        let of = |flags, link| {
            let list = Value::Array(vec![replica(flags, link)]);
            let empty = || Value::Array(Vec::new());
            read(&[value(ADDRESS), Value::Nil, empty(), list])
                .replicas
                .len()
        };
        assert_eq!(of("slave", "ok"), 1);
        assert_eq!(of("slave", "err"), 0);
        assert_eq!(of("s_down,slave", "ok"), 0);
        assert_eq!(of("slave,disconnected", "ok"), 0);
    }

    #[test]
    fn a_switch_is_that_of_the_master_asked_for() {
        let message = |payload: &str| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            [text("+switch-master"), text(payload)]
        };
        assert!(is_switch(&message("m 1.1.1.1 1 2.2.2.2 2"), "m"));
        assert!(!is_switch(&message("m2 1.1.1.1 1 2.2.2.2 2"), "m"));
        assert!(!is_switch(&[Value::Nil], "m"));
    }
}

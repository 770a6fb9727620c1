//! What a node says of the slots: the answers to CLUSTER SLOTS and CLUSTER INFO. Pure.

use std::sync::Arc;

use redis::{RedisError, Value};

use super::super::deployment::Endpoint;

/// Consecutive slots with the same nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Endpoint,
    pub(super) replicas: Vec<Endpoint>,
}

/// One node's opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// In the order of the slots.
    pub(super) ranges: Vec<Range>,
    /// Whether the cluster takes requests, so far as the node knows.
    pub(super) serves: bool,
}

impl View {
    /// Reads the answers of the node at `asked`. `None` if it is no node of a cluster, or if no slot
    /// has a node yet.
    pub(super) fn read(slots: &Value, info: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::Array(parts) = slots else {
            return None;
        };
        let mut ranges: Vec<_> = parts
            .iter()
            .filter_map(|part| range(part, asked))
            .filter(|range| range.first <= range.last)
            .collect();
        ranges.sort_by_key(|range| range.first);
        let text = match info {
            Value::BulkString(text) => String::from_utf8_lossy(text),
            Value::VerbatimString { text, .. } => text.into(),
            // Who may not ask takes it for well.
            _ => "".into(),
        };
        (!ranges.is_empty()).then(|| Self {
            ranges,
            serves: !text.contains("cluster_state:fail"),
        })
    }
}

/// The opinion that most have, and how many those are. The first of several.
pub(super) fn most_common(views: &[View]) -> Option<(&View, usize)> {
    let votes = |view: &View| views.iter().filter(|other| *other == view).count();
    let mut best: Option<(&View, usize)> = None;
    for view in views {
        let count = votes(view);
        if best.is_none_or(|(_, most)| count > most) {
            best = Some((view, count));
        }
    }
    best
}

fn range(part: &Value, asked: &Endpoint) -> Option<Range> {
    let Value::Array(parts) = part else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = parts.as_slice() else {
        return None;
    };
    Some(Range {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok().filter(|last| *last < 16_384)?,
        primary: node(primary, asked)?,
        replicas: replicas.iter().filter_map(|one| node(one, asked)).collect(),
    })
}

fn node(value: &Value, asked: &Endpoint) -> Option<Endpoint> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host: Arc<str> = match host {
        Value::BulkString(host) => match std::str::from_utf8(host).ok()? {
            // The node does not know its own address, or has not been told another's.
            "" => Arc::clone(&asked.host),
            "?" => return None,
            host => host.into(),
        },
        Value::Nil => Arc::clone(&asked.host),
        _ => return None,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
    Some(Endpoint::new(host, port))
}

/// Where a request should have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// For good.
    Moved { slot: u16, to: Endpoint },
    /// This once: the slot is on its way there.
    Ask { to: Endpoint },
}

/// Reads the redirection in a refusal by the node at `asked`, if there is one.
pub(super) fn redirect(error: &RedisError, asked: &Endpoint) -> Option<Redirect> {
    let parts = error.clone().into_server_errors()?;
    parts.iter().find_map(|(_, refusal)| {
        let is_moved = match refusal.code() {
            "MOVED" => true,
            "ASK" => false,
            _ => return None,
        };
        let mut words = refusal.details()?.split_whitespace();
        let slot = words.next()?.parse().ok().filter(|slot| *slot < 16_384)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" => Arc::clone(&asked.host),
            "?" => return None,
            host => host.into(),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let to = Endpoint::new(host, port);
        Some(if is_moved {
            Redirect::Moved { slot, to }
        } else {
            Redirect::Ask { to }
        })
    })
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint::new(host, port)
    }

    fn value(wire: &str) -> Value {
        parse_redis_value(wire.as_bytes()).unwrap()
    }

    #[test]
    fn a_node_without_a_host_is_where_the_answer_came_from() {
        let slots = "*2\r\n*3\r\n:9\r\n:16383\r\n*2\r\n$0\r\n\r\n:7\r\n\
                     *4\r\n:0\r\n:8\r\n*2\r\n$2\r\nh2\r\n:7\r\n*2\r\n$-1\r\n:8\r\n";
        let view = View::read(&value(slots), &Value::Nil, &at("h1", 1)).unwrap();
        assert!(view.serves);
        assert_eq!(view.ranges[0].primary, at("h2", 7));
        assert_eq!(view.ranges[0].replicas, [at("h1", 8)]);
        assert_eq!(
            (view.ranges[1].first, &view.ranges[1].primary),
            (9, &at("h1", 7))
        );
    }

    #[test]
    fn a_node_that_knows_no_slots_has_no_opinion() {
        for answer in ["*0\r\n", "-ERR cluster support disabled\r\n", "$-1\r\n"] {
            assert_eq!(View::read(&value(answer), &Value::Nil, &at("h", 1)), None);
        }
    }

    #[test]
    fn the_opinion_of_most_wins() {
        let view = |port| View {
            ranges: vec![Range {
                first: 0,
                last: 9,
                primary: at("h", port),
                replicas: Vec::new(),
            }],
            serves: true,
        };
        let views = [view(1), view(2), view(2)];
        assert_eq!(most_common(&views), Some((&views[1], 2)));
        assert_eq!(most_common(&[]), None);
    }

    #[test]
    fn redirections_are_read_and_no_others() {
        let read = |wire: &str| {
            let error = value(wire).extract_error().unwrap_err();
            redirect(&error, &at("here", 1))
        };
        let to = |host| at(host, 7);
        assert_eq!(
            read("-MOVED 3 h:7\r\n"),
            Some(Redirect::Moved {
                slot: 3,
                to: to("h")
            })
        );
        assert_eq!(
            read("-ASK 3 :7\r\n"),
            Some(Redirect::Ask { to: to("here") })
        );
        assert_eq!(
            read("-ASK 3 2001:db8::1:7\r\n"),
            Some(Redirect::Ask {
                to: to("2001:db8::1")
            })
        );
        for other in [
            "-MOVED 3 ?:7\r\n",
            "-MOVED\r\n",
            "-ERR 3 h:7\r\n",
            "-MOVED 99999 h:7\r\n",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}

//! What a job becomes in Redis.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    Handling, Job,
    task::{self, Record, millis},
};
use crate::{
    error::Error,
    sequence::{Command, Side, Write},
};

/// What a job becomes in Redis. See the [module docs](super).
///
/// On a Redis Cluster, its keys must be in the queue's hash slot: name the queue like the key, or give
/// both the same `{tag}`.
#[derive(Clone)]
#[must_use]
pub struct Destination(Kind);

#[derive(Clone)]
enum Kind {
    List {
        key: Option<Arc<str>>,
        side: Side,
    },
    Stream {
        key: Bytes,
        max_len: Option<u64>,
        payload_field: Bytes,
    },
    SortedSet {
        key: Bytes,
    },
    Commands(Vec<Command>),
    Worker(Box<Handling>),
}

impl Destination {
    /// The raw payload, at the end of the list `key`: RPUSH. For consumers that take from the front.
    pub fn list(key: impl Into<Arc<str>>) -> Self {
        Self(Kind::List {
            key: Some(key.into()),
            side: Side::Back,
        })
    }

    /// The raw payload, at the front of the list `key`: LPUSH. For consumers that take from the end.
    pub fn list_front(key: impl Into<Arc<str>>) -> Self {
        Self(Kind::List {
            key: Some(key.into()),
            side: Side::Front,
        })
    }

    /// An entry of the stream `key`: XADD with the fields `id`, `payload` and the job's headers.
    pub fn stream(key: impl Into<Bytes>) -> Self {
        let payload_field = Bytes::from_static(b"payload");
        Self(Kind::Stream {
            key: key.into(),
            max_len: None,
            payload_field,
        })
    }

    /// The raw payload, as a member of the sorted set `key` with the time it is due as its score, in
    /// seconds since 1970 with milliseconds after the point: ZADD NX.
    ///
    /// A set holds a member once. A job whose payload is in the set already is refused, not lost in
    /// silence.
    pub fn sorted_set(key: impl Into<Bytes>) -> Self {
        Self(Kind::SortedSet { key: key.into() })
    }

    /// These write commands, carried out as one, instead of the payload.
    pub fn commands(commands: Vec<Command>) -> Self {
        Self(Kind::Commands(commands))
    }

    /// A job for the [workers](crate::worker) of its queue, to be handled like this.
    ///
    /// It is added once: if the queue has a job of this id that waits, runs or is a dead letter, nothing is added.
    ///
    /// It is handed to a worker within one response timeout, 500 ms unless it was
    /// [set](crate::connect::ConnectOptions::with_response_timeout): a payload of many MiB may be too much for a slow
    /// network, so put that elsewhere, and its name in here.
    pub fn worker(handling: Handling) -> Self {
        Self(Kind::Worker(Box::new(handling)))
    }

    /// Lets Redis trim a stream to about `entries` (`MAXLEN ~`). Other destinations have no such bound.
    pub fn with_max_len(mut self, entries: u64) -> Self {
        if let Kind::Stream { max_len, .. } = &mut self.0 {
            *max_len = Some(entries);
        }
        self
    }

    /// Names a stream entry's field for the payload. Default: `payload`.
    pub fn with_payload_field(mut self, name: impl Into<Bytes>) -> Self {
        if let Kind::Stream { payload_field, .. } = &mut self.0 {
            *payload_field = name.into();
        }
        self
    }

    pub(super) fn queue_list() -> Self {
        Self(Kind::List {
            key: None,
            side: Side::Back,
        })
    }

    pub(super) fn write(self, job: Job) -> Result<Write, Error> {
        if job.due.is_some() && !matches!(self.0, Kind::SortedSet { .. } | Kind::Worker(_)) {
            return Err(Error::invalid(
                "a delayed job needs a destination that keeps it until then: \
                 Destination::worker or Destination::sorted_set",
            ));
        }
        if !job.headers.is_empty() && !matches!(self.0, Kind::Stream { .. } | Kind::Worker(_)) {
            return Err(Error::invalid(
                "headers need a destination with fields: Destination::worker or Destination::stream",
            ));
        }
        Ok(match self.0 {
            Kind::List { key, side } => Write::push(job.queue, key, side, job.payload),
            Kind::Stream {
                key,
                max_len,
                payload_field,
            } => {
                let mut add = Command::new("XADD").arg(key);
                if let Some(max_len) = max_len {
                    add = add.arg("MAXLEN").arg("~").arg(max_len.to_string());
                }
                add = add.arg("*").arg("id").arg(job.id.to_string());
                add = add.arg(payload_field).arg(job.payload);
                for (name, value) in job.headers {
                    add = add.arg(name).arg(value);
                }
                Write::group(job.queue, checked(vec![add])?)
            }
            Kind::SortedSet { key } => {
                let due = job.due.unwrap_or_else(SystemTime::now);
                let due = due.duration_since(UNIX_EPOCH).unwrap_or_default();
                let score = format!("{}.{:03}", due.as_secs(), due.subsec_millis());
                let add = Command::new("ZADD")
                    .arg(key)
                    .arg("NX")
                    .arg(score)
                    .arg(job.payload);
                Write::group(job.queue, vec![add.must_add()])
            }
            Kind::Commands(commands) => Write::group(job.queue, checked(commands)?),
            Kind::Worker(handling) => {
                handling.check()?;
                let time = |at: Option<SystemTime>| at.map_or(0, millis);
                let record = Record {
                    enqueued_ms: millis(SystemTime::now()),
                    due_ms: time(job.due),
                    expires_ms: time(job.expires_at),
                    handling: *handling,
                    headers: job.headers,
                    payload: job.payload,
                };
                task::add(job.queue, job.id, &record)
            }
        })
    }
}

/// Shows its kind, never a key or a payload.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::List { .. } => "list",
            Kind::Stream { .. } => "stream",
            Kind::SortedSet { .. } => "sorted set",
            Kind::Commands(_) => "commands",
            Kind::Worker(_) => "worker",
        };
        f.debug_tuple("Destination").field(&kind).finish()
    }
}

fn checked(commands: Vec<Command>) -> Result<Vec<Command>, Error> {
    if commands.is_empty() {
        return Err(Error::invalid("the job's group has no command"));
    }
    match commands.iter().map(Command::len).max() {
        Some(most) if most > Command::MOST_ARGUMENTS => Err(Error::invalid(format!(
            "a command of a group has at most {} arguments, this one has {most}",
            Command::MOST_ARGUMENTS
        ))),
        _ => Ok(commands),
    }
}

//! One line of an export: a record, with all that it takes to put it back.

use std::time::{Duration, SystemTime};

use seawall::{
    sequence::{Action, Write},
    spool::{
        Spoolable,
        stopped::{Record, Refusal},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    show::{InRedis, kind},
    text,
};

/// The line, version 1. What is not known is skipped, so that a later version can add to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    v: u32,
    state: State,
    queue: String,
    lane: String,
    number: u64,
    /// Where Redis knows it, if it is of a tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known_as: Option<InRedis>,
    #[serde(default)]
    acknowledged: u64,
    /// Milliseconds since 1970.
    written_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    /// The record as it is on disk, in base64.
    record: String,
    /// For readers; `import` goes by `record` alone.
    #[serde(skip_deserializing)]
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Readable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Waiting,
    Parked,
    /// Redis has acknowledged it, and its replicas may lack it.
    Tail,
}

/// A record in words, as far as it can be put into words.
#[derive(Debug, Serialize)]
struct Readable {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// What is pushed, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Line {
    pub(crate) fn of(record: Record) -> Self {
        let write = Write::decode(&record.queue.as_str().into(), record.bytes.clone()).ok();
        let (reason, attempts) = match record.refusal {
            Some(refusal) => (Some(refusal.reason), Some(refusal.attempts)),
            None => (None, None),
        };
        Self {
            v: VERSION,
            state: match (&reason, record.known_as) {
                (Some(_), _) => State::Parked,
                (None, Some(_)) => State::Tail,
                (None, None) => State::Waiting,
            },
            queue: record.queue,
            lane: record.lane.to_string(),
            number: record.number,
            known_as: record.known_as.map(InRedis::of),
            acknowledged: record.acknowledged,
            written_ms: text::unix_ms(record.written),
            reason,
            attempts,
            record: text::encode(&record.bytes),
            write: write.map(|write| Readable::of(&write)),
        }
    }

    /// What is wrong with a line is said without quoting it.
    pub(crate) fn parse(line: &[u8]) -> Result<Record, String> {
        let line: Self = serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            format!("is not a record of an export: see its column {column}")
        })?;
        if line.v != VERSION {
            return Err(format!(
                "has version {}, and this seawall knows {VERSION}",
                line.v
            ));
        }
        let lane = line
            .lane
            .parse()
            .map_err(|_| "has a lane that is no UUID")?;
        let known_as = match (line.state, &line.known_as) {
            (State::Tail, Some(known_as)) => Some(
                known_as
                    .parse()
                    .ok_or("is of a tail, and of a lane that is no UUID")?,
            ),
            (State::Tail, None) => {
                return Err("is of a tail, and does not say of which lane".into());
            }
            _ => None,
        };
        let bytes = text::decode(&line.record).ok_or("has a record that is not base64")?;
        let written = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(line.written_ms))
            .ok_or("has a time that no clock shows")?;
        Ok(Record {
            lane,
            queue: line.queue,
            number: line.number,
            acknowledged: line.acknowledged,
            written,
            refusal: (line.state == State::Parked).then(|| Refusal {
                reason: line.reason.unwrap_or_default(),
                attempts: line.attempts.unwrap_or_default(),
            }),
            known_as,
            bytes: bytes.into(),
        })
    }
}

const VERSION: u32 = 1;

impl Readable {
    fn of(write: &Write) -> Self {
        let (key, text) = match write.action() {
            Action::Push { key, value, .. } => (
                Some(key.to_owned()),
                std::str::from_utf8(value).ok().map(str::to_owned),
            ),
            _ => (None, None),
        };
        Self {
            kind: kind(write),
            key,
            expires_ms: write.expires_at().map(text::unix_ms),
            text,
        }
    }
}

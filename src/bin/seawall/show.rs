//! `show`: the records that wait, one by one.

use std::time::SystemTime;

use clap::Args;
use seawall::{
    job::{PROCEDURE, Step},
    sequence::{Action, Side, Write},
    spool::{
        Spoolable,
        stopped::{KnownAs, Lane, Record, Stopped},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    Out, Result,
    output::{Column, Side::Left, Side::Right, Table},
    place::{Choice, Place, named},
    text::{self, count, counted, moment, plain, size, unix_ms},
};

/// Its records, without what is in them
///
/// Of a queue's tail, IN REDIS is the lane and the number by which Redis knows a record.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// The number of the first record of each lane to show
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,
    /// How many records of each lane to show; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u64,
    /// Show what is in them, too: it may be secret
    #[arg(long)]
    payload: bool,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    for (at, lane) in arguments.choice.of(&spool).into_iter().enumerate() {
        if !out.is_json() {
            if at > 0 {
                out.line("")?;
            }
            let records = counted(lane.records, "record");
            out.line(format_args!("{}  lane {}  {records}", named(lane), lane.id))?;
        }
        show_lane(arguments, &spool, lane, out).await?;
    }
    Ok(spool.close().await?)
}

async fn show_lane(
    arguments: &Arguments,
    spool: &Stopped,
    lane: &Lane,
    out: &mut Out,
) -> Result<()> {
    let mut table = Table::new(match (lane.tail, arguments.payload) {
        (false, false) => WITHOUT,
        (false, true) => WITH_PAYLOAD,
        (true, false) => OF_TAIL,
        (true, true) => OF_TAIL_WITH_PAYLOAD,
    })
    .indented();
    let mut left = if arguments.limit == 0 {
        u64::MAX
    } else {
        arguments.limit
    };
    let mut next = arguments.from;
    while left > 0 {
        let page = spool.read(lane.id, next).await?;
        let Some(last) = page.last() else { break };
        next = last.number.saturating_add(1);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        for record in page.iter().take(most) {
            let shown = Shown::of(record, arguments.payload);
            if out.is_json() {
                out.record(&shown)?;
            } else {
                table.push(shown.row());
                table.spill(out)?;
            }
        }
        left = left.saturating_sub(page.len() as u64);
    }
    if out.is_json() {
        Ok(())
    } else {
        table.write(out)
    }
}

const WITHOUT: &[Column] = &[
    ("NUMBER", Right),
    ("WRITTEN", Left),
    ("KIND", Left),
    ("KEY", Left),
    ("BYTES", Right),
    ("EXPIRES", Left),
];
const WITH_PAYLOAD: &[Column] = &[
    ("NUMBER", Right),
    ("WRITTEN", Left),
    ("KIND", Left),
    ("KEY", Left),
    ("BYTES", Right),
    ("EXPIRES", Left),
    ("PAYLOAD", Left),
];

const OF_TAIL: &[Column] = &[
    ("NUMBER", Right),
    ("IN REDIS", Left),
    ("WRITTEN", Left),
    ("KIND", Left),
    ("KEY", Left),
    ("BYTES", Right),
    ("EXPIRES", Left),
];
const OF_TAIL_WITH_PAYLOAD: &[Column] = &[
    ("NUMBER", Right),
    ("IN REDIS", Left),
    ("WRITTEN", Left),
    ("KIND", Left),
    ("KEY", Left),
    ("BYTES", Right),
    ("EXPIRES", Left),
    ("PAYLOAD", Left),
];

/// A record as it is shown.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    queue: &'a str,
    lane: String,
    number: u64,
    /// Where Redis knows it, if it is of a tail.
    #[serde(skip_serializing_if = "Option::is_none")]
    known_as: Option<InRedis>,
    written_ms: u64,
    bytes: u64,
    #[serde(flatten)]
    pub(crate) content: Content,
}

/// What a record does; `unknown` if it is not a write, but an application's own type.
#[derive(Serialize)]
pub(crate) struct Content {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The names of a group's commands, or what is done to which job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Vec<Part>>,
}

/// One part of what is in a record: what is pushed, or a command's arguments.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Text(String),
    Base64(String),
    Command(Vec<Self>),
}

impl<'a> Shown<'a> {
    fn of(record: &'a Record, payload: bool) -> Self {
        Self {
            queue: &record.queue,
            lane: record.lane.to_string(),
            number: record.number,
            known_as: record.known_as.map(InRedis::of),
            written_ms: unix_ms(record.written),
            bytes: record.bytes.len() as u64,
            content: Content::of(record, payload),
        }
    }

    fn row(&self) -> Vec<String> {
        let content = &self.content;
        let mut row = vec![count(self.number)];
        row.extend(self.known_as.as_ref().map(InRedis::text));
        row.extend([
            moment(self.written_ms),
            content.kind.to_owned(),
            content.target(),
            size(self.bytes),
            content.expiry(),
        ]);
        row.extend(content.payload_text());
        row
    }
}

/// The lane and the number by which Redis knows a record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InRedis {
    lane: String,
    number: u64,
}

impl InRedis {
    pub(crate) fn of(known_as: KnownAs) -> Self {
        Self {
            lane: known_as.lane.to_string(),
            number: known_as.number,
        }
    }

    /// `None` if the lane is no UUID.
    pub(crate) fn parse(&self) -> Option<KnownAs> {
        Some(KnownAs {
            lane: self.lane.parse().ok()?,
            number: self.number,
        })
    }

    fn text(&self) -> String {
        format!("{}/{}", self.lane, self.number)
    }
}

impl Content {
    pub(crate) fn of(record: &Record, payload: bool) -> Self {
        let write = Write::decode(&record.queue.as_str().into(), record.bytes.clone());
        let Ok(write) = write else {
            return Self {
                kind: "unknown",
                key: None,
                commands: Vec::new(),
                expires_ms: None,
                payload: payload.then(|| vec![Part::of(&record.bytes)]),
            };
        };
        let mut content = Self {
            kind: kind(&write),
            key: None,
            commands: Vec::new(),
            expires_ms: write.expires_at().map(unix_ms),
            payload: None,
        };
        match write.action() {
            Action::Push { key, value, .. } => {
                content.key = Some(key.to_owned());
                content.payload = payload.then(|| vec![Part::of(value)]);
            }
            Action::Group(commands) => {
                let names = commands
                    .iter()
                    .filter_map(|command| command.arguments().first());
                content.commands = names.map(|name| text::payload(name)).collect();
                let part = |argument: &bytes::Bytes| Part::of(argument);
                let parts = commands
                    .iter()
                    .map(|command| Part::Command(command.arguments().iter().map(part).collect()));
                content.payload = payload.then(|| parts.collect());
            }
            Action::Procedure { name, argument, .. } => {
                let step = match name == PROCEDURE.name() {
                    true => Step::read(argument),
                    false => None,
                };
                let (commands, shown) = match step {
                    Some(step) => (vec![step.verb.to_owned(), step.job.to_string()], step.rest),
                    None => (vec![name.to_owned()], &argument[..]),
                };
                content.commands = commands;
                content.payload = payload.then(|| vec![Part::of(shown)]);
            }
            _ => {}
        }
        content
    }

    /// The list, or the commands' names.
    pub(crate) fn target(&self) -> String {
        match &self.key {
            Some(key) => plain(key),
            None if self.commands.is_empty() => "-".to_owned(),
            None => self.commands.join(" "),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    fn expiry(&self) -> String {
        match self.expires_ms {
            None => "-".to_owned(),
            Some(at) if at <= unix_ms(SystemTime::now()) => format!("{} (past)", moment(at)),
            Some(at) => moment(at),
        }
    }

    pub(crate) fn payload_text(&self) -> Option<String> {
        let parts = self.payload.as_ref()?;
        Some(parts.iter().map(Part::text).collect::<Vec<_>>().join("; "))
    }
}

impl Part {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(text::encode(bytes)),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => plain(text),
            Self::Base64(base64) => format!("base64:{base64}"),
            Self::Command(parts) => parts.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }
}

/// What a write does, in a word.
pub(crate) fn kind(write: &Write) -> &'static str {
    match write.action() {
        Action::Push {
            side: Side::Front, ..
        } => "LPUSH",
        Action::Push {
            side: Side::Back, ..
        } => "RPUSH",
        Action::Procedure { name, .. } if name == PROCEDURE.name() => "job",
        Action::Procedure { .. } => "procedure",
        _ => "group",
    }
}

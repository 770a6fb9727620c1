//! `stat`: how much there is.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    time::SystemTime,
};

use clap::Args;
use seawall::spool::{
    OpenError,
    stopped::{Look, Stopped, look},
};
use serde::Serialize;

use crate::{
    Out, Result,
    place::{Place, is_ours, shown},
    text::{age, count, moment, size, unix_ms},
};

/// How much is in it, how old it is, and what it takes of the disk
///
/// Of a spool that a process has open it says what can be told from outside, and who that process is.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let path = arguments.place.path()?;
    let outside = look(&path)?;
    is_ours(&outside)?;
    match arguments.place.open_at(&path).await {
        Ok(spool) => {
            let report = Report::of(&outside, None, Some(Inside::of(&spool)));
            out.report(&report)?;
            Ok(spool.close().await?)
        }
        Err(error @ OpenError::Locked { holder, .. }) => {
            out.report(&Report::of(&outside, Some(Holder { pid: holder }), None))?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Serialize)]
struct Report {
    dir: String,
    format: Option<u32>,
    files: u64,
    disk_bytes: u64,
    free_disk_bytes: u64,
    in_use: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use_by: Option<Holder>,
    #[serde(flatten)]
    inside: Option<Inside>,
}

#[derive(Serialize)]
struct Holder {
    pid: Option<u32>,
}

/// What only who opens it sees.
#[derive(Serialize)]
struct Inside {
    records: u64,
    bytes: u64,
    /// Redis has acknowledged them, and its replicas may lack them.
    tail: u64,
    tail_bytes: u64,
    queues: usize,
    lanes: usize,
    oldest_ms: Option<u64>,
    parked: u64,
    parked_bytes: u64,
}

impl Report {
    fn of(outside: &Look, holder: Option<Holder>, inside: Option<Inside>) -> Self {
        Self {
            dir: shown(&outside.path),
            format: outside.format,
            files: outside.files,
            disk_bytes: outside.disk_bytes,
            free_disk_bytes: outside.free_bytes,
            in_use: holder.is_some(),
            in_use_by: holder,
            inside,
        }
    }
}

impl Inside {
    fn of(spool: &Stopped) -> Self {
        let contents = spool.contents();
        let queues: BTreeSet<_> = spool.lanes().iter().map(|lane| &lane.queue).collect();
        Self {
            records: contents.records,
            bytes: contents.bytes,
            tail: contents.tail,
            tail_bytes: contents.tail_bytes,
            queues: queues.len(),
            lanes: spool.lanes().len(),
            oldest_ms: contents.oldest.map(unix_ms),
            parked: contents.parked,
            parked_bytes: contents.parked_bytes,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<10} {value}");
        row("directory", self.dir.clone())?;
        let format = self
            .format
            .map_or("unreadable".to_owned(), |format| format.to_string());
        row("format", format)?;
        if let Some(inside) = &self.inside {
            let now = unix_ms(SystemTime::now());
            row(
                "records",
                format!("{} ({})", count(inside.records), size(inside.bytes)),
            )?;
            let kept = if inside.tail > 0 {
                ", kept until replicas have it"
            } else {
                ""
            };
            row(
                "tail",
                format!("{} ({}){kept}", count(inside.tail), size(inside.tail_bytes)),
            )?;
            row(
                "parked",
                format!("{} ({})", count(inside.parked), size(inside.parked_bytes)),
            )?;
            row("queues", count(inside.queues as u64))?;
            row("lanes", count(inside.lanes as u64))?;
            let oldest = inside.oldest_ms.map_or("-".to_owned(), |at| {
                format!("{} ({} ago)", moment(at), age(at, now))
            });
            row("oldest", oldest)?;
        }
        let files = if self.files == 1 { "file" } else { "files" };
        row(
            "on disk",
            format!("{} in {} {files}", size(self.disk_bytes), count(self.files)),
        )?;
        row("free disk", size(self.free_disk_bytes))?;
        match &self.in_use_by {
            None => Ok(()),
            Some(Holder { pid: Some(pid) }) => row("in use by", format!("process {pid}")),
            Some(Holder { pid: None }) => row("in use by", "another process".to_owned()),
        }
    }
}

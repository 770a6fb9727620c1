//! `parked`: records that Redis refused for good.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use seawall::spool::{
    Parked,
    stopped::{Record, Stopped},
};
use serde::Serialize;

use crate::{
    Out, Result, export,
    failure::Failure,
    output::{Column, Side::Left, Side::Right, Table},
    place::{Choice, Place},
    show::Content,
    text::{count, moment, plain, size, unix_ms},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    Ls(Ls),
    Show(Show),
    Export(Export),
}

/// List them, with the reason why Redis will not take them
#[derive(Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// How many to list; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

/// Show all that is known of them
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Only the one with this number
    #[arg(long)]
    number: Option<u64>,
    /// Show what is in them, too: it may be secret
    #[arg(long)]
    payload: bool,
}

/// Copy them as lines of JSON, which `import` puts back
#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Write to this file, which must not be there yet, instead of to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(command: &Command, out: &mut Out) -> Result<()> {
    match command {
        Command::Ls(arguments) => ls(arguments, out).await,
        Command::Show(arguments) => show(arguments, out).await,
        Command::Export(arguments) => export(arguments, out).await,
    }
}

async fn ls(arguments: &Ls, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let limit = if arguments.limit == 0 {
        usize::MAX
    } else {
        arguments.limit
    };
    let mut table = Table::new(COLUMNS);
    for parked in chosen(&spool, &arguments.choice)
        .await?
        .into_iter()
        .take(limit)
    {
        if out.is_json() {
            out.record(&Shown::of(parked, false))?;
            continue;
        }
        table.push(vec![
            plain(parked.queue()),
            parked.lane().to_string(),
            count(parked.number()),
            moment(unix_ms(parked.parked_at())),
            count(parked.attempts().into()),
            size(parked.record().len() as u64),
            plain(parked.reason()),
        ]);
        table.spill(out)?;
    }
    if !out.is_json() {
        table.write(out)?;
    }
    Ok(spool.close().await?)
}

const COLUMNS: &[Column] = &[
    ("QUEUE", Left),
    ("LANE", Left),
    ("NUMBER", Right),
    ("PARKED", Left),
    ("ATTEMPTS", Right),
    ("BYTES", Right),
    ("REASON", Left),
];

async fn show(arguments: &Show, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let mut found = 0;
    for parked in chosen(&spool, &arguments.choice).await? {
        if arguments.number.is_some_and(|only| only != parked.number()) {
            continue;
        }
        let shown = Shown::of(parked, arguments.payload);
        if out.is_json() {
            out.record(&shown)?;
        } else {
            if found > 0 {
                out.line("")?;
            }
            shown.lines(out)?;
        }
        found += 1;
    }
    spool.close().await?;
    if found == 0 && (arguments.number.is_some() || !arguments.choice.is_all()) {
        return Err(Failure::new("no parked record is like that")
            .with_next("`seawall spool parked ls` lists those there are"));
    }
    Ok(())
}

async fn export(arguments: &Export, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let what = export::What {
        choice: &arguments.choice,
        waiting: false,
        parked: true,
    };
    export::to(arguments.output.as_deref(), &spool, &what, out).await?;
    Ok(spool.close().await?)
}

async fn chosen(spool: &Stopped, choice: &Choice) -> Result<Vec<Parked>> {
    let mut parked = spool.parked(usize::MAX).await?;
    parked.retain(|parked| choice.takes(parked.queue(), parked.lane()));
    Ok(parked)
}

#[derive(Serialize)]
struct Shown {
    queue: String,
    lane: String,
    number: u64,
    parked_ms: u64,
    attempts: u32,
    reason: String,
    bytes: u64,
    #[serde(flatten)]
    content: Content,
}

impl Shown {
    fn of(parked: Parked, payload: bool) -> Self {
        Self {
            queue: parked.queue().to_owned(),
            lane: parked.lane().to_string(),
            number: parked.number(),
            parked_ms: unix_ms(parked.parked_at()),
            attempts: parked.attempts(),
            reason: parked.reason().to_owned(),
            bytes: parked.record().len() as u64,
            content: Content::of(&Record::from(parked), payload),
        }
    }

    fn lines(&self, out: &mut Out) -> Result<()> {
        let content = &self.content;
        let rows = [
            ("queue", plain(&self.queue)),
            ("lane", self.lane.clone()),
            ("number", count(self.number)),
            ("parked", moment(self.parked_ms)),
            ("attempts", count(self.attempts.into())),
            ("reason", plain(&self.reason)),
            ("kind", content.kind().to_owned()),
            ("key", content.target()),
            ("bytes", size(self.bytes)),
        ];
        for (name, value) in rows {
            out.line(format_args!("{name:<9} {value}"))?;
        }
        if let Some(payload) = content.payload_text() {
            out.line(format_args!("{:<9} {payload}", "payload"))?;
        }
        Ok(())
    }
}

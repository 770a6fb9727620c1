//! `parked`: records that Redis refused for good.

use std::{
    fmt::{self, Display},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use seawall::{
    sequence::Write,
    spool::{
        Parked, ParkedFilter, ParkedId, Spool, SpoolOptions,
        stopped::{Record, Stopped, look},
    },
};
use serde::Serialize;

use crate::{
    Out, Result, export,
    failure::Failure,
    output::{Column, Side::Left, Side::Right, Table},
    place::{Choice, Place, is_ours},
    show::Content,
    text::{count, counted, moment, plain, size, unix_ms},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    Ls(Ls),
    Show(Show),
    Retry(Retry),
    Export(Export),
    Rm(Rm),
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

/// Show all that is known of them, but what is in them
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Only this one, LANE/NUMBER as it is listed
    #[arg(long)]
    id: Option<ParkedId>,
    /// Show what is in them, too: it may be secret
    #[arg(long)]
    payload: bool,
}

/// Let them wait for Redis again: the next drain, or the application, sends them
///
/// Each moves, in one step, to a fresh lane of its queue. If Redis refuses it again, it is parked again.
#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
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

/// Delete them
#[derive(Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
}

/// Which ones are meant has to be said.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This one, LANE/NUMBER as it is listed
    #[arg(long)]
    id: Option<ParkedId>,
    /// Those of this queue
    #[arg(long)]
    queue: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(command: &Command, out: &mut Out) -> Result<()> {
    match command {
        Command::Ls(arguments) => ls(arguments, out).await,
        Command::Show(arguments) => show(arguments, out).await,
        Command::Retry(arguments) => retry(arguments, out).await,
        Command::Export(arguments) => export(arguments, out).await,
        Command::Rm(arguments) => rm(arguments, out).await,
    }
}

async fn ls(arguments: &Ls, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let mut room = match arguments.limit {
        0 => usize::MAX,
        limit => limit,
    };
    let mut table = Table::new(COLUMNS);
    let mut pages = Pages::of(&spool, &arguments.choice);
    while room > 0
        && let Some(mut page) = pages.next().await?
    {
        page.truncate(room);
        room -= page.len();
        for parked in page {
            if out.is_json() {
                out.record(&Shown::of(parked, false))?;
            } else {
                table.push(row(&parked));
                table.spill(out)?;
            }
        }
    }
    if !out.is_json() {
        table.write(out)?;
    }
    Ok(spool.close().await?)
}

const COLUMNS: &[Column] = &[
    ("QUEUE", Left),
    ("ID", Left),
    ("PARKED", Left),
    ("ATTEMPTS", Right),
    ("BYTES", Right),
    ("REASON", Left),
];

fn row(parked: &Parked) -> Vec<String> {
    vec![
        plain(parked.queue()),
        parked.id().to_string(),
        moment(unix_ms(parked.parked_at())),
        count(parked.attempts().into()),
        size(parked.record().len() as u64),
        plain(parked.reason()),
    ]
}

async fn show(arguments: &Show, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let is_meant = |parked: &Parked| arguments.id.is_none_or(|only| only == parked.id());
    let mut found = 0;
    let mut pages = Pages::of(&spool, &arguments.choice);
    while let Some(page) = pages.next().await? {
        for parked in page.into_iter().filter(is_meant) {
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
    }
    spool.close().await?;
    if found == 0 && (arguments.id.is_some() || !arguments.choice.is_all()) {
        return Err(none());
    }
    Ok(())
}

fn none() -> Failure {
    Failure::new("no parked record is like that")
        .with_next("`seawall spool parked ls` lists those there are")
}

async fn retry(arguments: &Retry, out: &mut Out) -> Result<()> {
    let spool = open(&arguments.place).await?;
    let done = spool.unpark(arguments.which.filter()).await;
    spool.shutdown(Duration::ZERO).await?;
    arguments.which.report(done?, "resent", out)
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

async fn rm(arguments: &Rm, out: &mut Out) -> Result<()> {
    let spool = open(&arguments.place).await?;
    let done = spool.delete_parked(arguments.which.filter()).await;
    spool.shutdown(Duration::ZERO).await?;
    arguments.which.report(done?, "deleted", out)
}

/// As an application does it, without a way to Redis: nothing is sent.
async fn open(place: &Place) -> Result<Spool<Write>> {
    let path = place.path()?;
    is_ours(&look(&path)?)?;
    Ok(Spool::open(SpoolOptions::new(&path).with_strict(!place.takes_damaged())).await?)
}

impl Which {
    fn filter(&self) -> ParkedFilter {
        match (self.id, &self.queue) {
            (Some(id), _) => id.into(),
            (None, Some(queue)) => ParkedFilter::queue(queue),
            (None, None) => ParkedFilter::all(),
        }
    }

    fn report(&self, records: u64, fate: &'static str, out: &mut Out) -> Result<()> {
        if records == 0 && !self.all {
            return Err(none());
        }
        out.report(&Report { fate, records })
    }
}

#[derive(Serialize)]
struct Report {
    fate: &'static str,
    records: u64,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = counted(self.records, "parked record");
        match self.fate {
            "resent" => writeln!(f, "{records} to be sent again"),
            fate => writeln!(f, "{fate} {records}"),
        }
    }
}

/// The parked records that were asked for, page by page.
struct Pages<'a> {
    spool: &'a Stopped,
    choice: &'a Choice,
    after: Option<ParkedId>,
}

impl<'a> Pages<'a> {
    fn of(spool: &'a Stopped, choice: &'a Choice) -> Self {
        Self {
            spool,
            choice,
            after: None,
        }
    }

    /// What a page has of them, perhaps none; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Parked>>> {
        let mut page = self.spool.parked(self.after).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = Some(last.id());
        page.retain(|parked| self.choice.takes(parked.queue(), parked.lane()));
        Ok(Some(page))
    }
}

#[derive(Serialize)]
struct Shown {
    id: String,
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
            id: parked.id().to_string(),
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
            ("id", self.id.clone()),
            ("queue", plain(&self.queue)),
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

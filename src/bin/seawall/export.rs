//! `export`: all records as lines of JSON.

use std::{
    fmt::{self, Display},
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use seawall::spool::stopped::{Record, Stopped};
use serde::Serialize;

use crate::{
    Out, Result,
    failure::Failure,
    line::Line,
    place::{Choice, Place, shown},
    progress::Progress,
    text::counted,
};

/// Copy its records, tails and parked ones included, as lines of JSON
///
/// A line has everything that import needs to put the record back under the lane and the number it has. It
/// holds the record itself: keep the file as safe as the spool.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Write to this file, which must not be there yet, instead of to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out parked records
    #[arg(long)]
    no_parked: bool,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let what = What {
        choice: &arguments.choice,
        waiting: true,
        parked: !arguments.no_parked,
    };
    to(arguments.output.as_deref(), &spool, &what, out).await?;
    Ok(spool.close().await?)
}

/// Which records go out.
pub(crate) struct What<'a> {
    pub(crate) choice: &'a Choice,
    pub(crate) waiting: bool,
    pub(crate) parked: bool,
}

/// To a file, which is whole or not there, or to stdout.
pub(crate) async fn to(
    file: Option<&Path>,
    spool: &Stopped,
    what: &What<'_>,
    out: &mut Out,
) -> Result<()> {
    let json = out.is_json();
    let Some(path) = file else {
        let report = write(spool, what, None, json, out.writer()).await?;
        out.flush()?;
        if !json {
            let _ = write!(io::stderr(), "{report}");
        }
        return Ok(());
    };
    let mut part = Part::begin(path)?;
    let report = write(spool, what, Some(path), json, &mut part.writer).await?;
    part.finish(path)?;
    out.report(&report)
}

async fn write(
    spool: &Stopped,
    what: &What<'_>,
    file: Option<&Path>,
    json: bool,
    to: &mut impl Write,
) -> Result<Report> {
    let mut report = Report {
        file: file.map(shown),
        records: 0,
        tail: 0,
        parked: 0,
    };
    let contents = spool.contents();
    let unparked = contents.records + contents.tail;
    let total = u64::from(what.waiting) * unparked + u64::from(what.parked) * contents.parked;
    let progress = Progress::of_records(total, "export", json);
    // First, so that none of them can come back as one that waits.
    if what.parked {
        let mut after = None;
        loop {
            let page = spool.parked(after).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id());
            progress.add(page.len() as u64);
            for parked in page {
                if what.choice.takes(parked.queue(), parked.lane()) {
                    line(parked.into(), to, file)?;
                    report.parked += 1;
                }
            }
        }
    }
    if what.waiting {
        for lane in what.choice.of(spool) {
            let mut next = lane.first;
            loop {
                let page = spool.read(lane.id, next).await?;
                let Some(last) = page.last() else { break };
                next = last.number.saturating_add(1);
                if lane.tail {
                    report.tail += page.len() as u64;
                } else {
                    report.records += page.len() as u64;
                }
                progress.add(page.len() as u64);
                for record in page {
                    line(record, to, file)?;
                }
            }
        }
    }
    Ok(report)
}

fn line(record: Record, to: &mut impl Write, file: Option<&Path>) -> Result<()> {
    let written = serde_json::to_writer(&mut *to, &Line::of(record))
        .map_err(io::Error::from)
        .and_then(|()| to.write_all(b"\n"));
    match file {
        None => Ok(written?),
        Some(path) => written.map_err(Failure::of(format!("write {path:?}"))),
    }
}

/// A file under a name of its own until it is whole.
struct Part {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl Part {
    fn begin(path: &Path) -> Result<Self> {
        if path.exists() {
            return Err(Failure::usage(format!("{path:?} is there already"))
                .with_next("choose another name, or move it away"));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        // Not for everyone's eyes: it is as secret as the records in it.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .map_err(Failure::of(format!("create {part:?}")))?;
        Ok(Self {
            path: part,
            writer: BufWriter::new(file),
        })
    }

    fn finish(&mut self, path: &Path) -> Result<()> {
        self.writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.path, path))
            .map_err(Failure::of(format!("write {path:?}")))
    }
}

/// What was not finished is removed; what was has another name now.
impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Serialize)]
struct Report {
    file: Option<String>,
    records: u64,
    tail: u64,
    parked: u64,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = counted(self.records, "waiting record");
        let parked = counted(self.parked, "parked record");
        match self.tail {
            0 => write!(f, "exported {records} and {parked}")?,
            tail => {
                let tail = counted(tail, "record");
                write!(f, "exported {records}, {tail} of a tail and {parked}")?;
            }
        }
        match &self.file {
            Some(file) => writeln!(f, " to {file}"),
            None => writeln!(f),
        }
    }
}

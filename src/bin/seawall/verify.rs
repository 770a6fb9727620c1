//! `verify`: whether everything in it can be read back.

use std::{
    fmt::{self, Display},
    path::Path,
};

use clap::Args;
use seawall::{
    sequence::Write,
    spool::{
        OpenError, Spoolable,
        stopped::{Stopped, look},
    },
};
use serde::Serialize;

use crate::{
    Out, Result,
    failure::{Code, Failure},
    place::{Place, is_ours, shown},
    progress::Progress,
    text::{count, counted},
};

/// Read all of it, check every checksum, and say what is damaged
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let path = arguments.place.path()?;
    is_ours(&look(&path)?)?;
    let report = audit(&path, out.is_json()).await?;
    let damaged = report.problems.len() as u64;
    out.report(&report)?;
    if damaged == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the spool is damaged: {}",
        counted(damaged, "problem")
    ))
    .with_code(Code::Damaged)
    .with_next("copy the directory before anything else is done with it; export what can be read"))
}

/// The one place that knows how a spool is checked.
async fn audit(path: &Path, json: bool) -> Result<Report> {
    let mut report = Report {
        dir: shown(path),
        ..Report::default()
    };
    let spool = match Stopped::open(path).await {
        Ok(spool) => spool,
        Err(OpenError::Damaged { what, .. }) => {
            report.problems.push(what);
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    let progress = Progress::of_records(spool.contents().records, "verify", json);
    for lane in spool.lanes() {
        report.lanes += 1;
        let (mut next, mut found) = (lane.first, 0);
        let trouble = loop {
            let page = match spool.read(lane.id, next).await {
                Ok(page) => page,
                Err(error) => break Some(error.to_string()),
            };
            let Some(last) = page.last() else { break None };
            next = last.number.saturating_add(1);
            found += page.len() as u64;
            progress.add(page.len() as u64);
            let queue = lane.queue.as_str().into();
            let foreign = page
                .iter()
                .filter(|record| Write::decode(&queue, record.bytes.clone()).is_err());
            report.unknown += foreign.count() as u64;
        };
        report.records += found;
        let what = match trouble {
            Some(trouble) => trouble,
            None if found != lane.records => {
                format!("{found} of its {} records are there", lane.records)
            }
            None => continue,
        };
        report.problems.push(format!(
            "lane {} after {} records: {what}",
            lane.id,
            count(found)
        ));
    }
    let mut after = None;
    loop {
        match spool.parked(after).await {
            Ok(page) => match page.last() {
                Some(last) => after = Some(last.id()),
                None => break,
            },
            Err(error) => {
                report.problems.push(format!("parked records: {error}"));
                break;
            }
        }
    }
    report.parked = spool.contents().parked;
    spool.close().await?;
    Ok(report)
}

#[derive(Default, Serialize)]
struct Report {
    dir: String,
    lanes: u64,
    records: u64,
    /// Sound, and not writes: an application's own type.
    unknown: u64,
    parked: u64,
    problems: Vec<String>,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = counted(self.records, "record");
        let lanes = counted(self.lanes, "lane");
        writeln!(
            f,
            "read {records} in {lanes}, {} parked",
            count(self.parked)
        )?;
        if self.unknown > 0 {
            writeln!(
                f,
                "{} of an application's own type",
                counted(self.unknown, "record")
            )?;
        }
        for problem in &self.problems {
            writeln!(f, "damaged: {problem}")?;
        }
        if self.problems.is_empty() {
            writeln!(f, "sound")?;
        }
        Ok(())
    }
}

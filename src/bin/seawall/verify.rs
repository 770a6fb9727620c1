//! `verify`: whether everything that must be in it is there.

use std::fmt::{self, Display};

use clap::Args;
use seawall::spool::{
    Recovery,
    stopped::{look, verify},
};
use serde::Serialize;

use crate::{
    Out, Result,
    failure::{Code, Failure},
    place::{Place, is_ours, queue_named, shown},
    text::{count, counted},
};

/// Read all of it, check every checksum, and say what is missing. Changes nothing
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let path = arguments.place.path()?;
    is_ours(&look(&path)?)?;
    let found = verify(&path).await?;
    out.report(&Report::of(shown(&path), &found))?;
    if !found.has_loss() {
        return Ok(());
    }
    let lost = counted(found.lost + found.lost_parked, "record");
    Err(Failure::new(format!("the spool is damaged: {lost} lost"))
        .with_code(Code::Damaged)
        .with_next("copy the directory before anything else is done with it; export what is left"))
}

#[derive(Serialize)]
struct Report {
    dir: String,
    /// It was closed in order.
    clean: bool,
    /// The last write was there only in part.
    torn: bool,
    records: u64,
    tail: u64,
    parked: u64,
    lost: u64,
    lost_parked: u64,
    lanes: Vec<Loss>,
}

#[derive(Serialize)]
struct Loss {
    lane: String,
    queue: String,
    tail: bool,
    lost: u64,
}

impl Report {
    fn of(dir: String, found: &Recovery) -> Self {
        let lanes = found.lanes.iter().map(|loss| Loss {
            lane: loss.lane.to_string(),
            queue: loss.queue.clone(),
            tail: loss.tail,
            lost: loss.records,
        });
        Self {
            dir,
            clean: found.clean,
            torn: found.torn,
            records: found.records,
            tail: found.tail,
            parked: found.parked,
            lost: found.lost,
            lost_parked: found.lost_parked,
            lanes: lanes.collect(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = counted(self.records, "record");
        write!(f, "read {records}, {} parked", count(self.parked))?;
        match self.tail {
            0 => writeln!(f)?,
            tail => writeln!(f, ", {} of a tail", count(tail))?,
        }
        if !self.clean {
            writeln!(f, "not closed in order")?;
        }
        if self.torn {
            writeln!(
                f,
                "the last write is there only in part: nobody had an answer for it"
            )?;
        }
        for loss in &self.lanes {
            let lost = counted(loss.lost, "record");
            writeln!(
                f,
                "lost: {lost} of {} in lane {}",
                queue_named(&loss.queue, loss.tail),
                loss.lane
            )?;
        }
        if self.lost + self.lost_parked == 0 {
            return writeln!(f, "sound");
        }
        let lost = counted(self.lost, "record");
        writeln!(f, "lost in all: {lost}, {} parked", count(self.lost_parked))
    }
}

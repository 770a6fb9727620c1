//! `jobs`: lists of them.

use clap::Args;
use seawall::worker::{JobState, Page, Queue};

use super::{
    reach::{OneQueue, failed},
    shown::Rows,
};
use crate::{Out, Result};

/// List jobs, by their state
///
/// A job that changes its state meanwhile may be missed, or be listed twice.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    queue: OneQueue,
    /// Only those in this state: queued, scheduled, running, failed, dead, succeeded, expired, discarded; can be given
    /// more than once
    #[arg(long, value_name = "STATE")]
    state: Vec<JobState>,
    /// Those that have failed most often and are not finished, the worst first
    #[arg(long, conflicts_with = "state")]
    retriers: bool,
    /// How many to list; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    if arguments.retriers {
        let most = if arguments.limit == 0 {
            usize::MAX
        } else {
            arguments.limit
        };
        let found = queue.frequent_retriers(most).await;
        let mut rows = Rows::new();
        for job in &found.map_err(|error| failed(&error))? {
            rows.push(queue.name(), job, out)?;
        }
        return rows.end(out);
    }
    let states = match &arguments.state[..] {
        [] => &JobState::ALL[..],
        states => states,
    };
    list(&queue, states, arguments.limit, out).await
}

/// The jobs of these states, `limit` at most, or all of them if that is 0.
pub(crate) async fn list(
    queue: &Queue,
    states: &[JobState],
    limit: usize,
    out: &mut Out,
) -> Result<()> {
    let mut room = if limit == 0 { usize::MAX } else { limit };
    let mut rows = Rows::new();
    for state in states {
        let mut page = Some(Page::first().with_size(room.clamp(1, AT_ONCE)));
        while let Some(wanted) = page.filter(|_| room > 0) {
            let found = queue.jobs(*state, wanted).await;
            let found = found.map_err(|error| failed(&error))?;
            for job in found.jobs.iter().take(room) {
                rows.push(queue.name(), job, out)?;
            }
            room -= found.jobs.len().min(room);
            page = found.next;
        }
    }
    rows.end(out)
}

const AT_ONCE: usize = 500;

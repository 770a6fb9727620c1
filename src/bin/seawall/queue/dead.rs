//! `dead`: dead letters, to be looked at and given up.

use clap::{Args, Subcommand};
use seawall::{job::JobId, worker::JobState};

use super::{
    change::{Report, Which},
    job::{find, not_dead, show},
    jobs::list,
    reach::{OneQueue, failed},
};
use crate::{Out, Result};

#[derive(Subcommand)]
pub(crate) enum Command {
    List(List),
    Show(Show),
    Purge(Purge),
}

/// List them, those that will be forgotten first in front
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    queue: OneQueue,
    /// How many to list; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

/// Show one, with the history of its errors
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    queue: OneQueue,
    /// The job's id
    id: JobId,
    /// Show what is in it, too, the values of its headers included: they may be secret
    #[arg(long)]
    payload: bool,
}

/// Delete them, for ever
#[derive(Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    queue: OneQueue,
    #[command(flatten)]
    which: Which,
}

pub(crate) async fn run(command: &Command, out: &mut Out) -> Result<()> {
    match command {
        Command::List(arguments) => {
            let queue = arguments.queue.open().await?;
            list(&queue, &[JobState::Dead], arguments.limit, out).await
        }
        Command::Show(arguments) => {
            let queue = arguments.queue.open().await?;
            let job = find(&queue, arguments.id).await?;
            if job.state() != JobState::Dead {
                return Err(not_dead(&queue, job.id(), job.state()));
            }
            show(&queue, &job, arguments.payload, out)
        }
        Command::Purge(arguments) => purge(arguments, out).await,
    }
}

async fn purge(arguments: &Purge, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    let purged = match (arguments.which.id, &arguments.which.error) {
        (Some(id), _) => {
            let purged = queue.purge_one(id).await.map_err(|error| failed(&error))?;
            if !purged {
                let job = find(&queue, id).await?;
                return Err(not_dead(&queue, id, job.state()));
            }
            1
        }
        (None, Some(error)) => queue
            .purge_all_of(error)
            .await
            .map_err(|error| failed(&error))?,
        (None, None) => queue.purge().await.map_err(|error| failed(&error))?,
    };
    out.report(&Report::of(queue.name(), "purged", purged))
}

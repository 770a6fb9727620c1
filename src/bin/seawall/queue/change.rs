//! `requeue` and `delete`: what changes jobs.

use std::fmt::{self, Display};

use clap::Args;
use seawall::job::JobId;
use serde::Serialize;

use super::{
    job::{find, not_dead},
    reach::{OneQueue, failed},
};
use crate::{Out, Result, failure::Failure, text::counted};

/// Let dead letters wait in the queue again, with all their retries
///
/// Their attempts are counted on, and the history of their errors stays.
#[derive(Args)]
pub(crate) struct Requeue {
    #[command(flatten)]
    queue: OneQueue,
    #[command(flatten)]
    which: Which,
}

/// Delete a job that no worker has: a queued, scheduled, failed or dead one
#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    queue: OneQueue,
    /// The job's id
    id: JobId,
}

/// Which ones are meant has to be said.
#[derive(Args)]
pub(crate) struct Which {
    /// The job's id
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "error"])]
    pub(crate) id: Option<JobId>,
    /// All of them, a few hundred at a time
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all: those whose last error was of this type
    #[arg(long, value_name = "TYPE", requires = "all")]
    pub(crate) error: Option<String>,
}

pub(crate) async fn requeue(arguments: &Requeue, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    let requeued = match (arguments.which.id, &arguments.which.error) {
        (Some(id), _) => {
            let requeued = queue.requeue(id).await.map_err(|error| failed(&error))?;
            if !requeued {
                let job = find(&queue, id).await?;
                return Err(not_dead(&queue, id, job.state()));
            }
            1
        }
        (None, Some(error)) => {
            let requeued = queue.requeue_all_of(error).await;
            requeued.map_err(|error| failed(&error))?
        }
        (None, None) => queue.requeue_all().await.map_err(|error| failed(&error))?,
    };
    out.report(&Report::of(queue.name(), "requeued", requeued))
}

pub(crate) async fn delete(arguments: &Delete, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    let deleted = queue
        .delete(arguments.id)
        .await
        .map_err(|error| failed(&error))?;
    if !deleted {
        let job = find(&queue, arguments.id).await?;
        let id = job.id();
        return Err(Failure::new(format!("the job {id} was not deleted: it is {}", job.state()))
            .with_next("a running job can be deleted once it has ended or failed; a finished one is forgotten by itself"));
    }
    out.report(&Report::of(queue.name(), "deleted", 1))
}

#[derive(Serialize)]
pub(crate) struct Report<'a> {
    queue: &'a str,
    fate: &'static str,
    jobs: u64,
}

impl<'a> Report<'a> {
    pub(crate) fn of(queue: &'a str, fate: &'static str, jobs: u64) -> Self {
        Self { queue, fate, jobs }
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.fate, counted(self.jobs, "job"))
    }
}

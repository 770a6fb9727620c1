//! `job`: all that is known of one.

use clap::Args;
use seawall::{
    job::JobId,
    worker::{JobInfo, JobState, Queue},
};

use super::{
    reach::{OneQueue, failed},
    shown::Shown,
};
use crate::{Out, Result, failure::Failure, text::plain};

/// Show where a job is, and what is known of it: its errors, or its result's size
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    queue: OneQueue,
    /// The job's id
    id: JobId,
    /// Show what is in it, too, its result and the values of its headers included: they may be secret
    #[arg(long)]
    payload: bool,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let queue = arguments.queue.open().await?;
    let job = find(&queue, arguments.id).await?;
    show(&queue, &job, arguments.payload, out)
}

pub(crate) async fn find(queue: &Queue, id: JobId) -> Result<JobInfo> {
    let found = queue.job(id).await.map_err(|error| failed(&error))?;
    found.ok_or_else(|| {
        let name = plain(queue.name());
        Failure::new(format!("the queue {name} has no job {id}, or has forgotten how it ended"))
            .with_next(format!(
                "`seawall queue jobs {name}` lists those it has; one that was enqueued while Redis was away may still \
                 be on the application's disk"
            ))
    })
}

pub(crate) fn show(queue: &Queue, job: &JobInfo, payload: bool, out: &mut Out) -> Result<()> {
    let shown = Shown::of(queue.name(), job, payload);
    match out.is_json() {
        true => out.record(&shown),
        false => shown.lines(out),
    }
}

/// What to say of a job that was to be dead and is not.
pub(crate) fn not_dead(queue: &Queue, id: JobId, state: JobState) -> Failure {
    let name = plain(queue.name());
    Failure::new(format!("the job {id} is not dead: it is {state}")).with_next(format!(
        "`seawall queue dead list {name}` lists the dead ones"
    ))
}

//! `queue`: the queues of workers, in Redis.

mod change;
mod dead;
mod job;
mod jobs;
mod reach;
mod shown;
mod stat;
mod workers;

use clap::Subcommand;

use crate::{Out, Result};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(after_help = EXIT_CODES)]
    Stat(stat::Arguments),
    #[command(after_help = EXIT_CODES)]
    Jobs(jobs::Arguments),
    #[command(after_help = EXIT_CODES)]
    Job(job::Arguments),
    /// Jobs that have failed for good
    #[command(subcommand, after_help = EXIT_CODES)]
    Dead(dead::Command),
    #[command(after_help = EXIT_CODES)]
    Requeue(change::Requeue),
    #[command(after_help = EXIT_CODES)]
    Delete(change::Delete),
    #[command(after_help = EXIT_CODES)]
    Workers(workers::Arguments),
}

pub(crate) async fn run(command: &Command, out: &mut Out) -> Result<()> {
    match command {
        Command::Stat(arguments) => stat::run(arguments, out).await,
        Command::Jobs(arguments) => jobs::run(arguments, out).await,
        Command::Job(arguments) => job::run(arguments, out).await,
        Command::Dead(command) => dead::run(command, out).await,
        Command::Requeue(arguments) => change::requeue(arguments, out).await,
        Command::Delete(arguments) => change::delete(arguments, out).await,
        Command::Workers(arguments) => workers::run(arguments, out).await,
    }
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  an error, or no such job; the message says which, and what to do next
    2  wrong usage
    6  Redis is away, or does not let us in

The URL of Redis can be given as --redis URL, or, out of sight of other users, in SEAWALL_REDIS_URL.";

//! The command `seawall`: looks after a spool that no application has open, and after the queues of workers in Redis.
//!
//! Each subcommand is a module with the arguments it takes, what it does, and what it reports: a value that
//! is shown as text, or as JSON with `--json`. What all of them say and how they end is in `output` and
//! `failure`. `docs/operations.md` has the manual.

mod drain;
mod export;
mod failure;
mod import;
mod line;
mod ls;
mod output;
mod parked;
mod place;
mod progress;
mod queue;
mod show;
mod stat;
mod text;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{
    failure::{Failure, Result},
    output::Out,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::usage(&error),
    };
    let mut out = Out::new(arguments.json);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")));
    let ended = runtime.and_then(|runtime| runtime.block_on(run(arguments.command, &mut out)));
    let flushed = out.flush();
    match ended.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(arguments.json),
    }
}

/// Looks after seawall's spools and queues by hand.
#[derive(Parser)]
#[command(
    name = "seawall",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    /// Say it in JSON: one document, or one line for each record
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is in a spool, and how to get it out
    #[command(subcommand, after_help = EXIT_CODES)]
    Spool(Spool),
    /// What is in the queues of workers, who works, and what to do about dead letters
    #[command(subcommand, after_help = queue::EXIT_CODES)]
    Queue(queue::Command),
}

#[derive(Subcommand)]
enum Spool {
    #[command(after_help = EXIT_CODES)]
    Stat(stat::Arguments),
    #[command(after_help = EXIT_CODES)]
    Ls(ls::Arguments),
    #[command(after_help = EXIT_CODES)]
    Show(show::Arguments),
    #[command(after_help = EXIT_CODES)]
    Verify(verify::Arguments),
    #[command(after_help = EXIT_CODES)]
    Export(export::Arguments),
    #[command(after_help = EXIT_CODES)]
    Import(import::Arguments),
    #[command(after_help = EXIT_CODES)]
    Drain(drain::Arguments),
    /// Records that Redis will never take as they are
    #[command(subcommand, after_help = EXIT_CODES)]
    Parked(parked::Command),
}

async fn run(command: Command, out: &mut Out) -> Result<()> {
    let command = match command {
        Command::Queue(command) => return queue::run(&command, out).await,
        Command::Spool(command) => command,
    };
    match command {
        Spool::Stat(arguments) => stat::run(&arguments, out).await,
        Spool::Ls(arguments) => ls::run(&arguments, out).await,
        Spool::Show(arguments) => show::run(&arguments, out).await,
        Spool::Verify(arguments) => verify::run(&arguments, out).await,
        Spool::Export(arguments) => export::run(&arguments, out).await,
        Spool::Import(arguments) => import::run(&arguments, out).await,
        Spool::Drain(arguments) => drain::run(&arguments, out).await,
        Spool::Parked(command) => parked::run(&command, out).await,
    }
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done, and nothing is left to do
    1  an error; the message says which, and what to do next
    2  wrong usage
    3  a process has the spool open
    4  the spool is damaged
    5  drain: records are left, because Redis is away or refuses them, or its replicas lack them
  130  drain: interrupted, and ended in order

The directory can be given as DIR, as --dir DIR, or in SEAWALL_SPOOL_DIR.";

//! The nemesis: a Redis that is killed, frozen and cut off at random, under load from several producer
//! processes, some of which are killed as well; and the books of what survives.
//!
//! ```text
//! make chaos                                       # all topologies, two minutes in all, a random seed
//! make chaos SEED=7 MINUTES=10 TOPOLOGY=standalone
//! cargo run --release --features chaos --example chaos -- --help
//! ```
//!
//! Each producer is this program again, with a spool of its own and queues that nobody else writes to.
//! It writes down what it attempts and what is acknowledged, in a file that its own death does not take.
//! Nothing takes jobs out while it runs: at the end all lists are read where they have survived, and
//! balanced with what the producers wrote down. One line for each topology and level of
//! acknowledgement:
//!
//! ```text
//! chaos: topology=standalone ack=primary seed=7 attempted=.. acknowledged=.. delivered=.. unexpected=0 ..
//! ```
//!
//! The exit code is 0 if nothing was lost, doubled, made up, overtaken or late, 1 if anything was (with
//! the command that repeats the run), 2 if it could not be run, 130 if it was interrupted.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, not the library"
)]

mod failover;
mod fleet;
mod journal;
mod lateness;
mod load;
mod outcome;
mod produce;
mod run;
mod scenes;
mod scratch;
mod switches;
mod world;

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use seawall::error::BoxError;
use tokio::signal::unix::{SignalKind, signal};

use self::{run::Run, scenes::Scene, scratch::Scratch, world::Topology};

/// Hurts a Redis at random under load, and balances the books.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Makes the schedule of the faults. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// What happens.
    #[arg(long, value_enum, default_value_t = Scenario::Nemesis)]
    scenario: Scenario,
    /// How many seeds, from the first, a scenario other than the nemesis runs.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long the faults go on, over all topologies.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What is attacked.
    #[arg(long, value_enum, default_value_t = Which::All)]
    topology: Which,
    /// How many jobs a second, over all producers.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Be a producer: what this program starts by itself.
    #[arg(long, hide = true)]
    produce: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Random faults for a while.
    Nemesis,
    /// Each way to lose a primary, idle and under load, and how soon the next one is used.
    Failover,
    /// A primary whose replicas are cut off is killed; the control, without the repair, must lose jobs.
    LostWrites,
    /// A primary that is alone with its clients; the control must lose jobs.
    SplitBrain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Standalone,
    Sentinel,
    Cluster,
    All,
}

impl Args {
    /// The command for the same schedule of faults.
    fn again(&self, seed: u64) -> String {
        if self.scenario == Scenario::Nemesis {
            let topology = name_of(&self.topology);
            return format!(
                "make chaos SEED={seed} MINUTES={} TOPOLOGY={topology}",
                self.minutes
            );
        }
        format!(
            "cargo run --release --features chaos --example chaos -- --scenario {} --seed {seed} --seeds {}",
            name_of(&self.scenario),
            self.seeds,
        )
    }
}

impl Which {
    fn topologies(self) -> &'static [Topology] {
        match self {
            Self::Standalone => &[Topology::Standalone],
            Self::Sentinel => &[Topology::Sentinel],
            Self::Cluster => &[Topology::Cluster],
            Self::All => &Topology::ALL,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.produce {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
        return ended(produce::run().await.map(|()| true));
    }
    tokio::select! {
        told = story(&args) => ended(told),
        () = interrupted() => {
            println!("interrupted; the servers, producers and spools of this run are gone");
            ExitCode::from(130)
        }
    }
}

/// Says whether all came out clean.
async fn story(args: &Args) -> Result<bool, BoxError> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u16>().into());
    println!("seed {seed}");
    let scratch = Scratch::new()?;
    let (seeds, path) = (args.seeds, scratch.path());
    let clean = match args.scenario {
        Scenario::Nemesis => nemesis(args, seed, path).await?,
        Scenario::Failover => failover::run(seeds, seed, args.rate / 4.0, path).await?,
        Scenario::LostWrites => {
            scenes::play(Scene::LostWrites, seeds, seed, args.rate, path).await?
        }
        Scenario::SplitBrain => {
            scenes::play(Scene::SplitBrain, seeds, seed, args.rate, path).await?
        }
    };
    if !clean {
        println!(
            "journals, logs and spools are kept in {}",
            scratch.keep()?.display()
        );
        println!("repeat it with: {}", args.again(seed));
    }
    Ok(clean)
}

/// All topologies, one after the other.
async fn nemesis(args: &Args, seed: u64, dir: &Path) -> Result<bool, BoxError> {
    let topologies = args.topology.topologies();
    let span = Duration::from_secs_f64(args.minutes * 60.0 / topologies.len() as f64);
    let (mut lines, mut clean) = (Vec::new(), true);
    for topology in topologies {
        let run = Run {
            topology: *topology,
            seed,
            span,
            rate: args.rate,
        };
        let dir = dir.join(topology.name());
        std::fs::create_dir(&dir)?;
        let outcome = run.run(&dir).await?;
        outcome.tell();
        clean &= outcome.violations.is_empty();
        lines.extend(outcome.lines(topology.name(), seed));
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(clean)
}

fn name_of(value: &impl ValueEnum) -> String {
    let named = value.to_possible_value();
    named.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn ended(told: Result<bool, BoxError>) -> ExitCode {
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::from(2)
        }
    }
}

async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

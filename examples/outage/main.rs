//! The main job: eight tasks enqueue 200,000 jobs while their Redis is killed twice and frozen once.
//!
//! It starts a real `redis-server` of its own, so nothing has to be up, and puts the jobs into two lists
//! and a stream. At the end it reads all of them back and balances the books: what was handed in and
//! accepted must be there, once, and in order.
//!
//! ```text
//! make demo
//! make demo ARGS="--jobs 1000000 --seed 7"
//! cargo run --release --features chaos --example outage -- --help
//! ```
//!
//! Expect half a minute of a live timeline (plain lines if the output is not a terminal), the books as
//! a table, and one last line:
//!
//! ```text
//! books: attempted=200000 acknowledged=200000 delivered=200000 lost=0 duplicated=0 out_of_order=0 ..
//! ```
//!
//! The exit code is 0 if nothing was lost, duplicated, made up or out of order, 1 if anything was, 2 if
//! the demo could not be run, 130 if it was interrupted.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, not the library"
)]

mod chart;
mod far_end;
mod faults;
mod producers;
mod screen;
mod timeline;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use prometheus::Registry;
use seawall::{
    Seawall,
    chaos::{Balance, Books, RedisServer},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use self::{producers::Tally, screen::Screen, timeline::Timeline};

/// Enqueues numbered jobs through a Redis outage, and balances the books.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// How many jobs.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Moves the times of the faults, and their order. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How long the jobs are spread over, in seconds.
    #[arg(long, default_value_t = 22, value_parser = clap::value_parser!(u64).range(3..))]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = tokio::select! {
        ended = run(&args) => ended,
        () = interrupted() => {
            // By now `run` has been dropped, and with it the screen, the Redis and the spool.
            println!("interrupted; the Redis and the spool of this run are gone");
            return ExitCode::from(130);
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outage: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::from(2)
        }
    }
}

/// Says whether the books are clean.
async fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u16>().into());
    let span = Duration::from_secs(args.seconds);
    let faults = faults::plan(seed, span);

    let mut redis = RedisServer::builder().durable().start().await?;
    let spool = tempfile::Builder::new()
        .prefix("seawall-spool-")
        .tempdir()?;
    let registry = Registry::new();
    let seawall = Seawall::builder(&redis.url(), spool.path())?
        .metrics(&registry)
        .connect()
        .await?;
    seawall.connection().wait_ready(STARTS_WITHIN).await?;

    let timeline = Arc::new(Timeline::new(registry, args.jobs));
    let books = Arc::new(Books::new());
    let tally = Arc::new(Tally::default());
    let title = format!(
        "seawall: {} jobs, {} tasks, 3 queues, through an outage   (Redis on port {}, seed {seed})",
        screen::grouped(args.jobs),
        producers::TASKS,
        redis.port(),
    );
    let mut screen = Screen::open(title, &timeline, &tally)?;

    let story = async {
        let producing = async {
            producers::run(&seawall, args.jobs, span, &books, &tally).await;
            Ok(())
        };
        let inflicting = faults::inflict(&faults, &mut redis, &timeline);
        tokio::try_join!(producing, inflicting)?;
        timeline.tell("all jobs handed in; waiting for the spool to drain");
        let drained = timeout(DRAINS_WITHIN, seawall.flush()).await.is_ok();
        timeline.look(&seawall);
        if !drained {
            timeline.tell("the spool has NOT drained in time");
        }
        let left = seawall.shutdown(ENDS_WITHIN).await?;
        timeline.tell(format!("seawall shut down; {left} jobs left on disk"));
        far_end::read(&redis, &books).await?;
        timeline.tell("read the far end");
        Ok::<_, Box<dyn Error>>(())
    };
    let told = tokio::select! {
        told = story => told,
        failed = screen.follow(&seawall) => failed.map(|never| match never {}),
    };
    screen.close(&seawall)?;
    told?;

    Ok(report(seed, &books, &tally, &timeline))
}

/// Prints what it came to, and says whether that is clean.
fn report(seed: u64, books: &Books, tally: &Tally, timeline: &Timeline) -> bool {
    let balance = books.balance();
    println!("\nseed {seed}\n\n{}\n", timeline.summary());
    for (error, count) in tally.errors() {
        println!("{count} jobs were refused: {error}");
    }
    for lost in books.lost(3).iter().take(12) {
        println!("lost: queue and task {lost}");
    }
    println!("{}", balance.table());
    println!("{}", last_line(balance, tally.slowest()));
    balance.is_clean()
}

fn last_line(balance: Balance, slowest: Duration) -> String {
    let Balance {
        attempted,
        acknowledged,
        delivered,
        lost,
        duplicated,
        out_of_order,
        recovered,
        ..
    } = balance;
    format!(
        "books: attempted={attempted} acknowledged={acknowledged} delivered={delivered} lost={lost} \
         duplicated={duplicated} out_of_order={out_of_order} recovered={recovered} \
         slowest_enqueue_ms={}",
        slowest.as_millis()
    )
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

const STARTS_WITHIN: Duration = Duration::from_secs(10);
const DRAINS_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(10);

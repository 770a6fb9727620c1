//! A worker and its producer, through an outage of Redis, with retries and a dead letter.
//!
//! ```text
//! cargo run --features chaos --example worker
//! ```
//!
//! It starts a Redis of its own, kills it while jobs are in hand, and starts it again a second later. What is
//! enqueued meanwhile waits on the disk, and so do the ends of the jobs that were in hand: none of them is executed
//! again for that. Expect, within about ten seconds:
//!
//! ```text
//! Redis is killed
//! Redis is back
//! state      jobs
//! dead          1  no_such_mailbox: nobody of that name lives here
//! succeeded   299
//! kept on disk while Redis was out: the ends of 8 executions
//! books: accepted=300 executions=329 retries=29 again=0 lost=0
//! ```
//!
//! SIGTERM and Ctrl-C end it earlier: the worker finishes what it has in hand, and the rest stays queued. It ends with
//! 1 if anything is lost.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{
    collections::{BTreeMap, HashSet},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use seawall::{
    Job, Seawall,
    chaos::{RedisServer, wait_until},
    error::BoxError,
    job::{JobId, Retries},
    worker::{Delivery, Failure, JobInfo},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mut redis = RedisServer::builder().durable().start().await?;
    let dir = tempfile::tempdir()?;
    let seawall = Seawall::builder(&redis.url(), dir.path())?;
    let seawall = seawall.connect().await?;
    seawall.connection().wait_ready(PATIENCE).await?;

    let executed = Arc::<Executed>::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let retries = Retries::exponential(Duration::from_millis(100), Duration::from_secs(60));
    let worker = seawall
        .worker(QUEUE)
        .concurrency(8)
        .retries(retries.with_max(3))
        .result_ttl(Duration::from_secs(3600))
        .extension(executed.clone())
        .shutdown_on(stopped)
        .run(send);
    let worker = tokio::spawn(worker);

    let mut accepted = Vec::new();
    tokio::select! {
        scene = scene(&mut redis, &seawall, &mut accepted) => scene?,
        signal = told_to_end() => println!("{}", signal?),
    }
    drop(stop);
    let report = worker.await??;
    if !redis.is_running() {
        redis.restart().await?;
    }
    seawall.flush().await;

    let lost = print_states(&seawall, &accepted).await?;
    println!(
        "kept on disk while Redis was out: the ends of {} executions",
        report.completions_kept
    );
    let (jobs, executions) = (executed.lock().len() as u64, report.started);
    // More than the first ones and the retries; of these some may be outstanding.
    let again = executions.saturating_sub(jobs + report.retried);
    println!(
        "books: accepted={} executions={executions} retries={} again={again} lost={lost}",
        accepted.len(),
        report.retried,
    );
    seawall.shutdown(PATIENCE).await?;
    Ok(ExitCode::from(u8::from(lost > 0)))
}

/// The handler. A mail server that has its weaknesses.
async fn send(email: u64, delivery: Delivery) -> Result<(), Failure> {
    if let Some(executed) = delivery.extension::<Arc<Executed>>() {
        executed.lock().insert(email);
    }
    sleep(Duration::from_millis(20)).await;
    if email == 100 {
        let failure = Failure::new("no_such_mailbox", "nobody of that name lives here");
        return Err(failure.permanently());
    }
    if email.is_multiple_of(10) && delivery.attempt() == 1 {
        return Err(Failure::status(503, "the mail server is busy"));
    }
    Ok(())
}

/// Numbers of those that were executed at least once.
type Executed = Mutex<HashSet<u64>>;

/// Emails are enqueued all the while, and Redis is out for a second.
async fn scene(
    redis: &mut RedisServer,
    seawall: &Seawall,
    accepted: &mut Vec<JobId>,
) -> Result<(), BoxError> {
    for email in 1..=300_u64 {
        match email {
            100 => {
                redis.kill().await?;
                println!("Redis is killed");
            }
            200 => {
                redis.restart().await?;
                println!("Redis is back");
            }
            _ => {}
        }
        let job = Job::json(QUEUE, &email)?.for_worker();
        let id = job.id();
        let _receipt = seawall.enqueue(job).await?;
        accepted.push(id);
        sleep(Duration::from_millis(5)).await;
    }
    seawall.flush().await;
    let queue = seawall.queue(QUEUE);
    let ended = || async {
        let stat = queue.stat().await;
        stat.is_ok_and(|stat| stat.done + stat.dead == 300)
    };
    Ok(wait_until("all jobs to end", PATIENCE, ended).await?)
}

/// Prints how many jobs are in which state, with what the dead ones died of. Returns how many there are no more.
async fn print_states(seawall: &Seawall, accepted: &[JobId]) -> Result<usize, BoxError> {
    let (queue, mut lost) = (seawall.queue(QUEUE), 0);
    let mut states = BTreeMap::<&str, Vec<JobInfo>>::new();
    for id in accepted {
        match queue.job(*id).await? {
            Some(job) => states.entry(job.state().as_str()).or_default().push(job),
            None => lost += 1,
        }
    }
    println!("state      jobs");
    for (state, jobs) in states {
        let errors: Vec<_> = jobs.iter().filter_map(JobInfo::error).collect();
        let why = errors.first().map_or(String::new(), |error| {
            format!("  {}: {}", error.error_type(), error.message())
        });
        println!("{state:9} {:5}{why}", jobs.len());
    }
    Ok(lost)
}

async fn told_to_end() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

const QUEUE: &str = "emails";
const PATIENCE: Duration = Duration::from_secs(30);

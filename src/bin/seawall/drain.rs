//! `drain`: sends what waits to Redis, by the line that the application uses.

use std::{
    fmt::{self, Display},
    io,
    path::Path,
    time::Duration,
};

use clap::Args;
use indicatif::ProgressBar;
use prometheus::Registry;
use seawall::{
    Seawall,
    spool::{Replay, SpoolStats, TailOptions, stopped::look},
};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    Out, Result,
    failure::{Code, Failure},
    place::{Place, is_ours, shown},
    progress::Progress,
    text::{count, counted},
};

/// Send what waits to Redis, in order, and remove it
///
/// Each record keeps its lane and its number, by which Redis knows what it has: a second run, or the
/// application's own replay, doubles nothing. What is not delivered stays in the spool. Of what Redis had
/// acknowledged before it is asked what it still has, and the rest is given back.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The URL of Redis, as the application has it; out of sight of other users in SEAWALL_REDIS_URL
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Keep trying while Redis is away, until it is back or this is interrupted
    #[arg(long)]
    wait: bool,
    /// How long to try without getting anywhere before giving up
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Send at most so many records a second, of each queue
    #[arg(long, value_name = "RECORDS")]
    rate: Option<u32>,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let path = arguments.place.path()?;
    let url = url(arguments)?;
    is_ours(&look(&path)?)?;
    let mut interrupted = Interrupt::new()?;
    let json = out.is_json();

    let registry = Registry::new();
    let progress = Progress::of_records(0, "drain", json);
    if !json {
        log_to(progress.bar());
    }
    let seawall = connect(&url, &path, arguments, &registry).await?;
    let before = seawall.spool().stats();
    progress.bar().set_length(in_all(&before));
    let end = send(&seawall, &registry, arguments, &progress, &mut interrupted).await;
    let grace = if end == End::Drained { CLOSING } else { GRACE };
    let left = seawall.shutdown(grace).await?;
    drop(progress);

    let report = Report::of(&path, &seawall, &registry, end, left);
    out.report(&report)?;
    report.verdict()
}

fn url(arguments: &Arguments) -> Result<String> {
    let from_environment = || std::env::var("SEAWALL_REDIS_URL").ok();
    let url = arguments.to.clone().or_else(from_environment);
    url.ok_or_else(|| {
        Failure::usage("drain where to?")
            .with_next("give the URL of Redis as --to URL, or in SEAWALL_REDIS_URL")
    })
}

async fn connect(
    url: &str,
    path: &Path,
    arguments: &Arguments,
    registry: &Registry,
) -> Result<Seawall> {
    let strict = !arguments.place.takes_damaged();
    let builder = Seawall::builder(url, path)?.metrics(registry);
    let tail = TailOptions::new().with_max_age(WITHOUT_REPLICAS);
    let mut builder = builder.spool(|options| options.with_strict(strict).with_tail(Some(tail)));
    if let Some(rate) = arguments.rate {
        builder = builder.spool(|options| options.with_replay(Replay::new().with_rate(rate)));
    }
    Ok(builder.connect().await?)
}

/// Within this a Redis has told of its replicas if it has any.
const WITHOUT_REPLICAS: Duration = Duration::from_secs(1);

/// What a drain that did not end by itself is given to end in order.
const GRACE: Duration = Duration::from_secs(1);
const CLOSING: Duration = Duration::from_secs(10);

/// How a drain has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Drained,
    Interrupted,
    /// No progress, and this is why.
    RedisAway,
    RedisRefuses,
}

async fn send(
    seawall: &Seawall,
    registry: &Registry,
    arguments: &Arguments,
    progress: &Progress,
    interrupted: &mut Interrupt,
) -> End {
    let total = in_all(&seawall.spool().stats());
    let mut flushed = std::pin::pin!(seawall.flush());
    let mut waits_for_replicas = false;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stall = Stall::new(arguments.patience, total, Instant::now());
    loop {
        tokio::select! {
            () = &mut flushed, if !waits_for_replicas => {
                if seawall.spool().stats().tail == 0 {
                    return End::Drained;
                }
                waits_for_replicas = true;
            }
            () = interrupted.comes() => return End::Interrupted,
            now = ticks.tick() => {
                let stats = seawall.spool().stats();
                let left = in_all(&stats);
                progress.set(total.saturating_sub(left));
                if waits_for_replicas {
                    if stats.tail == 0 || (stall.is_over(left, true, now) && !arguments.wait) {
                        return End::Drained;
                    }
                    continue;
                }
                let trouble = trouble(seawall, registry);
                if stall.is_over(left, trouble.is_some(), now) && !arguments.wait {
                    return trouble.unwrap_or(End::RedisAway);
                }
            }
        }
    }
}

/// What is to leave the spool.
fn in_all(stats: &SpoolStats) -> u64 {
    stats.records + stats.tail
}

const TICK: Duration = Duration::from_millis(100);

/// What keeps records from being delivered, if anything does that can be seen from here.
fn trouble(seawall: &Seawall, registry: &Registry) -> Option<End> {
    let health = seawall.health();
    if !health.up {
        Some(End::RedisAway)
    } else if health.outage_since.is_some() || is_blocked(registry) {
        Some(End::RedisRefuses)
    } else {
        None
    }
}

/// Whether it is time to give up: nothing was delivered for as long as the patience lasts, and trouble was
/// seen meanwhile. Without trouble it is slow, or its rate is low.
struct Stall {
    patience: Duration,
    left: u64,
    since: Instant,
    trouble: bool,
}

impl Stall {
    fn new(patience: Duration, left: u64, now: Instant) -> Self {
        Self {
            patience,
            left,
            since: now,
            trouble: false,
        }
    }

    fn is_over(&mut self, left: u64, trouble: bool, now: Instant) -> bool {
        if left != self.left {
            *self = Self::new(self.patience, left, now);
        }
        self.trouble |= trouble;
        self.trouble && now.duration_since(self.since) >= self.patience
    }
}

/// SIGINT and SIGTERM. From here on they do not end the process by themselves.
struct Interrupt([tokio::signal::unix::Signal; 2]);

impl Interrupt {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).map_err(Failure::of("listen for signals"));
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
        ]))
    }

    async fn comes(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// What the line has to say goes to stderr, past the progress bar.
fn log_to(bar: ProgressBar) {
    struct Aside(ProgressBar);

    impl io::Write for Aside {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.suspend(|| io::stderr().write(bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let writer = move || Aside(bar.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer);
    // There is no other: this is the command itself.
    let _ = tracing::subscriber::set_global_default(subscriber.finish());
}

#[derive(Debug, Serialize)]
struct Report {
    dir: String,
    end: End,
    /// Delivered, for the first time as far as Redis remembers.
    sent: u64,
    /// Redis had them already.
    suppressed: u64,
    expired: u64,
    parked: u64,
    /// What Redis had acknowledged and lost, and has again.
    repaired: u64,
    /// What Redis had acknowledged and no longer has: records of before.
    lost_by_redis: u64,
    left: u64,
    /// What Redis has and its replicas lack: records that stay until they have them.
    left_tail: u64,
    /// Parked now, those of before included.
    left_parked: u64,
    /// Why there is no connection, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

impl Report {
    fn of(path: &Path, seawall: &Seawall, registry: &Registry, end: End, left: u64) -> Self {
        let stats = seawall.spool().stats();
        let status = *seawall.connection().status().borrow();
        let suppressed = sum(registry, "seawall_duplicates_suppressed_total");
        let replayed = sum(registry, "seawall_spool_replayed_total");
        Self {
            dir: shown(path),
            end,
            sent: replayed.saturating_sub(suppressed),
            suppressed,
            expired: sum(registry, "seawall_expired_total"),
            parked: sum(registry, "seawall_spool_parked_total"),
            repaired: sum(registry, "seawall_repaired_total"),
            lost_by_redis: sum(registry, "seawall_lost_by_redis_total"),
            left: left.saturating_sub(stats.tail),
            left_tail: stats.tail,
            left_parked: stats.parked,
            trouble: status
                .trouble
                .filter(|_| end == End::RedisAway)
                .map(|trouble| trouble.as_str()),
        }
    }

    /// All is well only if nothing is left.
    fn verdict(&self) -> Result<()> {
        let left = counted(self.left + self.left_tail, "record");
        let failure = match self.end {
            End::Drained if self.left_parked > 0 => {
                let parked = counted(self.left_parked, "record");
                Failure::new(format!("{parked} that Redis will never take stay parked")).with_next(
                    "see them with `seawall spool parked ls`, and put right what their reasons say",
                )
            }
            End::Drained if self.left_tail > 0 => {
                let tail = counted(self.left_tail, "record");
                Failure::new(format!(
                    "{tail} that Redis has stay until its replicas have them"
                ))
                .with_next("run it again once they follow: see INFO replication")
            }
            End::Drained => return Ok(()),
            End::Interrupted => {
                let failure = Failure::new(format!("interrupted: {left} stay in the spool"))
                    .with_next("run it again to go on");
                return Err(failure.with_code(Code::Interrupted));
            }
            End::RedisAway => {
                let why = self
                    .trouble
                    .map_or(String::new(), |why| format!(" ({why})"));
                Failure::new(format!("Redis is away{why}: {left} stay in the spool"))
                    .with_next("run it again when Redis is back, or with --wait to keep trying")
            }
            End::RedisRefuses => Failure::new(format!(
                "Redis answers, and takes no records: {left} stay in the spool"
            ))
            .with_next(
                "the warnings above say why; docs/operations.md, A lane is blocked, has the cures",
            ),
        };
        Err(failure.with_code(Code::Left))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("sent", self.sent, ""),
            ("suppressed", self.suppressed, "Redis had them already"),
            ("expired", self.expired, "their time had passed"),
            ("parked", self.parked, "Redis will never take them"),
            (
                "repaired",
                self.repaired,
                "Redis had acknowledged them, and had lost them",
            ),
            ("left", self.left, "they wait in the spool"),
            ("tail", self.left_tail, "kept until replicas have them"),
            (
                "lost",
                self.lost_by_redis,
                "Redis had acknowledged them before, and has lost them",
            ),
        ];
        for (name, number, what) in rows {
            let always = matches!(name, "sent" | "suppressed" | "left");
            if always || number > 0 {
                let what = if number > 0 { what } else { "" };
                writeln!(
                    f,
                    "{}",
                    format!("{name:<10} {:>9}  {what}", count(number)).trim_end()
                )?;
            }
        }
        Ok(())
    }
}

/// Redis refuses everything of a queue.
fn is_blocked(registry: &Registry) -> bool {
    let families = registry.gather();
    let lanes = families
        .iter()
        .filter(|family| family.name() == "seawall_lanes");
    let mut metrics = lanes.flat_map(|family| family.get_metric());
    metrics.any(|metric| {
        let blocked = metric
            .get_label()
            .iter()
            .any(|label| label.value() == "blocked");
        blocked && metric.get_gauge().get_value() > 0.0
    })
}

/// Of all queues.
fn sum(registry: &Registry, name: &str) -> u64 {
    let families = registry.gather();
    let named = families.iter().filter(|family| family.name() == name);
    let metrics = named.flat_map(|family| family.get_metric());
    metrics
        .map(|metric| metric.get_counter().get_value() as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up_only_after_trouble_without_progress() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stall = Stall::new(Duration::from_secs(10), 100, start);
        assert!(!stall.is_over(100, false, at(60)), "slow is no trouble");
        assert!(!stall.is_over(90, true, at(70)), "progress");
        assert!(!stall.is_over(90, false, at(79)));
        assert!(stall.is_over(90, false, at(80)), "trouble was seen");
        assert!(!stall.is_over(89, false, at(81)));
        assert!(!stall.is_over(89, false, at(200)));
    }
}

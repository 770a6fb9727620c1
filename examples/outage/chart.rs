//! The timeline as a picture: one column per half second, or more if it has to be.

use std::time::Duration;

use crossterm::style::{Color, Stylize};
use seawall::breaker::State;

use crate::{
    screen::grouped,
    timeline::{Redis, Sample, word},
};

/// The lines of a chart at most `width` columns wide.
pub(crate) fn draw(samples: &[Sample], width: usize) -> Vec<String> {
    let Some(last) = samples.last() else {
        return Vec::new();
    };
    let columns = width.saturating_sub(NAME + VALUE).clamp(10, MOST_COLUMNS);
    let mut step = SHORTEST_STEP;
    while step * columns as u32 <= last.at {
        step *= 2;
    }
    let buckets = buckets(samples, step);
    let row = |name: &str, marks: String, value: String| {
        let gap = columns - buckets.len();
        format!("  {name:<8}{marks}{:gap$}  {value}", "")
    };
    let rates = |name: &str, color: Color, of: fn(&Bucket) -> f64| {
        let values: Vec<f64> = buckets.iter().map(of).collect();
        let now = values.iter().rev().nth(1).or(values.last()).copied();
        let value = format!("{:>7}/s", grouped(now.unwrap_or_default() as u64));
        row(name, bars(&values).with(color).to_string(), value)
    };
    let depths: Vec<f64> = buckets.iter().map(|bucket| bucket.depth as f64).collect();
    vec![
        row(
            "Redis",
            buckets.iter().map(|bucket| redis(bucket.redis)).collect(),
            format!("{:>9}", last.redis.as_str()),
        ),
        row(
            "breaker",
            buckets
                .iter()
                .map(|bucket| breaker(bucket.breaker))
                .collect(),
            format!("{:>9}", word(last.breaker)),
        ),
        rates("direct", Color::Green, |bucket| bucket.direct),
        rates("spooled", Color::Yellow, |bucket| bucket.spooled),
        rates("replayed", Color::Cyan, |bucket| bucket.replayed),
        row(
            "on disk",
            bars(&depths).with(Color::Magenta).to_string(),
            format!("{:>9}", grouped(last.depth)),
        ),
        format!("  {:<8}{}", "", scale(step, columns)),
    ]
}

/// What happened within one column.
struct Bucket {
    redis: Redis,
    breaker: State,
    /// Jobs a second.
    direct: f64,
    spooled: f64,
    replayed: f64,
    depth: u64,
}

fn buckets(samples: &[Sample], step: Duration) -> Vec<Bucket> {
    let column = |sample: &Sample| sample.at.as_nanos() / step.as_nanos();
    let mut before = samples[0];
    samples
        .chunk_by(|one, other| column(one) == column(other))
        .map(|within| {
            let last = within[within.len() - 1];
            let seconds = (last.at - before.at).as_secs_f64();
            let rate = |now: u64, then: u64| {
                if seconds > 0.0 {
                    (now - then) as f64 / seconds
                } else {
                    0.0
                }
            };
            let (now, then) = (last.counts, before.counts);
            before = last;
            let worst = within.iter().map(|sample| sample.redis).max();
            let refusing = within
                .iter()
                .map(|sample| sample.breaker)
                .max_by_key(severity);
            Bucket {
                redis: worst.unwrap_or(last.redis),
                breaker: refusing.unwrap_or(last.breaker),
                direct: rate(now.direct, then.direct),
                spooled: rate(now.spooled, then.spooled),
                replayed: rate(now.replayed, then.replayed),
                depth: within
                    .iter()
                    .map(|sample| sample.depth)
                    .max()
                    .unwrap_or_default(),
            }
        })
        .collect()
}

fn severity(state: &State) -> u8 {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        _ => 2,
    }
}

fn redis(state: Redis) -> String {
    match state {
        Redis::Up => "\u{2500}".green(),
        Redis::Starting => ":".yellow(),
        Redis::Frozen => "*".blue(),
        Redis::Killed => "x".red(),
    }
    .to_string()
}

fn breaker(state: State) -> String {
    match state {
        State::Closed => "\u{2500}".green(),
        State::HalfOpen => "o".yellow(),
        _ => "O".red(),
    }
    .to_string()
}

/// A block for each value, the largest a full one.
fn bars(values: &[f64]) -> String {
    let most = values.iter().copied().fold(1.0, f64::max);
    values
        .iter()
        .map(
            |value| match (value / most * BLOCKS.len() as f64).ceil() as usize {
                0 => ' ',
                eighths => BLOCKS[eighths.min(BLOCKS.len()) - 1],
            },
        )
        .collect()
}

/// One eighth of a block to a whole one.
const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];

/// The seconds, at every tenth column.
fn scale(step: Duration, columns: usize) -> String {
    (0..columns)
        .step_by(10)
        .map(|column| format!("{:<10}", format!("{} s", (step * column as u32).as_secs())))
        .collect()
}

const NAME: usize = 10;
const VALUE: usize = 11;
const MOST_COLUMNS: usize = 100;
const SHORTEST_STEP: Duration = Duration::from_millis(500);

//! What every bench says at its end: a table on the screen, the same as JSON, and the goal each row is
//! held against. A goal that is missed is shown and is no failure.
#![allow(dead_code, reason = "each bench uses its part of it")]
#![allow(clippy::print_stdout, reason = "a bench speaks on the screen")]
#![allow(
    unreachable_pub,
    reason = "a module of a program is reached by nobody else"
)]

use std::{env, fs, path::Path, thread};

use serde_json::{Value, json};

/// One bench's rows, and the conditions under which they were measured.
pub struct Report {
    name: &'static str,
    quick: bool,
    conditions: Vec<(&'static str, String)>,
    rows: Vec<Row>,
}

impl Report {
    /// `--quick`, and being run as a test, ask for a short run that only shows that it works.
    pub fn new(name: &'static str) -> Self {
        let has = |flag: &str| env::args().any(|argument| argument == flag);
        let quick = has("--quick") || !has("--bench");
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        Self {
            name,
            quick,
            conditions: vec![("cores", cores.to_string()), ("load before", load)],
            rows: Vec::new(),
        }
    }

    /// `full`, or `short` in a quick run.
    pub fn sized<T>(&self, full: T, short: T) -> T {
        if self.quick { short } else { full }
    }

    pub fn condition(&mut self, name: &'static str, value: impl ToString) {
        self.conditions.push((name, value.to_string()));
    }

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table and writes `target/bench/<name>.json`.
    pub fn finish(self) {
        println!(
            "\n{}{}",
            self.name,
            if self.quick {
                " (quick: the figures mean little)"
            } else {
                ""
            }
        );
        let said = self
            .conditions
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        println!("{}\n", said.collect::<Vec<_>>().join(", "));
        print_table(&self.rows);
        let conditions = self
            .conditions
            .iter()
            .map(|(name, value)| (*name, json!(value)));
        let json = json!({
            "bench": self.name,
            "quick": self.quick,
            "conditions": conditions.map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        fs::create_dir_all(&dir).expect("target/ can be written");
        let path = dir.join(self.name).with_extension("json");
        fs::write(path, format!("{json:#}\n")).expect("target/ can be written");
    }
}

/// What was measured, against what, and what it was meant to be.
pub struct Row {
    what: String,
    unit: Unit,
    ours: f64,
    against: Option<(&'static str, f64)>,
    goal: Option<Goal>,
}

impl Row {
    pub fn new(what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self {
            what: what.into(),
            unit,
            ours,
            against: None,
            goal: None,
        }
    }

    pub fn against(mut self, whom: &'static str, theirs: f64) -> Self {
        self.against = Some((whom, theirs));
        self
    }

    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.against.map(|(_, theirs)| self.ours / theirs)
    }

    fn met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(limit) => ratio >= limit,
            Goal::RatioBelow(limit) => ratio < limit,
            Goal::AtLeast(limit) => self.ours >= limit,
            Goal::AtMost(limit) => self.ours <= limit,
            Goal::Below(limit) => self.ours < limit,
        })
    }

    fn cells(&self) -> [String; 6] {
        let against = |(whom, theirs)| format!("{} {whom}", self.unit.show(theirs));
        let goal = |goal: Goal| match goal {
            Goal::RatioAtLeast(limit) => format!(">= {limit} x"),
            Goal::RatioBelow(limit) => format!("< {limit} x"),
            Goal::AtLeast(limit) => format!(">= {}", self.unit.show(limit)),
            Goal::AtMost(limit) => format!("<= {}", self.unit.show(limit)),
            Goal::Below(limit) => format!("< {}", self.unit.show(limit)),
        };
        [
            self.what.clone(),
            self.unit.show(self.ours),
            self.against.map(against).unwrap_or_default(),
            self.ratio()
                .map(|ratio| format!("{ratio:.2} x"))
                .unwrap_or_default(),
            self.goal.map(goal).unwrap_or_default(),
            self.met()
                .map_or("", |met| if met { "met" } else { "MISSED" })
                .to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let goal = self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(limit) => json!({ "ratio_at_least": limit }),
            Goal::RatioBelow(limit) => json!({ "ratio_below": limit }),
            Goal::AtLeast(limit) => json!({ "at_least": limit }),
            Goal::AtMost(limit) => json!({ "at_most": limit }),
            Goal::Below(limit) => json!({ "below": limit }),
        });
        json!({
            "what": self.what,
            "unit": self.unit.name(),
            "ours": self.ours,
            "against": self.against.map(|(whom, theirs)| json!({ "what": whom, "value": theirs })),
            "ratio": self.ratio(),
            "goal": goal,
            "met": self.met(),
        })
    }
}

/// What a row is held against. Absolute values are in the row's unit.
#[derive(Clone, Copy)]
pub enum Goal {
    RatioAtLeast(f64),
    RatioBelow(f64),
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    Seconds,
    Bytes,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 999_500.0 => format!("{:.2} M/s", value / 1e6),
            Self::PerSecond => format!("{:.1} k/s", value / 1e3),
            Self::Seconds if value.abs() < 1e-6 => format!("{:.0} ns", value * 1e9),
            Self::Seconds if value.abs() < 1e-3 => format!("{:.1} us", value * 1e6),
            Self::Seconds if value.abs() < 1.0 => format!("{:.1} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
            Self::Count => format!("{value}"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }
}

/// The measurements of one contender, a round each.
#[derive(Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&mut self) -> f64 {
        self.quantile(0.5)
    }

    pub fn quantile(&mut self, share: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }
}

/// The version of the `redis-server` that the bench runs against.
pub async fn redis_version(redis: &seawall::chaos::RedisServer) -> String {
    let info: String = redis
        .command(redis::cmd("INFO").arg("server"))
        .await
        .expect("Redis answers");
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    version.unwrap_or("unknown").to_owned()
}

/// A directory on the disk that the build is on: a temporary directory may be in memory.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written")
}

fn print_table(rows: &[Row]) {
    let head = ["what", "ours", "against", "ratio", "goal", ""].map(str::to_owned);
    let table: Vec<_> = [head]
        .into_iter()
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in table {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

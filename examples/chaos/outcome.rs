//! What a run came to: the books of each level, and all that the producers have counted.

use std::{collections::BTreeMap, io, time::Duration};

use seawall::{
    chaos::{Balance, Books},
    error::BoxError,
};

use crate::{
    fleet::Producer,
    journal::{self, Entry},
    produce::{Level, Setup},
    switches::{Delays, Switch},
    world::World,
};

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    balances: Vec<(Level, Balance)>,
    /// Each thing that must not be, in words.
    pub(crate) violations: Vec<String>,
    /// How many calls and enqueues took longer than they may.
    pub(crate) late: u64,
    counts: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    /// Of producers that were not killed: when calls succeeded after others had not, or on another
    /// server than before.
    successes: Vec<Vec<(u64, u16)>>,
}

/// Reads the journals of producers that have ended, and the lists as they stand.
pub(crate) async fn judge(producers: &[Producer], world: &World) -> Result<Outcome, BoxError> {
    let mut outcome = Outcome::default();
    let mut levels: Vec<(Level, Books)> = Vec::new();
    for Producer { setup, victim, .. } in producers {
        if !levels.iter().any(|(level, _)| *level == setup.level) {
            levels.push((setup.level, Books::new()));
        }
        let books = levels.iter().find(|(level, _)| *level == setup.level);
        let (_, books) = books.ok_or("the books of this level have just been opened")?;
        let successes = outcome.read(setup, books)?;
        if !victim {
            outcome.successes.push(successes);
        }
        for queue in 0..setup.queues {
            let key = setup.key(queue);
            for payload in world.list(&key).await? {
                match number(&payload) {
                    Some(number) => books.deliver((&key, number)),
                    // Counted as unexpected: nobody has attempted it.
                    None => books.deliver(("not a job of ours", 0)),
                }
            }
        }
    }
    for (level, books) in levels {
        let balance = books.balance();
        let lanes = books.lanes().into_iter();
        let bad = lanes.filter(|(_, balance)| !balance.is_clean());
        outcome
            .violations
            .extend(bad.map(|(lane, balance)| format!("{lane}: {balance}")));
        let lost = books.lost(1).into_iter();
        outcome
            .violations
            .extend(lost.map(|lost| format!("the first one lost: {lost}")));
        outcome.balances.push((level, balance));
    }
    Ok(outcome)
}

impl Outcome {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// All levels together.
    pub(crate) fn total(&self) -> Balance {
        let mut total = Balance::default();
        self.balances
            .iter()
            .for_each(|(_, balance)| total += *balance);
        total
    }

    /// Prints what must not be.
    #[allow(clippy::print_stdout, reason = "a program, not the library")]
    pub(crate) fn tell(&self) {
        for violation in self.violations.iter().take(MOST_TOLD) {
            println!("VIOLATION {violation}");
        }
        let rest = self.violations.len().saturating_sub(MOST_TOLD);
        if rest > 0 {
            println!("VIOLATION and {rest} more");
        }
    }

    /// One line for each level.
    pub(crate) fn lines(&self, topology: &str, seed: u64) -> Vec<String> {
        let line = |(level, balance): &(Level, Balance)| {
            format!(
                "chaos: topology={topology} ack={} seed={seed} attempted={} acknowledged={} delivered={} \
                 unexpected={} duplicated={} lost={} recovered={} out_of_order={}",
                level.name(),
                balance.attempted,
                balance.acknowledged,
                balance.delivered,
                balance.unexpected,
                balance.duplicated,
                balance.lost,
                balance.recovered,
                balance.out_of_order,
            )
        };
        self.balances.iter().map(line).collect()
    }

    /// The same for people, without the books.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!(
            "connections made {}, duplicates suppressed {}, replayed {}, repaired {}, lost by Redis {}\n\
             slowest enqueue {:.0?}; calls: {} ok, {} failed in time, slowest {:.0?}",
            self.count("generations"),
            self.count("duplicates_suppressed"),
            self.count("replayed"),
            self.count("repaired"),
            self.count("lost_by_redis"),
            Duration::from_micros(self.count("slowest_enqueue_us")),
            self.count("calls_ok"),
            self.count("calls_failed"),
            Duration::from_micros(self.count("slowest_call_us")),
        );
        for (error, count) in &self.errors {
            text += &format!("\n{count} jobs were refused: {error}");
        }
        text
    }

    /// How long after each switch the producers had their first answer.
    pub(crate) fn delays(&self, switches: &[Switch]) -> Delays {
        let mut delays = Delays::default();
        for successes in &self.successes {
            delays.add(Delays::of(switches, successes));
        }
        delays
    }

    /// Returns when calls succeeded.
    fn read(&mut self, setup: &Setup, books: &Books) -> io::Result<Vec<(u64, u16)>> {
        let keys = setup.keys();
        let (entries, _) = journal::read(&setup.journal)?;
        let mut life = BTreeMap::new();
        let mut successes = Vec::new();
        let mut left = None;
        for entry in entries {
            match entry {
                Entry::Started => self.add(std::mem::take(&mut life)),
                Entry::Attempted { queue, numbers } => {
                    numbers.for_each(|number| books.attempt((&keys[queue], number)));
                }
                Entry::Acknowledged { queue, numbers } => {
                    numbers.for_each(|number| books.acknowledge((&keys[queue], number)));
                }
                Entry::Failed { error, .. } => *self.errors.entry(error).or_default() += 1,
                Entry::Late { what, over_ms } => {
                    let name = &setup.name;
                    self.late += 1;
                    self.violations
                        .push(format!("{name}: {what} was late by {over_ms} ms"));
                }
                Entry::Success { at_us, port } => successes.push((at_us, port)),
                Entry::Counted(counts) => life = counts,
                Entry::Drained => {}
                Entry::Ended { left: records } => left = Some(records),
            }
        }
        self.add(life);
        if left != Some(0) {
            let name = &setup.name;
            self.violations.push(format!(
                "{name} did not end with an empty spool: left {left:?}"
            ));
        }
        Ok(successes)
    }

    fn add(&mut self, life: BTreeMap<String, u64>) {
        for (name, count) in life {
            let slowest = name.starts_with("slowest");
            let sum = self.counts.entry(name).or_default();
            *sum = if slowest {
                (*sum).max(count)
            } else {
                *sum + count
            };
        }
    }
}

const MOST_TOLD: usize = 40;

fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload)
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

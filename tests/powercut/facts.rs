//! What a far end that knows lanes by their numbers has, and what was promised to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use seawall::spool::{Applied, Batch};

use super::{
    log::Entry,
    note::{Note, life},
    worker::outage,
};

/// The books of all lives of a spool, up to a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Handed over to the spool, whatever became of it.
    called: BTreeSet<u64>,
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Its caller was told that it will never come.
    refused: BTreeSet<u64>,
    pub(crate) delivered: BTreeSet<u64>,
    /// The last number that each lane has got through.
    lanes: HashMap<String, u64>,
    /// The last record of each stream.
    streams: BTreeMap<(u64, u64), u64>,
    /// How many batches it takes before it is out.
    pub(crate) takes: u64,
    /// What is going on.
    pub(crate) stage: &'static str,
    pub(crate) violations: Vec<Violation>,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// Acknowledged, and it never came.
    Lost(u64),
    Twice(u64),
    /// It came after this one, which was handed over later.
    OutOfOrder(u64, u64),
    /// It came as something else than was written.
    Torn(u64),
    /// Nobody has written it.
    Foreign(u64),
    /// Its caller had been told that it will never come.
    Refused(u64),
    /// A batch began behind what the far end has.
    Gap(u64),
    /// The spool says that it has lost so many.
    SaidLost(u64),
    DoesNotOpen(String),
    DoesNotWork(String),
    Left(u64),
    Parked(u64),
    Panicked,
    /// While it did this.
    Hangs(&'static str),
    /// It no longer gets on with what it is to deliver, of which there are so many left.
    Stuck(u64),
}

impl Violation {
    /// Of which kind it is, for a count.
    pub(crate) fn kind(&self) -> String {
        let text = format!("{self:?}");
        let end = text.find('(').unwrap_or(text.len());
        text[..end].to_owned()
    }
}

impl Facts {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut facts = Self::default();
        entries.iter().for_each(|entry| facts.learn(entry));
        facts
    }

    /// One more entry of a log.
    pub(crate) fn learn(&mut self, entry: &Entry) {
        let Entry::Note(text) = entry else {
            return;
        };
        let words: Vec<_> = text.split(' ').collect();
        match *words {
            ["call", id] => self.call(number(id)),
            ["ack", id] => self.acknowledge(number(id)),
            ["no", id] => drop(self.refused.insert(number(id))),
            ["sent", lane, at, id, intact] => {
                let mut note = Note::usual(number(id));
                note.intact = intact == "true";
                let _ = self.deliver(lane, number(at), note);
            }
            ["refused", ..] => self.violations.push(Violation::DoesNotOpen(text.clone())),
            ["closed", left] => {
                // What it says it has left cannot be more than it was ever given.
                let left = left
                    .strip_prefix("Ok(")
                    .and_then(|left| left.strip_suffix(')'));
                let left = left.map_or(0, number);
                if left > self.called.len() as u64 {
                    self.violations.push(Violation::Left(left));
                }
            }
            ["end", lane] => drop(self.lanes.remove(lane)),
            _ => {}
        }
    }

    pub(crate) fn call(&mut self, id: u64) {
        self.called.insert(id);
    }

    pub(crate) fn acknowledge(&mut self, id: u64) {
        self.acknowledged.insert(id);
    }

    /// What the far end does with a batch.
    pub(crate) fn take(&mut self, batch: &Batch<Note>) -> Result<Applied, seawall::Error> {
        let lane = batch.lane().to_string();
        if batch.ends_lane() {
            self.lanes.remove(&lane);
            return Ok(Applied::all());
        }
        if self.takes == 0 {
            return Err(outage());
        }
        self.takes -= 1;
        let last = self.lanes.get(&lane).copied().unwrap_or_default();
        if last < batch.after() {
            self.violations.push(Violation::Gap(batch.after()));
        }
        let mut duplicates = 0;
        for (at, note) in batch.iter() {
            let note = *note.expect("no record expires");
            duplicates += u64::from(!self.deliver(&lane, at, note));
        }
        Ok(Applied::all().with_duplicates(duplicates))
    }

    /// Says whether the record was new, by its number.
    fn deliver(&mut self, lane: &str, at: u64, note: Note) -> bool {
        let last = self.lanes.entry(lane.to_owned()).or_default();
        if at <= *last {
            return false;
        }
        *last = at;
        let id = note.id;
        let before = self.streams.entry(note.stream()).or_default();
        let mut wrong = Vec::new();
        if !self.called.contains(&id) {
            wrong.push(Violation::Foreign(id));
        }
        if !note.intact {
            wrong.push(Violation::Torn(id));
        }
        if self.refused.contains(&id) {
            wrong.push(Violation::Refused(id));
        }
        if !self.delivered.insert(id) {
            wrong.push(Violation::Twice(id));
        } else if *before > id {
            wrong.push(Violation::OutOfOrder(id, *before));
        }
        *before = id.max(*before);
        self.violations.extend(wrong);
        true
    }

    /// What is missing once all has come.
    pub(crate) fn settle(&mut self) {
        let missing = self.acknowledged.difference(&self.delivered);
        self.violations
            .extend(missing.copied().map(Violation::Lost));
    }

    /// A life that nobody has lived yet.
    pub(crate) fn next_life(&self) -> u64 {
        self.called.last().copied().map_or(1, |id| life(id) + 1)
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number in the log")
}

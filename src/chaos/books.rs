//! The books of a chaos run: what was attempted, acknowledged and seen at the far end.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

use parking_lot::{Mutex, RwLock};

use super::balance::Balance;

/// Counts numbered jobs, lane by lane, and says whether any was lost, doubled or overtaken.
///
/// A *lane* is one ordered stream: one producer and one queue, named by a string or a number. Each
/// job in it has a number, rising by one from anywhere. Write down the
/// [`attempt`](Self::attempt) before the call, the [`acknowledge`](Self::acknowledge) after its
/// success, and [`deliver`](Self::deliver) for everything the far end holds; then ask for the
/// [`balance`](Self::balance).
///
/// All of it may be called from many threads at once: lanes do not wait for each other. A job
/// takes three bits and a call about a tenth of a microsecond, so a run may have millions.
///
/// ```
/// use seawall::chaos::Books;
///
/// let books = Books::new();
/// for number in 1..=3 {
///     books.attempt(("emails", number));
/// }
/// books.acknowledge(("emails", 1));
/// books.acknowledge(("emails", 2));
/// books.deliver(("emails", 1));
/// books.deliver(("emails", 3)); // of which the producer did not hear
///
/// let balance = books.balance();
/// assert_eq!((balance.lost, balance.recovered), (1, 1));
/// assert!(!balance.is_clean());
/// assert_eq!(books.lost(10), ["emails 2"]);
/// ```
#[derive(Debug, Default)]
pub struct Books {
    named: Lanes<Box<str>>,
    numbered: Lanes<u32>,
}

/// Which job: a lane, by name or number, and the job's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry<'a> {
    lane: LaneRef<'a>,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LaneRef<'a> {
    Named(&'a str),
    Numbered(u32),
}

impl Books {
    /// Empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The producer is about to hand in this job.
    pub fn attempt<'a>(&self, job: impl Into<Entry<'a>>) {
        self.enter(job.into(), Lane::attempt);
    }

    /// The producer was told that this job is safe.
    pub fn acknowledge<'a>(&self, job: impl Into<Entry<'a>>) {
        self.enter(job.into(), Lane::acknowledge);
    }

    /// This job was seen at the far end, in the order of these calls.
    pub fn deliver<'a>(&self, job: impl Into<Entry<'a>>) {
        self.enter(job.into(), Lane::deliver);
    }

    /// Adds up all lanes. Exact once nobody writes any more.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let mut sum = Balance::default();
        self.for_each(|_, lane| sum += lane.balance());
        sum
    }

    /// The balance of each lane, by its name.
    #[must_use]
    pub fn lanes(&self) -> Vec<(String, Balance)> {
        let mut lanes = Vec::new();
        self.for_each(|name, lane| lanes.push((name, lane.balance())));
        lanes.sort_by(|(one, _), (other, _)| one.cmp(other));
        lanes
    }

    /// The first `limit` lost jobs of each lane, as `lane number`: where to look when a run fails.
    #[must_use]
    pub fn lost(&self, limit: usize) -> Vec<String> {
        let mut lost = Vec::new();
        self.for_each(|name, lane| {
            lost.extend(
                lane.lost(limit)
                    .iter()
                    .map(|number| format!("{name} {number}")),
            );
        });
        lost
    }

    fn enter(&self, Entry { lane, number }: Entry<'_>, write: impl Fn(&mut Lane, u64)) {
        let write = |lane: &mut Lane| write(lane, number);
        match lane {
            LaneRef::Named(name) => self.named.with(name, || name.into(), write),
            LaneRef::Numbered(lane) => self.numbered.with(&lane, || lane, write),
        }
    }

    fn for_each(&self, mut visit: impl FnMut(String, &Lane)) {
        for (name, lane) in &*self.named.0.read() {
            visit(name.to_string(), &lane.lock());
        }
        for (number, lane) in &*self.numbered.0.read() {
            visit(number.to_string(), &lane.lock());
        }
    }
}

impl<'a> From<(&'a str, u64)> for Entry<'a> {
    fn from((lane, number): (&'a str, u64)) -> Self {
        Self {
            lane: LaneRef::Named(lane),
            number,
        }
    }
}

impl<'a> From<(&'a String, u64)> for Entry<'a> {
    fn from((lane, number): (&'a String, u64)) -> Self {
        Self {
            lane: LaneRef::Named(lane),
            number,
        }
    }
}

impl From<(u32, u64)> for Entry<'_> {
    fn from((lane, number): (u32, u64)) -> Self {
        Self {
            lane: LaneRef::Numbered(lane),
            number,
        }
    }
}

/// One lock for each lane; the outer one is only written when a lane is new.
#[derive(Debug)]
struct Lanes<K>(RwLock<HashMap<K, Mutex<Lane>>>);

impl<K: Eq + Hash> Lanes<K> {
    fn with<Q>(&self, key: &Q, owned: impl FnOnce() -> K, write: impl FnOnce(&mut Lane))
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(lane) = self.0.read().get(key) {
            return write(&mut lane.lock());
        }
        write(self.0.write().entry(owned()).or_default().get_mut());
    }
}

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

/// Pages, so that a number from nowhere costs a page and not the memory up to it.
#[derive(Debug, Default)]
struct Lane {
    pages: HashMap<u64, Box<Page>>,
    highest_delivered: Option<u64>,
    duplicated: u64,
    out_of_order: u64,
}

/// One bit for each of the numbers that share a page.
#[derive(Debug, Default)]
struct Page {
    attempted: [u64; WORDS],
    acknowledged: [u64; WORDS],
    delivered: [u64; WORDS],
}

const WORDS: usize = 32;
const WORD: u64 = u64::BITS as u64;
const PAGE: u64 = WORDS as u64 * WORD;

impl Lane {
    fn attempt(&mut self, number: u64) {
        let (page, word, bit) = self.place(number);
        page.attempted[word] |= bit;
    }

    fn acknowledge(&mut self, number: u64) {
        let (page, word, bit) = self.place(number);
        page.acknowledged[word] |= bit;
    }

    fn deliver(&mut self, number: u64) {
        let (page, word, bit) = self.place(number);
        let known = page.delivered[word] & bit != 0;
        page.delivered[word] |= bit;
        if known {
            self.duplicated += 1;
        } else if self
            .highest_delivered
            .is_some_and(|highest| number < highest)
        {
            self.out_of_order += 1;
        } else {
            self.highest_delivered = Some(number);
        }
    }

    fn balance(&self) -> Balance {
        let mut balance = Balance {
            duplicated: self.duplicated,
            out_of_order: self.out_of_order,
            ..Balance::default()
        };
        for page in self.pages.values() {
            for word in 0..WORDS {
                let [attempted, acknowledged, delivered] = page.words(word);
                let count = |bits: u64| u64::from(bits.count_ones());
                balance.attempted += count(attempted);
                balance.acknowledged += count(acknowledged);
                balance.delivered += count(delivered);
                balance.unexpected += count(delivered & !attempted);
                balance.lost += count(acknowledged & !delivered);
                balance.recovered += count(attempted & delivered & !acknowledged);
            }
        }
        balance
    }

    fn lost(&self, limit: usize) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.pages.keys().copied().collect();
        numbers.sort_unstable();
        let bits = numbers
            .iter()
            .flat_map(|page| (0..PAGE).map(move |bit| (*page, bit)));
        bits.filter(|(page, bit)| {
            let [_, acknowledged, delivered] = self.pages[page].words((bit / WORD) as usize);
            (acknowledged & !delivered) >> (bit % WORD) & 1 == 1
        })
        .map(|(page, bit)| page * PAGE + bit)
        .take(limit)
        .collect()
    }

    fn place(&mut self, number: u64) -> (&mut Page, usize, u64) {
        let page = self.pages.entry(number / PAGE).or_default();
        (page, (number % PAGE / WORD) as usize, 1 << (number % WORD))
    }
}

impl Page {
    /// Attempted, acknowledged, delivered.
    const fn words(&self, word: usize) -> [u64; 3] {
        [
            self.attempted[word],
            self.acknowledged[word],
            self.delivered[word],
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Attempt,
        Acknowledge,
        Deliver,
    }

    fn events() -> impl Strategy<Value = Vec<(Event, u32, u64)>> {
        let event = prop_oneof![
            Just(Event::Attempt),
            Just(Event::Acknowledge),
            Just(Event::Deliver)
        ];
        // Few numbers, so that they meet; on both sides of a page's and a word's end.
        let number = prop_oneof![0_u64..6, 62_u64..66, PAGE - 2..PAGE + 2, Just(u64::MAX)];
        prop::collection::vec((event, 0_u32..3, number), 0..80)
    }

    /// The definitions, word for word and as slow as they are.
    fn naive(events: &[(Event, u32, u64)]) -> Balance {
        let mut attempted = BTreeSet::new();
        let mut acknowledged = BTreeSet::new();
        let mut deliveries: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for &(event, lane, number) in events {
            match event {
                Event::Attempt => drop(attempted.insert((lane, number))),
                Event::Acknowledge => drop(acknowledged.insert((lane, number))),
                Event::Deliver => deliveries.entry(lane).or_default().push(number),
            }
        }
        let mut delivered = BTreeSet::new();
        let (mut duplicated, mut out_of_order) = (0, 0);
        for (lane, numbers) in &deliveries {
            for (at, number) in numbers.iter().enumerate() {
                let before = &numbers[..at];
                if !delivered.insert((*lane, *number)) {
                    duplicated += 1;
                } else if before.iter().any(|earlier| earlier > number) {
                    out_of_order += 1;
                }
            }
        }
        let recovered = delivered
            .intersection(&attempted)
            .filter(|job| !acknowledged.contains(job));
        Balance {
            attempted: attempted.len() as u64,
            acknowledged: acknowledged.len() as u64,
            delivered: delivered.len() as u64,
            unexpected: delivered.difference(&attempted).count() as u64,
            duplicated,
            lost: acknowledged.difference(&delivered).count() as u64,
            recovered: recovered.count() as u64,
            out_of_order,
        }
    }

    proptest! {
        #[test]
        fn the_books_count_as_the_definitions_do(events in events()) {
            let books = Books::new();
            for &(event, lane, number) in &events {
                // Lane 0 goes by a name: both kinds of lane keep the same books.
                let name = lane.to_string();
                let job = if lane == 0 { Entry::from((&name, number)) } else { (lane, number).into() };
                match event {
                    Event::Attempt => books.attempt(job),
                    Event::Acknowledge => books.acknowledge(job),
                    Event::Deliver => books.deliver(job),
                }
            }
            let balance = books.balance();
            prop_assert_eq!(balance, naive(&events));
            prop_assert_eq!(books.lost(usize::MAX).len() as u64, balance.lost);
            let mut sum = Balance::default();
            books.lanes().into_iter().for_each(|(_, lane)| sum += lane);
            prop_assert_eq!(sum, balance);
        }
    }

    #[test]
    fn many_threads_may_write_at_once() {
        let books = Books::new();
        std::thread::scope(|scope| {
            for lane in 0..4_u32 {
                let books = &books;
                scope.spawn(move || {
                    for number in 0..10_000 {
                        books.attempt((lane % 2, number));
                        books.acknowledge((lane % 2, number));
                    }
                });
            }
        });
        assert_eq!(books.balance().acknowledged, 20_000);
        assert_eq!(books.balance().lost, 20_000);
    }
}

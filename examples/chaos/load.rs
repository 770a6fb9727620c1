//! What a producer does all the time: numbered jobs into its queues, and some calls.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesOrdered};
use parking_lot::Mutex;
use prometheus::Registry;
use seawall::{Error, Job, RedisCall, Reply, Seawall, call::Repeat, spool::Receipt};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    journal::{Entry, Journal, now_us},
    lateness::Lag,
    produce::{Order, Setup, Word},
};

#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) setup: Setup,
    pub(crate) seawall: Seawall,
    pub(crate) journal: Arc<Journal>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) lag: Arc<Lag>,
}

struct Answer {
    number: u64,
    result: Result<Receipt, Error>,
    late: Option<Entry>,
}

impl Load {
    /// Hands in the jobs of one queue at a steady pace, without waiting for the receipts of those before,
    /// until it is told to finish and the last has its answer.
    pub(crate) async fn feed(
        self,
        queue: usize,
        mut next: u64,
        mut orders: watch::Receiver<Order>,
    ) -> io::Result<()> {
        let key: Arc<str> = self.setup.key(queue).into();
        let rate = self.setup.rate / self.setup.queues as f64;
        let mut outstanding = FuturesOrdered::new();
        let mut tick = steady(TICK);
        let (mut owed, mut last) = (0.0, Instant::now());
        loop {
            let order = *orders.borrow_and_update();
            if order.finish && outstanding.is_empty() {
                return Ok(());
            }
            tokio::select! {
                now = tick.tick(), if !order.finish => {
                    owed += rate * (now - last).as_secs_f64();
                    last = now;
                    if !order.jobs {
                        owed = 0.0;
                        continue;
                    }
                    let room = MOST_OUTSTANDING.saturating_sub(outstanding.len() as u64);
                    let count = (owed as u64).min(room);
                    // What there is no room for is left out, not made up for.
                    owed = (owed - count as f64).min(1.0);
                    let numbers = next..next + count;
                    next = numbers.end;
                    self.announce(queue, &numbers)?;
                    outstanding.extend(numbers.map(|number| self.enqueue(&key, number)));
                }
                Some(first) = outstanding.next(), if !outstanding.is_empty() => {
                    let mut answers = vec![first];
                    while let Some(Some(answer)) = outstanding.next().now_or_never() {
                        answers.push(answer);
                    }
                    self.write_down(queue, answers)?;
                }
                _ = orders.changed() => {}
            }
        }
    }

    /// Makes a call every few milliseconds, also while earlier ones wait: the first that succeeds after a
    /// failure shows how soon anybody could have.
    pub(crate) async fn call(self, mut orders: watch::Receiver<Order>) -> io::Result<()> {
        let mut tick = steady(CALL_EVERY);
        let mut calls = JoinSet::new();
        let mut count = 0;
        loop {
            let wanted = orders.wait_for(|order| order.calls).await.is_ok();
            if !wanted {
                return Ok(());
            }
            tokio::select! {
                _ = tick.tick(), if calls.len() < MOST_CALLS => {
                    count += 1;
                    calls.spawn(self.clone().call_once(count));
                }
                Some(done) = calls.join_next() => done.map_err(io::Error::other)??,
            }
        }
    }

    fn announce(&self, queue: usize, numbers: &std::ops::Range<u64>) -> io::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let numbers = numbers.clone();
        self.journal.write(&[Entry::Attempted { queue, numbers }])
    }

    fn enqueue(&self, key: &Arc<str>, number: u64) -> impl Future<Output = Answer> + use<> {
        let mut payload = number.to_string().into_bytes();
        payload.push(b' ');
        payload.resize(PAYLOAD, b'.');
        let since = Instant::now();
        let receipt = self.seawall.enqueue(Job::new(key.clone(), payload));
        let (lag, tally, bound) = (
            self.lag.clone(),
            self.tally.clone(),
            self.setup.level.bound(),
        );
        async move {
            let result = receipt.await;
            tally
                .slowest_enqueue_us
                .fetch_max(since.elapsed().as_micros() as u64, Relaxed);
            let late = late("enqueue", lag.over(since, bound));
            Answer {
                number,
                result,
                late,
            }
        }
    }

    /// Those with a receipt as ranges, in their order.
    fn write_down(&self, queue: usize, answers: Vec<Answer>) -> io::Result<()> {
        let mut entries = Vec::new();
        for Answer {
            number,
            result,
            late,
        } in answers
        {
            entries.extend(late);
            match (result, entries.last_mut()) {
                (Ok(_), Some(Entry::Acknowledged { numbers, .. })) if numbers.end == number => {
                    numbers.end += 1;
                }
                (Ok(_), _) => entries.push(Entry::Acknowledged {
                    queue,
                    numbers: number..number + 1,
                }),
                (Err(error), _) => entries.push(Entry::Failed {
                    queue,
                    number,
                    error: in_words(&error),
                }),
            }
        }
        self.journal.write(&entries)
    }

    async fn call_once(self, count: u64) -> io::Result<()> {
        let since = Instant::now();
        let key = format!("{}:calls:{}", self.setup.name, count % CALL_KEYS);
        let mut set = redis::cmd("SET");
        set.arg(key).arg(count);
        let call = if self.setup.is_cluster() {
            RedisCall::new("chaos_set", set)
        } else {
            let mut both = redis::pipe();
            both.add_command(set).ignore().cmd("CLIENT").arg("INFO");
            RedisCall::new("chaos_set", both)
        };
        let call = call
            .with_repeat(Repeat::Safe)
            .with_deadline(since + CALL_DEADLINE);
        let answer = self.seawall.call(call).await;
        let took = since.elapsed();
        self.tally
            .slowest_call_us
            .fetch_max(took.as_micros() as u64, Relaxed);
        let mut entries = Vec::from_iter(late("call", self.lag.over(since, CALL_DEADLINE)));
        entries.extend(self.tally.answered(answer));
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.write(&entries)
    }
}

const TICK: Duration = Duration::from_millis(10);
const CALL_EVERY: Duration = Duration::from_millis(10);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
const MOST_CALLS: usize = 128;
const CALL_KEYS: u64 = 16;
const MOST_OUTSTANDING: u64 = 2_048;
const PAYLOAD: usize = 64;

/// What is counted while the producer lives.
pub(crate) struct Tally {
    registry: Registry,
    slowest_enqueue_us: AtomicU64,
    slowest_call_us: AtomicU64,
    calls_ok: AtomicU64,
    calls_failed: AtomicU64,
    /// Which port answered the last call; `None` if it failed.
    served_by: Mutex<Option<u16>>,
}

impl Tally {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            slowest_enqueue_us: AtomicU64::default(),
            slowest_call_us: AtomicU64::default(),
            calls_ok: AtomicU64::default(),
            calls_failed: AtomicU64::default(),
            served_by: Mutex::new(None),
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::from([
            (
                "slowest_enqueue_us".to_owned(),
                self.slowest_enqueue_us.load(Relaxed),
            ),
            (
                "slowest_call_us".to_owned(),
                self.slowest_call_us.load(Relaxed),
            ),
            ("calls_ok".to_owned(), self.calls_ok.load(Relaxed)),
            ("calls_failed".to_owned(), self.calls_failed.load(Relaxed)),
        ]);
        for family in self.registry.gather() {
            let Some((_, name)) = METRICS.iter().find(|(metric, _)| *metric == family.name())
            else {
                continue;
            };
            let sum: f64 = family
                .get_metric()
                .iter()
                .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
                .sum();
            counts.insert((*name).to_owned(), sum as u64);
        }
        counts
    }

    fn answered(&self, answer: Result<Reply, Error>) -> Option<Entry> {
        let at_us = now_us();
        let port = answer.ok().map(server_port);
        let counter = if port.is_some() {
            &self.calls_ok
        } else {
            &self.calls_failed
        };
        counter.fetch_add(1, Relaxed);
        let before = std::mem::replace(&mut *self.served_by.lock(), port);
        let port = port.filter(|_| before != port)?;
        Word::ServedBy(port).say();
        Some(Entry::Success { at_us, port })
    }
}

/// What of seawall's own metrics is added up, and under which name it is reported.
const METRICS: [(&str, &str); 6] = [
    ("seawall_connection_generation", "generations"),
    ("seawall_tail_records", "tail"),
    ("seawall_repaired_total", "repaired"),
    ("seawall_lost_by_redis_total", "lost_by_redis"),
    (
        "seawall_duplicates_suppressed_total",
        "duplicates_suppressed",
    ),
    ("seawall_spool_replayed_total", "replayed"),
];

/// From the server's own word, which no proxy changes. 0 if it was not asked.
fn server_port(reply: Reply) -> u16 {
    let (info,): (String,) = reply.decode().unwrap_or_default();
    let words = info.split(' ');
    let own = words.filter_map(|word| word.strip_prefix("laddr=")).next();
    let port = own.and_then(|own| own.rsplit(':').next()?.parse().ok());
    port.unwrap_or_default()
}

fn late(what: &str, over: Option<Duration>) -> Option<Entry> {
    over.map(|over| Entry::Late {
        what: what.to_owned(),
        over_ms: over.as_millis() as u64,
    })
}

fn in_words(error: &Error) -> String {
    let may = if error.may_have_landed() {
        ", and may come all the same"
    } else {
        ""
    };
    let mut text = format!("{:?}{may}", error.kind());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn steady(every: Duration) -> tokio::time::Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tick
}

//! The application: eight tasks that enqueue numbered jobs at a steady pace.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use seawall::{Job, Seawall, chaos::Books, job::Destination};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

pub(crate) const TASKS: u64 = 8;

/// Where the jobs go: two lists and a stream, so that both of seawall's scripts have work.
pub(crate) const QUEUES: [Queue; 3] = [
    Queue {
        name: "emails",
        stream: false,
    },
    Queue {
        name: "invoices",
        stream: false,
    },
    Queue {
        name: "events",
        stream: true,
    },
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) name: &'static str,
    pub(crate) stream: bool,
}

/// Enqueues `jobs` jobs over `span`, or as fast as it goes if that is not fast enough.
pub(crate) async fn run(
    seawall: &Seawall,
    jobs: u64,
    span: Duration,
    books: &Arc<Books>,
    tally: &Arc<Tally>,
) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let producer = Producer {
            seawall: seawall.clone(),
            books: books.clone(),
            tally: tally.clone(),
            task,
            jobs: jobs / TASKS + u64::from(task < jobs % TASKS),
        };
        tasks.spawn(producer.run(span));
    }
    tasks.join_all().await;
}

struct Producer {
    seawall: Seawall,
    books: Arc<Books>,
    tally: Arc<Tally>,
    task: u64,
    jobs: u64,
}

impl Producer {
    async fn run(self, span: Duration) {
        let begun = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut next = 0;
        while next < self.jobs {
            tick.tick().await;
            let elapsed = begun.elapsed().as_secs_f64() / span.as_secs_f64();
            let due = ((self.jobs as f64 * elapsed) as u64).min(self.jobs);
            while next < due {
                let until = due.min(next + MOST_AT_ONCE);
                self.enqueue(next..until).await;
                next = until;
            }
        }
    }

    /// Hands in what is due, and waits for the receipts.
    async fn enqueue(&self, numbers: std::ops::Range<u64>) {
        let handed_in: Vec<_> = numbers
            .map(|number| {
                let place = Place::of(self.task, number);
                self.books.attempt((place.lane(), place.number));
                (place, Instant::now(), self.seawall.enqueue(place.job()))
            })
            .collect();
        for (place, since, receipt) in handed_in {
            // Nothing to do for a spooled job: it is safe, and on its way.
            match receipt.await {
                Ok(_delivered_or_spooled) => self.books.acknowledge((place.lane(), place.number)),
                Err(error) => self.tally.failed(&error),
            }
            self.tally.took(since.elapsed());
        }
    }
}

/// Often enough to look steady; the jobs that are due at one tick share their batches.
const TICK: Duration = Duration::from_millis(5);
const MOST_AT_ONCE: u64 = 512;

/// Which job of which task in which queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    queue: usize,
    task: u64,
    number: u64,
}

impl Place {
    /// A task's jobs go round the queues.
    fn of(task: u64, number: u64) -> Self {
        let queues = QUEUES.len() as u64;
        Self {
            queue: (number % queues) as usize,
            task,
            number: number / queues,
        }
    }

    /// One producer and one queue: the order to be kept.
    pub(crate) fn lane(self) -> u32 {
        (self.queue as u64 * TASKS + self.task) as u32
    }

    pub(crate) fn number(self) -> u64 {
        self.number
    }

    fn job(self) -> Job {
        let Queue { name, stream } = QUEUES[self.queue];
        let destination = if stream {
            Destination::stream(name)
        } else {
            Destination::list(name)
        };
        let mut payload = format!("{} {} ", self.task, self.number).into_bytes();
        payload.resize(PAYLOAD, b'.');
        Job::new(name, payload).with_destination(destination)
    }

    /// Which job of this queue a payload found in Redis is.
    pub(crate) fn read(queue: usize, payload: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(payload).ok()?.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (task, number) = (number()?, number()?);
        (payload.len() == PAYLOAD).then_some(Self {
            queue,
            task,
            number,
        })
    }
}

const PAYLOAD: usize = 256;

/// How the enqueues went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    slowest_us: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.load(Relaxed))
    }

    /// What went wrong, and how often.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    fn took(&self, time: Duration) {
        self.slowest_us.fetch_max(time.as_micros() as u64, Relaxed);
    }

    fn failed(&self, error: &seawall::Error) {
        let may = if error.may_have_landed() {
            ", and may come all the same"
        } else {
            ""
        };
        let what = format!("{:?}{may}", error.kind());
        *self.errors.lock().entry(what).or_default() += 1;
    }
}

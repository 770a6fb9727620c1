//! A producer process: one seawall on a spool of its own, some queues, and a journal.
//!
//! The first line on its standard input says who it is, each further one what to do. When its standard
//! input ends, so does it: nothing outlives the program that started it.

use std::{
    io::{self, BufRead},
    path::PathBuf,
    process::abort,
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use seawall::{
    Seawall,
    error::BoxError,
    spool::{Ack, SpoolOptions},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    journal::{Entry, Journal},
    lateness::Lag,
    load::{Load, Tally},
};

/// Who a producer is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Begins the names of its queues.
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) spool: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) level: Level,
    pub(crate) queues: usize,
    /// Jobs a second, over all queues.
    pub(crate) rate: f64,
    pub(crate) repair: bool,
}

/// When a job counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Level {
    Primary,
    Spooled,
    Replicated,
}

/// What a producer is to do, until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) jobs: bool,
    pub(crate) calls: bool,
    /// Wait until everything is delivered, and end.
    pub(crate) finish: bool,
}

impl Order {
    pub(crate) const IDLE: Self = Self {
        jobs: false,
        calls: false,
        finish: false,
    };
    pub(crate) const WORK: Self = Self {
        jobs: true,
        calls: true,
        finish: false,
    };
    pub(crate) const FINISH: Self = Self {
        jobs: false,
        calls: false,
        finish: true,
    };
}

impl Setup {
    /// The list that a queue's jobs are pushed to.
    pub(crate) fn key(&self, queue: usize) -> String {
        format!("{}:{queue}", self.name)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        (0..self.queues).map(|queue| self.key(queue)).collect()
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.url.contains("+cluster:")
    }
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Primary, Self::Spooled, Self::Replicated];
    /// Where there are no replicas.
    pub(crate) const ALONE: [Self; 2] = [Self::Primary, Self::Spooled];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Spooled => "spooled",
            Self::Replicated => "replicated",
        }
    }

    /// Whether what replicas lack may be in memory alone, although it is acknowledged.
    pub(crate) fn keeps_tail_in_memory(self) -> bool {
        match self {
            Self::Primary => true,
            Self::Spooled | Self::Replicated => false,
        }
    }

    fn ack(self) -> Ack {
        match self {
            Self::Primary => Ack::Primary,
            Self::Spooled => Ack::Spooled,
            Self::Replicated => Ack::Replicated {
                replicas: 1,
                timeout: REPLICATED_WITHIN,
            },
        }
    }

    /// How long an enqueue may take: as long as it waits for Redis, for replicas, and for the disk.
    pub(crate) fn bound(self) -> Duration {
        let replicas = match self {
            Self::Primary | Self::Spooled => Duration::ZERO,
            Self::Replicated => REPLICATED_WITHIN,
        };
        SPOOL_AFTER + replicas + DISK_TIMEOUT
    }
}

// The defaults, by name: they are what the enqueues are held to.
const SPOOL_AFTER: Duration = Duration::from_millis(250);
const REPLICATED_WITHIN: Duration = Duration::from_millis(200);
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a producer says on its standard output, a line of JSON each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    Nothing,
    /// Its spool is open.
    Open,
    /// Its calls are answered, after they were not or by another server.
    ServedBy(u16),
}

impl Word {
    #[allow(clippy::print_stdout, reason = "that is how it answers")]
    pub(crate) fn say(self) {
        if let Ok(line) = serde_json::to_string(&self) {
            println!("{line}");
        }
    }
}

pub(crate) async fn run() -> Result<(), BoxError> {
    let mut first = String::new();
    io::stdin().read_line(&mut first)?;
    let setup: Setup = serde_json::from_str(&first)?;
    let orders = listen();

    let (journal, past) = Journal::open(&setup.journal)?;
    let journal = Arc::new(journal);
    journal.write(&[Entry::Started])?;
    let registry = Registry::new();
    let seawall = Seawall::builder(&setup.url, &*setup.spool)?
        .spool(|spool| spool_options(spool, &setup))
        .metrics(&registry)
        .connect()
        .await?;
    Word::Open.say();

    let tally = Arc::new(Tally::new(registry));
    let load = Load {
        setup: setup.clone(),
        seawall: seawall.clone(),
        journal: journal.clone(),
        tally: tally.clone(),
        lag: Lag::watch(),
    };
    let mut feeding = JoinSet::new();
    for queue in 0..setup.queues {
        let next = next_number(&past, queue);
        feeding.spawn(load.clone().feed(queue, next, orders.clone()));
    }
    let mut beside = JoinSet::new();
    beside.spawn(load.clone().call(orders.clone()));
    beside.spawn(count(journal.clone(), tally.clone()));

    while let Some(fed) = feeding.join_next().await {
        fed??;
    }
    if timeout(DRAINS_WITHIN, seawall.flush()).await.is_ok() {
        journal.write(&[Entry::Drained])?;
    }
    beside.shutdown().await;
    let left = seawall.shutdown(ENDS_WITHIN).await?;
    journal.write(&[Entry::Counted(tally.counts()), Entry::Ended { left }])?;
    Ok(())
}

fn spool_options(options: SpoolOptions, setup: &Setup) -> SpoolOptions {
    let options = options
        .with_ack(setup.level.ack())
        .with_spool_after(SPOOL_AFTER)
        .with_disk_timeout(DISK_TIMEOUT);
    if setup.repair {
        options
    } else {
        options.with_tail(None)
    }
}

/// A thread, since tokio's standard input would keep the runtime from ending.
fn listen() -> watch::Receiver<Order> {
    let (sender, orders) = watch::channel(Order::IDLE);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(order) = line
                .map_err(BoxError::from)
                .and_then(|line| serde_json::from_str(&line).map_err(BoxError::from))
            else {
                break;
            };
            let _ = sender.send(order);
        }
        abort()
    });
    orders
}

/// Numbers go on where the last life has stopped: it may have handed in all that it announced.
fn next_number(past: &[Entry], queue: usize) -> u64 {
    let last = past.iter().rev().find_map(|entry| match entry {
        Entry::Attempted { queue: of, numbers } if *of == queue => Some(numbers.end),
        _ => None,
    });
    last.unwrap_or(1)
}

async fn count(journal: Arc<Journal>, tally: Arc<Tally>) -> io::Result<()> {
    let mut tick = interval(COUNT_EVERY);
    loop {
        tick.tick().await;
        journal.write(&[Entry::Counted(tally.counts())])?;
    }
}

const COUNT_EVERY: Duration = Duration::from_millis(500);
const DRAINS_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(10);

//! What callers and the reconnect loop share: the connection in use, or since when there is none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::Instant};

use super::{
    deployment::Deployment,
    dial::Dialer,
    generation::Generation,
    meters::Meters,
    options::ConnectOptions,
    replicas::Replicas,
    route::Route,
    status::{Status, Trouble},
};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    replicas::{self, Teller},
};

/// Written by the reconnect loop alone, read by every call without a lock.
pub(super) struct Shared {
    pub(super) options: ConnectOptions,
    pub(super) dialer: Arc<Dialer>,
    pub(super) route: Route,
    pub(super) replicas: Replicas,
    pub(super) meters: Meters,
    pub(super) teller: Teller,
    /// How often a server has answered again that had fallen silent, on one and the same connection.
    pub(super) awakenings: watch::Sender<u64>,
    /// The server has, or had, replicas.
    has_replicas: AtomicBool,
    way: ArcSwap<Way>,
    status: watch::Sender<Status>,
}

enum Way {
    Open(Arc<Generation>),
    Shut {
        trouble: Option<Trouble>,
        next_attempt: Instant,
    },
}

impl Shared {
    pub(super) fn new(
        options: ConnectOptions,
        dialer: Arc<Dialer>,
        route: Route,
        awakenings: watch::Sender<u64>,
    ) -> Self {
        let now = Instant::now();
        let meters = Meters::new(&options.metrics);
        meters.up.set(0);
        Self {
            options,
            dialer,
            route,
            replicas: Replicas::default(),
            meters,
            teller: replicas::channel().0,
            awakenings,
            has_replicas: AtomicBool::new(false),
            way: ArcSwap::from_pointee(Way::Shut {
                trouble: None,
                next_attempt: now,
            }),
            status: watch::Sender::new(Status::new(now)),
        }
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The connection in use.
    ///
    /// # Errors
    ///
    /// At once, if there is none, or if the one there is about to be replaced.
    pub(super) fn current(&self) -> Result<Arc<Generation>, Error> {
        match &**self.way.load() {
            Way::Open(generation) => match generation.trouble() {
                None => Ok(Arc::clone(generation)),
                trouble => Err(self.shut(trouble, Duration::ZERO)),
            },
            Way::Shut {
                trouble,
                next_attempt,
            } => {
                let wait = next_attempt.saturating_duration_since(Instant::now());
                Err(self.shut(*trouble, wait))
            }
        }
    }

    fn shut(&self, trouble: Option<Trouble>, wait: Duration) -> Error {
        let cause = trouble.map_or("the first connection is not made yet", Trouble::explain);
        Error::new(ErrorKind::Connect, Verdict::new(Class::Outage, Landed::No))
            .with_cause(cause)
            // An attempt under way needs some time, too.
            .with_retry_after(wait.max(self.options.reconnect_first))
    }

    /// The number of the connection to be made next.
    pub(super) fn next_number(&self) -> u64 {
        self.status.borrow().generation + 1
    }

    /// Replicas have been seen, and are missed from now on.
    pub(super) fn saw_replicas(&self) {
        self.has_replicas.store(true, Relaxed);
    }

    /// Whether what the server has acknowledged is expected to be on others.
    pub(super) fn expects_replicas(&self) -> bool {
        self.has_replicas.load(Relaxed)
            || !matches!(self.options.deployment, Deployment::Standalone(_))
    }

    /// Lets calls through.
    pub(super) fn publish(&self, generation: &Arc<Generation>) {
        self.way.store(Arc::new(Way::Open(Arc::clone(generation))));
        self.meters.up.set(1);
        self.meters.generation.inc();
        self.meters.master(Some(&generation.address));
        self.status.send_modify(|status| {
            status.up = true;
            status.generation = generation.number;
            status.since = generation.since;
        });
        tracing::info!(
            address = %generation.address,
            generation = generation.number,
            "connected to Redis"
        );
    }

    /// Stops letting calls through, and ends those that wait for an answer.
    pub(super) fn retire(&self, generation: &Generation, trouble: Trouble, delay: Duration) {
        self.close(trouble, delay);
        generation.cut().cancel();
        self.meters.up.set(0);
        self.meters.ended(trouble);
        self.status.send_modify(|status| {
            status.up = false;
            status.since = Instant::now();
            status.trouble = Some(trouble);
        });
        tracing::warn!(
            address = %generation.address,
            generation = generation.number,
            reason = trouble.as_str(),
            "gave up the connection to Redis: {trouble}"
        );
    }

    /// Takes note of an attempt that led to no connection.
    pub(super) fn fail(&self, trouble: Trouble, delay: Duration) {
        self.close(trouble, delay);
        self.meters.connects_failed.inc();
        let is_news = self.status.send_if_modified(|status| {
            let is_news = status.trouble != Some(trouble);
            status.trouble = Some(trouble);
            is_news
        });
        // Once for each change: the attempts go on for as long as the outage.
        if is_news {
            tracing::warn!(
                address = %self.options.deployment,
                reason = trouble.as_str(),
                "cannot connect to Redis: {trouble}"
            );
        }
    }

    fn close(&self, trouble: Trouble, delay: Duration) {
        self.way.store(Arc::new(Way::Shut {
            trouble: Some(trouble),
            next_attempt: Instant::now() + delay,
        }));
    }
}

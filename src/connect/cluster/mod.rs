//! A Redis Cluster: one connection to each primary, and who has which slot.
//!
//! Each primary is a server like any other, with its own reconnect loop, probe and suspicion, so that
//! one that is dead, frozen or slow holds up no call to another. One more task reads the map of the
//! slots: at the start, when a primary is lost, when a node redirects, and now and then.
//!
//! The redis crate has a cluster connection of its own. It is not used, for what it did when it was
//! tried against nodes that fail: `tests/cluster/peer.rs` shows it.

mod keeper;
mod layout;
mod map;
mod routing;
mod terms;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::routing::attempt;
use self::{
    layout::{Layout, Node},
    terms::Term,
};
use super::{
    ConnectError, ConnectOptions, Status,
    deployment::{Address, Deployment, Endpoint},
    dial::Dialer,
    meters::Meters,
    route::Route,
    service::Inner,
};
use crate::{
    call::slot::slot,
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    metrics::ConnectMetrics,
    replicas::{self, Replicas, Teller},
};

/// A connection to a whole cluster. The task that keeps its map ends with it.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    _keeper: DropGuard,
}

/// What callers and the keeper of the map share.
struct Shared {
    options: ConnectOptions,
    /// Those of one node: all but where it is.
    node_options: ConnectOptions,
    seeds: Vec<Endpoint>,
    tls: bool,
    dialer: Arc<Dialer>,
    meters: Meters,
    layout: ArcSwap<Layout<Arc<Inner>>>,
    /// Held while a new layout is made of the present one. Callers only read, without it.
    changing: Mutex<()>,
    /// The map is known to be wrong somewhere.
    is_wrong: Notify,
    term: ArcSwap<Term>,
    teller: Teller,
    /// All primaries have been seen with replicas: they are missed from then on.
    has_replicas: AtomicBool,
    status: watch::Sender<Status>,
    /// Of all nodes.
    awakenings: watch::Sender<u64>,
    is_whole: watch::Sender<bool>,
    turn: AtomicUsize,
}

impl Cluster {
    /// Starts to look for the cluster.
    pub(super) fn open(
        options: ConnectOptions,
        dialer: Arc<Dialer>,
    ) -> Result<Arc<Self>, ConnectError> {
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let shared = Arc::new(Shared::new(options, dialer));
        let stop = CancellationToken::new();
        let keeper = keeper::run(Arc::clone(&shared));
        runtime.spawn(stop.clone().run_until_cancelled_owned(keeper));
        Ok(Arc::new(Self {
            shared,
            _keeper: stop.drop_guard(),
        }))
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.shared.options
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    pub(super) fn awakenings(&self) -> watch::Receiver<u64> {
        self.shared.awakenings.subscribe()
    }

    /// Waits until each slot has a primary that is connected, for `limit` at most. Cancel safe.
    ///
    /// # Errors
    ///
    /// No primary is connected.
    pub(super) async fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let mut whole = self.shared.is_whole.subscribe();
        let _ = timeout(limit, whole.wait_for(|whole| *whole)).await;
        self.shared.anybody().map(drop)
    }

    /// The primary that has `key`.
    ///
    /// # Errors
    ///
    /// Its slot has none that is known.
    pub(super) fn owner(&self, key: &[u8]) -> Result<Arc<Inner>, Error> {
        let node = self.shared.owner(Some(slot(key)))?;
        Ok(node.server)
    }

    /// What is known of the replicas of all primaries.
    pub(super) fn replicas(&self) -> Replicas {
        self.shared.teller.replicas()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.meters.up.set(0);
    }
}

impl Shared {
    fn new(options: ConnectOptions, dialer: Arc<Dialer>) -> Self {
        let addresses = match &options.deployment {
            Deployment::Cluster(seeds) => seeds.as_slice(),
            _ => &[],
        };
        let tls = addresses.iter().any(|seed| matches!(seed, Address::Tls(_)));
        let seeds = addresses.iter().filter_map(|seed| match seed {
            Address::Tcp(endpoint) | Address::Tls(endpoint) => Some(endpoint.clone()),
            Address::Unix { .. } => None,
        });
        let mut node_options = options.clone();
        node_options.metrics = of_a_node(&options.metrics);
        let meters = Meters::new(&options.metrics);
        meters.up.set(0);
        Self {
            node_options,
            seeds: seeds.collect(),
            tls,
            dialer,
            meters,
            layout: ArcSwap::from_pointee(Layout::empty()),
            changing: Mutex::new(()),
            is_wrong: Notify::new(),
            term: ArcSwap::from_pointee(Term::none()),
            teller: replicas::channel().0,
            has_replicas: AtomicBool::new(false),
            status: watch::Sender::new(Status::new(Instant::now())),
            awakenings: watch::Sender::default(),
            is_whole: watch::Sender::new(false),
            turn: AtomicUsize::new(0),
            options,
        }
    }

    /// The node to send a request to: the primary of its slot, or any primary in turn.
    ///
    /// # Errors
    ///
    /// There is none that is known.
    fn owner(&self, slot: Option<u16>) -> Result<Node<Arc<Inner>>, Error> {
        let Some(slot) = slot else {
            return self.anybody();
        };
        let owner = self.layout.load().owner(slot).cloned();
        owner.ok_or_else(|| {
            self.is_wrong.notify_one();
            self.away(None)
        })
    }

    /// A primary that is connected.
    fn anybody(&self) -> Result<Node<Arc<Inner>>, Error> {
        let layout = self.layout.load();
        let primaries = layout.primaries();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % primaries.len().max(1);
        let in_turn = primaries.iter().cycle().skip(first).take(primaries.len());
        let up = in_turn.copied().find(|node| is_up(&node.server));
        up.cloned().ok_or_else(|| self.away(None))
    }

    /// Whether the cluster serves, and has another node than this one to do it.
    ///
    /// As long as it does, what befalls one node's calls is no outage: the breaker is one for the whole
    /// cluster, and must not shut the way to the others.
    fn serves_without(&self, node: Option<&Endpoint>) -> bool {
        let others =
            |other: &&Node<Arc<Inner>>| Some(&other.endpoint) != node && is_up(&other.server);
        self.status.borrow().up && self.layout.load().primaries().iter().any(others)
    }

    /// The error of a call whose node is away; `node` is none if nobody knows one.
    fn away(&self, node: Option<(&Endpoint, &Error)>) -> Error {
        let trouble = self.status.borrow().trouble;
        let (class, cause) = match trouble {
            _ if self.serves_without(node.map(|(endpoint, _)| endpoint)) => {
                (Class::Transient, "the primary of the call's slot is away")
            }
            Some(trouble) => (Class::Outage, trouble.explain()),
            None => (Class::Outage, "no node that could serve it has been found"),
        };
        let after = node.and_then(|(_, error)| error.retry_after());
        Error::new(ErrorKind::Connect, Verdict::new(class, Landed::No))
            .with_cause(cause)
            .with_retry_after(after.unwrap_or(self.options.reconnect_first))
    }

    /// Takes note of what a redirection said, and returns the node that it names.
    fn redirected(&self, endpoint: &Endpoint, slot: Option<u16>) -> Option<Node<Arc<Inner>>> {
        let layout = self.layout.load_full();
        let node = layout.at(endpoint).cloned();
        let is_owner = |slot| {
            let owner = layout.owner(slot);
            owner.is_some_and(|owner| owner.endpoint == *endpoint)
        };
        if node.is_some() && slot.is_none_or(is_owner) {
            return node;
        }
        self.change(|layout| layout.with(endpoint, slot, Instant::now(), |at| self.connect(at)));
        // What is connected has to be told of.
        self.is_wrong.notify_one();
        self.layout.load().at(endpoint).cloned()
    }

    fn change(&self, next: impl FnOnce(&Layout<Arc<Inner>>) -> Layout<Arc<Inner>>) {
        let _changing = self.changing.lock();
        let next = next(&self.layout.load_full());
        self.layout.store(Arc::new(next));
    }

    /// Starts connecting to one node.
    fn connect(&self, endpoint: &Endpoint) -> Option<Arc<Inner>> {
        let address = endpoint.clone().address(self.tls);
        let mut options = self.node_options.clone();
        options.deployment = Deployment::Standalone(address.clone());
        let awakenings = self.awakenings.clone();
        Inner::open(
            options,
            Arc::clone(&self.dialer),
            Route::Fixed(address),
            awakenings,
        )
        .ok()
    }
}

fn is_up(server: &Arc<Inner>) -> bool {
    server.shared.current().is_ok()
}

/// Whether *it* is up says nothing of the cluster; all else is counted with the others'.
fn of_a_node(metrics: &ConnectMetrics) -> ConnectMetrics {
    let apart = ConnectMetrics::default();
    ConnectMetrics {
        up: apart.up,
        generation: apart.generation,
        ..metrics.clone()
    }
}

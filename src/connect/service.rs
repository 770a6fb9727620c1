//! The service: [`Connection`].

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Service;

use super::{
    ConnectError, ConnectOptions, Exclusive, Status,
    cluster::{self, Cluster},
    dial::Dialer,
    exchange::{Limit, Manner, exchange, replaced},
    exclusive::Pool,
    route::Route,
    shared::Shared,
    supervisor,
};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::{RedisCall, Reply, error::Error, replicas::Replicas};

/// A connection to Redis that replaces itself.
///
/// A clone shares everything; the task that keeps the connection ends with the last clone and the
/// last pending call. See the [module docs](super) for examples.
///
/// As a [`Service`] it is always ready. A call is sent over a connection that other calls share, so
/// it must not change that connection or hold it up: no SUBSCRIBE, MONITOR, SELECT, WATCH or MULTI
/// (an atomic [`redis::Pipeline`] is fine), no blocking read, no WAIT. Those go over an
/// [`exclusive`](Self::exclusive) one.
///
/// # Errors
///
/// - [`ErrorKind::Connect`], an outage and not sent, at once, when there is no connection; with the
///   time until the next attempt to make one.
/// - [`ErrorKind::Timeout`] when the answer took longer than the response timeout or the call's
///   deadline. It may have landed, unless the deadline had passed before.
/// - [`ErrorKind::Redis`] when Redis refused the call, or the connection broke.
///
/// # Cancel safety
///
/// Dropping the future of a call harms no other call. The call may land all the same.
#[derive(Clone)]
pub struct Connection {
    way: Way,
}

#[derive(Clone)]
enum Way {
    /// To one server at a time.
    Server(Arc<Inner>),
    Cluster(Arc<Cluster>),
}

/// A connection to one server: the only one there is, or one node of a cluster.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pool: Pool,
    _loop: DropGuard,
}

impl Inner {
    /// Starts connecting. `awakenings` counts how often the server answers again that had fallen silent.
    pub(super) fn open(
        options: ConnectOptions,
        dialer: Arc<Dialer>,
        route: Route,
        awakenings: watch::Sender<u64>,
    ) -> Result<Arc<Self>, ConnectError> {
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let shared = Arc::new(Shared::new(options, dialer, route, awakenings));
        let stop = CancellationToken::new();
        let supervisor = supervisor::run(Arc::clone(&shared));
        runtime.spawn(stop.clone().run_until_cancelled_owned(supervisor));
        Ok(Arc::new(Self {
            pool: Pool::new(&shared)?,
            shared,
            _loop: stop.drop_guard(),
        }))
    }

    pub(super) async fn exclusive(self: &Arc<Self>) -> Result<Exclusive, Error> {
        self.pool.take(self).await
    }
}

impl Connection {
    /// Starts connecting, and returns at once, whether Redis is up or not.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a setting makes no sense, or outside a tokio runtime. A Redis that is away
    /// is no error here.
    pub fn open(options: ConnectOptions) -> Result<Self, ConnectError> {
        options.check()?;
        let dialer = Arc::new(Dialer::new(&options)?);
        let way = match Route::of(&options) {
            Some(route) => Way::Server(Inner::open(
                options,
                dialer,
                route,
                watch::Sender::default(),
            )?),
            None => Way::Cluster(Cluster::open(options, dialer)?),
        };
        Ok(Self { way })
    }

    /// Finds out whether the URL names a master that is there to be found, for `limit` at most.
    ///
    /// With Sentinel: whether any sentinel knows the master's name. It waits for the first that does,
    /// or until all have answered or failed to; for one that does not answer no longer than `limit`.
    /// Without, there is nothing to ask, and it returns at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ConnectError::UnknownMaster`] if sentinels answer, and none knows the name. That none
    /// answers is no error: they may be back before they are needed.
    pub async fn check(&self, limit: Duration) -> Result<(), ConnectError> {
        let Way::Server(server) = &self.way else {
            return Ok(());
        };
        let Route::Sentinel(sentinels) = &server.shared.route else {
            return Ok(());
        };
        let names = match timeout(limit, sentinels.other_names()).await {
            Ok(names) => names,
            Err(_) => sentinels.unknown_master(),
        };
        match names {
            None => Ok(()),
            Some(known) => Err(ConnectError::UnknownMaster {
                name: sentinels.master().to_string(),
                known: known.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// Waits until there is a connection, for `limit` at most; to a cluster, until there is one to the
    /// primary of each slot.
    ///
    /// Nobody has to: calls made without one fail at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// What a call would fail with, if there is still none. A cluster of which some primaries are away
    /// when time is up is no error.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let server = match &self.way {
            Way::Server(server) => server,
            Way::Cluster(cluster) => return cluster.wait_ready(limit).await,
        };
        let mut status = self.status();
        // Not only until the status says so: one that is about to be replaced is up, and of no use.
        let ready =
            async { while server.shared.current().is_err() && status.changed().await.is_ok() {} };
        // If time is up, the error below says so.
        let _ = timeout(limit, ready).await;
        server.shared.current().map(drop)
    }

    /// Whether there is a connection, since when, and what was wrong last; for watching.
    ///
    /// With a cluster: whether some primary is connected and the cluster says that it serves. Each
    /// connection made to a primary, a new one after a failover say, is one more generation.
    pub fn status(&self) -> watch::Receiver<Status> {
        match &self.way {
            Way::Server(server) => server.shared.status(),
            Way::Cluster(cluster) => cluster.status(),
        }
    }

    /// How often a server has answered again, on one and the same connection, that had left calls without an
    /// answer: what [`status`](Self::status) does not show.
    pub(crate) fn awakenings(&self) -> watch::Receiver<u64> {
        match &self.way {
            Way::Server(server) => server.shared.awakenings.subscribe(),
            Way::Cluster(cluster) => cluster.awakenings(),
        }
    }

    /// What is known of the replicas of the server, or of all primaries of a cluster, for
    /// [`SpoolOptions::with_replicas`](crate::spool::SpoolOptions::with_replicas).
    pub fn replicas(&self) -> Replicas {
        match &self.way {
            Way::Server(server) => server.shared.teller.replicas(),
            Way::Cluster(cluster) => cluster.replicas(),
        }
    }

    /// Whether there is a working connection now.
    pub fn is_up(&self) -> bool {
        match &self.way {
            Way::Server(server) => server.shared.current().is_ok(),
            Way::Cluster(cluster) => cluster.status().borrow().up,
        }
    }

    /// Takes a connection that no other call uses: for blocking reads, transactions with WATCH, and
    /// WAIT.
    ///
    /// It is checked when it is taken, and goes back when it is dropped. Cancel safe.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::PoolBusy`], transient and not sent, if all were in use for as long as
    ///   [`with_exclusive`](ConnectOptions::with_exclusive) allows.
    /// - [`ErrorKind::Connect`], an outage and not sent, if there is no connection to Redis.
    /// - [`ErrorKind::Invalid`] with a cluster, whose nodes each have their keys: see
    ///   [`exclusive_for`](Self::exclusive_for).
    pub async fn exclusive(&self) -> Result<Exclusive, Error> {
        match &self.way {
            Way::Server(server) => server.exclusive().await,
            Way::Cluster(_) => Err(Error::invalid(
                "an exclusive connection to a cluster leads to one node: name a key with \
                 exclusive_for",
            )),
        }
    }

    /// As [`exclusive`](Self::exclusive), to the server that has this key: with a cluster, the primary
    /// of its slot at this moment.
    ///
    /// It follows no redirection: when the slot moves away, calls on it fail with MOVED. Each node has
    /// its own [`with_exclusive`](ConnectOptions::with_exclusive) of them. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`exclusive`](Self::exclusive), without the last.
    pub async fn exclusive_for(&self, key: impl AsRef<[u8]>) -> Result<Exclusive, Error> {
        match &self.way {
            Way::Server(server) => server.exclusive().await,
            Way::Cluster(cluster) => cluster.owner(key.as_ref())?.exclusive().await,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = match &self.way {
            Way::Server(server) => &server.shared.options,
            Way::Cluster(cluster) => cluster.options(),
        };
        f.debug_struct("Connection")
            .field("address", &format_args!("{}", options.deployment))
            .field("status", &*self.status().borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.meters.up.set(0);
        self.shared.meters.master(None);
    }
}

/// The answer to come.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

impl Service<RedisCall> for Connection {
    type Response = Reply;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: RedisCall) -> ResponseFuture {
        match &self.way {
            Way::Server(server) => Box::pin(attempt(Arc::clone(server), call)),
            Way::Cluster(cluster) => Box::pin(cluster::attempt(Arc::clone(cluster), call)),
        }
    }
}

async fn attempt(inner: Arc<Inner>, call: RedisCall) -> Result<Reply, Error> {
    let shared = &*inner.shared;
    let limit = Limit::of(&call, shared.options.response_timeout)?;
    let generation = shared
        .current()
        .map_err(|error| error.with_call(call.name()))?;
    if call
        .generation()
        .is_some_and(|only| only != generation.number)
    {
        return Err(replaced(&call));
    }
    if call.is_exclusive() {
        return inner.exclusive().await?.call(&call).await;
    }
    if call.is_for_replicas() && shared.options.replica_reads {
        let read = shared
            .replicas
            .read(&call, limit.started, limit.until)
            .await;
        shared.meters.read_from(read.is_some());
        match read {
            Some(Ok(value)) => return Ok(Reply::new(value)),
            Some(Err(refusal)) => return Err(refusal.into_error(&call)),
            None => {}
        }
    }
    exchange(&generation, call.body(), Manner::Plain, limit)
        .await
        .conclude(&call, limit, &shared.meters)
}

//! A primary, its replicas and their sentinels, to fail over in every way there is.

mod asking;
mod builder;
mod partition;

pub use builder::SentinelSetBuilder;
pub(super) use partition::CLIENTS;

use std::{io, net::SocketAddr};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{FaultProxy, RedisServer, StartError};

/// Real `redis-server` processes under real sentinels, all of them our own, on free ports.
///
/// Nodes and sentinels are numbered from 0. Node 0 is the primary at the start; after a failover
/// [`primary`](Self::primary) says which one is.
///
/// Its sentinels are quick, so that a failover takes two to three seconds where it would take half
/// a minute: they ask for news many times a second, and one that stood still works on a second
/// later. On a machine that is very busy, a primary may seem down that is only slow: see
/// [`down_after`](SentinelSetBuilder::down_after).
///
/// Dropping it kills all of it, as for [`RedisServer`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use seawall::chaos::SentinelSet;
///
/// let mut set = SentinelSet::builder().replicas(1).durable().start().await?;
/// // ... a client of set.url() ...
/// let old = set.kill_primary().await?;
/// let new = set.wait_for_primary_other_than(old).await?;
/// assert_ne!(new, old);
///
/// // It comes back as it went, and is made a replica.
/// set.node_mut(old).restart().await?;
/// set.wait_until_healthy().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SentinelSet {
    name: String,
    credentials: Credentials,
    nodes: Vec<Member>,
    sentinels: Vec<Member>,
}

impl SentinelSet {
    /// One primary, two replicas and three sentinels, which know each other.
    ///
    /// # Errors
    ///
    /// As [`SentinelSetBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// A set of other sizes or settings; [`SentinelSetBuilder::start`] starts it.
    pub fn builder() -> SentinelSetBuilder {
        SentinelSetBuilder::new()
    }

    /// `redis+sentinel://127.0.0.1:<port>,.../<master name>/0` with all sentinels, and with the
    /// passwords if there are any. It outlives every failover.
    #[must_use]
    pub fn url(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = self.credentials.password.as_deref();
        let user = user.map_or_else(String::new, |password| format!(":{}@", encoded(password)));
        let addrs: Vec<_> = self
            .sentinel_addrs()
            .iter()
            .map(ToString::to_string)
            .collect();
        let mut url = format!(
            "redis+sentinel://{user}{}/{}/0",
            addrs.join(","),
            encoded(&self.name),
        );
        if let Some(password) = &self.credentials.sentinel_password {
            url += &format!("?sentinel_pass={}", encoded(password));
        }
        url
    }

    /// The name under which the sentinels know the primary.
    #[must_use]
    pub fn master_name(&self) -> &str {
        &self.name
    }

    /// Where clients find the sentinels.
    #[must_use]
    pub fn sentinel_addrs(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(Member::addr).collect()
    }

    /// Where clients and sentinels find the nodes: their proxies, if they have any.
    #[must_use]
    pub fn node_addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Member::addr).collect()
    }

    /// The data nodes, by their numbers.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &RedisServer> {
        self.nodes.iter().map(|node| &node.server)
    }

    /// The sentinels, by their numbers.
    pub fn sentinels(&self) -> impl ExactSizeIterator<Item = &RedisServer> {
        self.sentinels.iter().map(|sentinel| &sentinel.server)
    }

    /// A data node itself, not its proxy: what is asked there passes all faults by.
    ///
    /// # Panics
    ///
    /// There are fewer nodes.
    #[must_use]
    pub fn node(&self, node: usize) -> &RedisServer {
        &self.nodes[node].server
    }

    /// A data node to kill or to start again.
    ///
    /// # Panics
    ///
    /// There are fewer nodes.
    #[must_use]
    pub fn node_mut(&mut self, node: usize) -> &mut RedisServer {
        &mut self.nodes[node].server
    }

    /// A sentinel itself, not its proxy.
    ///
    /// # Panics
    ///
    /// There are fewer sentinels.
    #[must_use]
    pub fn sentinel(&self, sentinel: usize) -> &RedisServer {
        &self.sentinels[sentinel].server
    }

    /// A sentinel to kill or to start again: it keeps what it knows.
    ///
    /// # Panics
    ///
    /// There are fewer sentinels.
    #[must_use]
    pub fn sentinel_mut(&mut self, sentinel: usize) -> &mut RedisServer {
        &mut self.sentinels[sentinel].server
    }

    /// Kills the primary with SIGKILL, and says which node it was.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if no majority of the sentinels names one.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it may be killed or not.
    pub async fn kill_primary(&mut self) -> io::Result<usize> {
        let primary = self.primary_or_error().await?;
        self.node_mut(primary).kill().await?;
        Ok(primary)
    }

    /// Stops the primary with SIGSTOP, and says which node it was: [`thaw`](RedisServer::thaw) it
    /// later, and it still takes itself for the primary until a sentinel tells it otherwise.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if no majority of the sentinels names one, or if it is down.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it may be frozen or not.
    pub async fn freeze_primary(&self) -> io::Result<usize> {
        let primary = self.primary_or_error().await?;
        self.node(primary).freeze().await?;
        Ok(primary)
    }

    /// Makes every process run: starts those that were killed, thaws those that were frozen.
    ///
    /// # Errors
    ///
    /// As [`RedisServer::restart`].
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, some may be down or frozen still.
    pub async fn revive(&mut self) -> Result<(), StartError> {
        for member in self.nodes.iter_mut().chain(&mut self.sentinels) {
            if member.server.is_running() {
                member.server.thaw()?;
            } else {
                member.server.restart().await?;
            }
        }
        Ok(())
    }

    async fn primary_or_error(&self) -> io::Result<usize> {
        let unknown = || {
            let text = "no majority of the sentinels names a primary";
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        self.primary().await.ok_or_else(unknown)
    }
}

/// A server, and what stands in front of it.
#[derive(Debug)]
struct Member {
    server: RedisServer,
    proxy: Option<FaultProxy>,
}

impl Member {
    /// Where others find it.
    fn addr(&self) -> SocketAddr {
        let proxy = self.proxy.as_ref();
        proxy.map_or_else(|| self.server.addr(), FaultProxy::addr)
    }
}

/// Not for `Debug`: see [`SentinelSetBuilder`].
#[derive(Clone, Default)]
struct Credentials {
    password: Option<String>,
    sentinel_password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

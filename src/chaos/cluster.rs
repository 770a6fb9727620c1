//! A Redis Cluster of real processes: to kill, to freeze, to fail over and to move slots about in.

use std::{fmt::Write as _, io, time::Duration};

use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, FromRedisValue, RedisResult};

use super::{
    NotMet, RedisServer, RedisServerBuilder, StartError,
    nodes::{Node, parse},
    port::Port,
    wait_until,
};

/// Primaries and replicas, each a [`RedisServer`] of its own, that form one Redis Cluster.
///
/// Nodes have numbers: the first are the primaries it was started with, the others their replicas, in
/// turn. A failover changes the roles, not the numbers; [`owner_of`](Self::owner_of) says who serves a
/// key now.
///
/// The nodes notice a dead one after [`node_timeout`](RedisClusterBuilder::node_timeout), 1 s, and
/// promote its replica some 0.5 to 1 s later. As everywhere in this module nothing outlives the test.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    frozen: Vec<bool>,
    password: Option<String>,
    // The bus ports, which no other test may draw while a node is down.
    _buses: Vec<Port>,
}

impl RedisCluster {
    /// Starts three primaries with one replica each.
    ///
    /// # Errors
    ///
    /// As [`RedisClusterBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// A cluster with other settings; [`RedisClusterBuilder::start`] starts it.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder {
            primaries: 3,
            replicas: 1,
            node_timeout: Duration::from_secs(1),
            password: None,
            server: RedisServer::builder(),
        }
    }

    /// `redis+cluster://` with the addresses of all nodes, and the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.url_of(&all)
    }

    /// As [`url`](Self::url), with these nodes only: the client has to learn the others.
    #[must_use]
    pub fn url_of(&self, nodes: &[usize]) -> String {
        let mut url = "redis+cluster://".to_owned();
        if let Some(password) = &self.password {
            let encoded =
                percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
            let _ = write!(url, ":{encoded}@");
        }
        let addresses: Vec<_> = nodes
            .iter()
            .map(|node| self.nodes[*node].addr().to_string())
            .collect();
        url + &addresses.join(",")
    }

    /// The nodes, by their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// One node.
    ///
    /// # Panics
    ///
    /// If there is no node of that number, as all methods that take one.
    #[must_use]
    pub fn node(&self, node: usize) -> &RedisServer {
        &self.nodes[node]
    }

    /// The hash slot of `key`.
    ///
    /// # Errors
    ///
    /// What the redis crate says, if no node answers.
    pub async fn slot_of(&self, key: &str) -> RedisResult<u16> {
        let mut answer = Err(down());
        for node in self.awake() {
            let mut ask = redis::cmd("CLUSTER");
            answer = self.nodes[node].command(ask.arg("KEYSLOT").arg(key)).await;
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    /// The node that serves `key` now: of those that say so of themselves, the one with the highest
    /// epoch.
    ///
    /// # Errors
    ///
    /// What the redis crate says, if nobody does.
    pub async fn owner_of(&self, key: &str) -> RedisResult<usize> {
        let slot = self.slot_of(key).await?;
        self.owner_of_slot(slot).await
    }

    /// As [`owner_of`](Self::owner_of), for a slot.
    ///
    /// # Errors
    ///
    /// As [`owner_of`](Self::owner_of).
    pub async fn owner_of_slot(&self, slot: u16) -> RedisResult<usize> {
        let views = join_all(self.awake().map(|node| async move {
            let view = self.view(node).await.ok()?;
            let own = view.into_iter().find(|line| line.is_self)?;
            (own.is_master && own.has(slot)).then_some((own.epoch, node))
        }));
        let owner = views.await.into_iter().flatten().max();
        owner.map(|(_, node)| node).ok_or_else(down)
    }

    /// A replica of `primary` that is awake.
    ///
    /// # Errors
    ///
    /// What the redis crate says, if there is none.
    pub async fn replica_of(&self, primary: usize) -> RedisResult<usize> {
        let port = self.nodes[primary].port();
        for node in self.awake() {
            let view = self.view(node).await?;
            let id = view.iter().find(|line| line.port == port);
            let own = view.iter().find(|line| line.is_self);
            if let (Some(primary), Some(own)) = (id, own)
                && own.primary.as_deref() == Some(&primary.id)
            {
                return Ok(node);
            }
        }
        Err(down())
    }

    /// Runs a command on the node that serves `key`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use seawall::chaos::RedisCluster;
    ///
    /// let cluster = RedisCluster::start().await?;
    /// let jobs: Vec<u64> = cluster
    ///     .command("emails", redis::cmd("LRANGE").arg("emails").arg(0).arg(-1))
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the redis crate says; a redirection is an error, so
    /// [`wait_until_ok`](Self::wait_until_ok) first.
    pub async fn command<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> RedisResult<T> {
        self.nodes[self.owner_of(key).await?].command(command).await
    }

    /// Kills a node with SIGKILL: [`RedisServer::kill`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn kill(&mut self, node: usize) -> io::Result<()> {
        self.frozen[node] = false;
        self.nodes[node].kill().await
    }

    /// Stops a node with SIGSTOP: [`RedisServer::freeze`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn freeze(&mut self, node: usize) -> io::Result<()> {
        self.frozen[node] = true;
        self.nodes[node].freeze().await
    }

    /// Lets a frozen node go on: [`RedisServer::thaw`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn thaw(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].thaw()?;
        self.frozen[node] = false;
        Ok(())
    }

    /// Starts a node again, with what it has on disk: its place in the cluster at least, and its data
    /// if the cluster is [`durable`](RedisClusterBuilder::durable).
    ///
    /// # Errors
    ///
    /// As [`RedisServer::restart`].
    pub async fn restart(&mut self, node: usize) -> Result<(), StartError> {
        self.frozen[node] = false;
        self.nodes[node].restart().await
    }

    /// Makes a replica the primary, and waits until it says that it is.
    ///
    /// In agreement with its primary, so that nothing is lost; by force if that one is not awake.
    ///
    /// # Errors
    ///
    /// [`NotMet`] if it is none within 30 s.
    pub async fn failover(&self, replica: usize) -> Result<(), NotMet> {
        wait_until("a replica that was promoted", PATIENCE, || async {
            let Ok(view) = self.view(replica).await else {
                return false;
            };
            let Some(own) = view.iter().find(|line| line.is_self) else {
                return false;
            };
            if own.is_master {
                return true;
            }
            let primary = view
                .iter()
                .find(|line| own.primary.as_deref() == Some(&line.id));
            let agrees = primary.is_some_and(|primary| {
                self.awake()
                    .any(|node| self.nodes[node].port() == primary.port)
            });
            let mut order = redis::cmd("CLUSTER");
            order.arg("FAILOVER");
            if !agrees {
                order.arg("TAKEOVER");
            }
            // An order while another is under way is refused, and asked for again.
            let _ = self.nodes[replica].command::<()>(&order).await;
            false
        })
        .await
    }

    /// Waits until all nodes that are awake agree that the cluster is well: each slot has its primary,
    /// each replica its data, and nobody is missed.
    ///
    /// # Errors
    ///
    /// [`NotMet`] after 30 s.
    pub async fn wait_until_ok(&self) -> Result<(), NotMet> {
        wait_until("a cluster that is well", PATIENCE, || async {
            let opinions = join_all(self.awake().map(|node| self.opinion(node))).await;
            let first = opinions.first().cloned().flatten();
            first.is_some() && opinions.iter().all(|opinion| *opinion == first)
        })
        .await
    }

    /// What a node holds of the slots, if it thinks that all is well.
    async fn opinion(&self, node: usize) -> Option<Vec<(String, String)>> {
        let server = &self.nodes[node];
        let mut ask = redis::cmd("CLUSTER");
        let info: String = server.command(ask.arg("INFO")).await.ok()?;
        if !info.contains("cluster_state:ok") {
            return None;
        }
        let mut ask = redis::cmd("INFO");
        let info: String = server.command(ask.arg("replication")).await.ok()?;
        if info.contains("master_link_status:down") {
            return None;
        }
        let view = self.view(node).await.ok()?;
        let awake = |line: &Node| {
            self.awake()
                .any(|node| self.nodes[node].port() == line.port)
        };
        if view.len() != self.nodes.len()
            || view.iter().any(|line| awake(line) != line.is_well)
            || view.iter().map(Node::slots).sum::<u32>() != 16_384
        {
            return None;
        }
        let mut owners: Vec<_> = view
            .into_iter()
            .map(|line| (line.id, format!("{:?} {:?}", line.primary, line.ranges)))
            .collect();
        owners.sort();
        Some(owners)
    }

    /// What a node knows of itself and the others.
    async fn view(&self, node: usize) -> RedisResult<Vec<Node>> {
        let mut ask = redis::cmd("CLUSTER");
        let text: String = self.nodes[node].command(ask.arg("NODES")).await?;
        Ok(parse(&text))
    }

    pub(super) async fn id(&self, node: usize) -> RedisResult<String> {
        let mut ask = redis::cmd("CLUSTER");
        self.nodes[node].command(ask.arg("MYID")).await
    }

    pub(super) fn awake(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_running() && !self.frozen[*node])
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Introduces the nodes to each other, shares out the slots, and gives the replicas their places.
    async fn form(&self, primaries: usize) -> Result<(), StartError> {
        for (node, bus) in self.nodes.iter().zip(&self._buses).skip(1) {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port());
            meet.arg(bus.number());
            self.nodes[0].command::<()>(&meet).await.map_err(setup)?;
        }
        for node in 0..primaries {
            let first = node * 16_384 / primaries;
            let last = (node + 1) * 16_384 / primaries - 1;
            let mut give = redis::cmd("CLUSTER");
            give.arg("ADDSLOTSRANGE").arg(first).arg(last);
            self.nodes[node].command::<()>(&give).await.map_err(setup)?;
        }
        for replica in primaries..self.nodes.len() {
            let primary = self.id(replica % primaries).await.map_err(setup)?;
            let mut follow = redis::cmd("CLUSTER");
            follow.arg("REPLICATE").arg(primary);
            // It has to hear of its primary first.
            wait_until("a replica in its place", PATIENCE, || async {
                self.nodes[replica].command::<()>(&follow).await.is_ok()
            })
            .await
            .map_err(setup)?;
        }
        self.wait_until_ok().await.map_err(setup)
    }
}

/// The settings of a [`RedisCluster`]; made by [`RedisCluster::builder`].
///
/// # Default
///
/// - 3 primaries, 1 replica each
/// - a node is missed after 1 s
/// - no password, not durable
/// - Redis' own defaults for the rest: with `cluster-require-full-coverage yes`, one slot without a
///   primary and all of the cluster refuses
#[derive(Clone, Debug)]
#[must_use = "it starts nothing until `start` is called"]
pub struct RedisClusterBuilder {
    primaries: usize,
    replicas: usize,
    node_timeout: Duration,
    password: Option<String>,
    server: RedisServerBuilder,
}

impl RedisClusterBuilder {
    /// How many primaries. A majority must be up for a failover, so 3 or more.
    pub fn primaries(mut self, primaries: usize) -> Self {
        self.primaries = primaries.max(1);
        self
    }

    /// How many replicas each primary has.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// After how long without a sign of life a node is missed (`cluster-node-timeout`).
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Asks clients, and the nodes each other, for this password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        let password = password.into();
        self.server = self.server.password(password.clone());
        self.password = Some(password);
        self
    }

    /// As [`RedisServerBuilder::durable`], for each node.
    pub fn durable(mut self) -> Self {
        self.server = self.server.durable();
        self
    }

    /// As [`RedisServerBuilder::arg`], for each node.
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server = self.server.arg(name, value);
        self
    }

    /// Starts the nodes, forms the cluster, and waits until it is well.
    ///
    /// # Errors
    ///
    /// [`StartError`], as [`RedisServerBuilder::start`].
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, so are the nodes.
    pub async fn start(self) -> Result<RedisCluster, StartError> {
        let count = self.primaries * (1 + self.replicas);
        let buses: Vec<Port> = (0..count).map(|_| Port::draw()).collect::<Result<_, _>>()?;
        let nodes = try_join_all(buses.iter().map(|bus| self.node(bus).start())).await?;
        let cluster = RedisCluster {
            frozen: vec![false; count],
            nodes,
            password: self.password,
            _buses: buses,
        };
        cluster.form(self.primaries).await?;
        Ok(cluster)
    }

    /// Its directives come first, so that the caller's override them.
    fn node(&self, bus: &Port) -> RedisServerBuilder {
        let mut node = self
            .server
            .clone()
            .arg("cluster-enabled", "yes")
            .arg("cluster-port", bus.number().to_string())
            .arg(
                "cluster-node-timeout",
                self.node_timeout.as_millis().to_string(),
            )
            // A replica that has been cut off for long may be promoted all the same.
            .arg("cluster-replica-validity-factor", "0")
            .arg("cluster-allow-replica-migration", "no")
            .arg("repl-diskless-sync-delay", "0")
            .arg("repl-ping-replica-period", "1");
        if let Some(password) = &self.password {
            node = node.arg("masterauth", super::server::quoted(password));
        }
        node
    }
}

/// How long a busy machine may need for what takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn setup(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Io(io::Error::other(error))
}

fn down() -> redis::RedisError {
    (
        redis::ErrorKind::ClusterConnectionNotFound,
        "no node of the cluster is up that could answer this",
    )
        .into()
}

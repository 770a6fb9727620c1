//! What a [`SentinelSet`] is started with.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::try_join_all;

use super::{Credentials, Member, SentinelSet};
use crate::chaos::{
    FaultProxy, RedisServer, RedisServerBuilder, StartError, builder::DRAWS, port::Port,
    server::quoted,
};

/// The settings of a [`SentinelSet`]; made by [`SentinelSet::builder`].
///
/// # Default
///
/// - `replicas`: 2, beside the one primary
/// - `sentinels`: 3; a majority of them is the quorum
/// - `master_name`: `mymaster`
/// - `down_after`: 500 ms
/// - no passwords
/// - not durable
/// - no proxies
#[derive(Clone, Debug)]
#[must_use = "it starts nothing until `start` is called"]
pub struct SentinelSetBuilder {
    replicas: usize,
    sentinels: usize,
    name: String,
    down_after: Duration,
    credentials: Credentials,
    durable: bool,
    proxied: bool,
    directives: Vec<(String, String)>,
}

impl SentinelSetBuilder {
    pub(super) fn new() -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            name: "mymaster".into(),
            down_after: Duration::from_millis(500),
            credentials: Credentials::default(),
            durable: false,
            proxied: false,
            directives: Vec::new(),
        }
    }

    /// How many replicas the primary has, at most 100.
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How many sentinels there are, 1 to 100.
    pub const fn sentinels(mut self, sentinels: usize) -> Self {
        self.sentinels = sentinels;
        self
    }

    /// The name under which the sentinels know the primary: letters, digits, `.`, `-` and `_`.
    pub fn master_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long the primary must be silent until a sentinel takes it for down.
    pub const fn down_after(mut self, down_after: Duration) -> Self {
        self.down_after = down_after;
        self
    }

    /// Every node writes each change to disk before it is acknowledged:
    /// [`RedisServerBuilder::durable`].
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// The nodes ask each other, the sentinels and clients for this password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.credentials.password = Some(password.into());
        self
    }

    /// The sentinels ask each other and clients for this password.
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.credentials.sentinel_password = Some(password.into());
        self
    }

    /// Puts a [`FaultProxy`] in front of each node and each sentinel, and makes these announce its
    /// address, so that all of them and all clients meet through proxies.
    ///
    /// Each process then has a loopback address of its own, from which it also connects: that is
    /// how a proxy knows who comes. Needs Linux, where all of 127.0.0.0/8 is there to be used.
    pub const fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Adds a directive to the configuration of each node, as [`RedisServerBuilder::arg`].
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.directives.push((name.into(), value.into()));
        self
    }

    /// Starts it all and waits until a failover could work: see
    /// [`SentinelSet::wait_until_healthy`].
    ///
    /// # Errors
    ///
    /// [`StartError`]; without a `redis-server` it says how to get one.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, so is all that was started.
    pub async fn start(self) -> Result<SentinelSet, StartError> {
        let primary = self.start_node(0, None).await?;
        let addr = primary.addr();
        let replicas = (1..=self.replicas).map(|node| self.start_node(node, Some(addr)));
        let replicas = try_join_all(replicas).await?;
        let sentinels = (0..self.sentinels).map(|sentinel| self.start_sentinel(sentinel, addr));
        let sentinels = try_join_all(sentinels).await?;
        let set = SentinelSet {
            name: self.name,
            credentials: self.credentials,
            nodes: [primary].into_iter().chain(replicas).collect(),
            sentinels,
        };
        set.wait_until_healthy().await?;
        Ok(set)
    }

    async fn start_node(
        &self,
        node: usize,
        primary: Option<SocketAddr>,
    ) -> Result<Member, StartError> {
        let mut server = RedisServer::builder()
            .arg("repl-diskless-sync", "yes")
            .arg("repl-diskless-sync-delay", "0")
            .arg("repl-ping-replica-period", "1")
            .arg("repl-timeout", REPLICATION_TIMEOUT);
        if self.durable {
            server = server.durable();
        }
        if let Some(password) = &self.credentials.password {
            server = server
                .password(password)
                .arg("masterauth", quoted(password));
        }
        if let Some(primary) = primary {
            let primary = format!("{} {}", primary.ip(), primary.port());
            server = server.arg("replicaof", primary);
        }
        for (name, value) in &self.directives {
            server = server.arg(name, value);
        }
        let announced = ["replica-announce-ip", "replica-announce-port"];
        self.start_member(&server, NODES + node, announced).await
    }

    async fn start_sentinel(
        &self,
        sentinel: usize,
        primary: SocketAddr,
    ) -> Result<Member, StartError> {
        let name = &self.name;
        let quorum = self.sentinels / 2 + 1;
        let of_master = |setting: &str, value: &str| format!("{setting} {name} {value}");
        let monitored = format!("{} {} {quorum}", primary.ip(), primary.port());
        let down_after = self.down_after.as_millis().to_string();
        let mut server = RedisServer::builder()
            .sentinel()
            .arg("sentinel", of_master("monitor", &monitored))
            .arg(
                "sentinel",
                of_master("down-after-milliseconds", &down_after),
            )
            .arg(
                "sentinel",
                of_master("failover-timeout", FAILOVER_TIMEOUT_MS),
            )
            .arg("sentinel", of_master("parallel-syncs", "100"))
            .at_start(
                redis::cmd("SENTINEL")
                    .arg("DEBUG")
                    .arg(&QUICK[..])
                    .to_owned(),
            );
        if let Some(password) = &self.credentials.password {
            server = server.arg("sentinel", of_master("auth-pass", &quoted(password)));
        }
        if let Some(password) = &self.credentials.sentinel_password {
            let known = format!("sentinel-pass {}", quoted(password));
            server = server.password(password).arg("sentinel", known);
        }
        let announced = ["sentinel announce-ip", "sentinel announce-port"];
        self.start_member(&server, SENTINELS + sentinel, announced)
            .await
    }

    async fn start_member(
        &self,
        server: &RedisServerBuilder,
        number: usize,
        [ip, port]: [&str; 2],
    ) -> Result<Member, StartError> {
        let mut draws = 0;
        loop {
            draws += 1;
            let mut server = server.clone();
            let mut drawn = Port::draw()?;
            let mut proxy = None;
            if self.proxied {
                // More of them than there are addresses share the last.
                let last = u8::try_from(number).unwrap_or(u8::MAX);
                drawn = Port::draw_on(Ipv4Addr::new(127, 0, 0, last))?;
                let started = FaultProxy::start(drawn.addr()).await?;
                server = server
                    .arg("bind-source-addr", drawn.ip().to_string())
                    .arg(ip, IpAddr::to_string(&started.addr().ip()))
                    .arg(port, started.addr().port().to_string());
                proxy = Some(started);
            }
            match RedisServer::launch(server, drawn).await {
                Err(StartError::PortTaken { .. }) if draws < DRAWS => {}
                started => {
                    return Ok(Member {
                        server: started?,
                        proxy,
                    });
                }
            }
        }
    }
}

/// The last number in the address of the first node, and of the first sentinel.
const NODES: usize = 2;
const SENTINELS: usize = 120;

/// Seconds: a link that was cut without a word is given up after it.
const REPLICATION_TIMEOUT: &str = "5";

/// An election that found no winner is held again after twice as long.
const FAILOVER_TIMEOUT_MS: &str = "2000";

/// What the configuration file can't hold, in milliseconds.
///
/// A sentinel connects again at most once in a `ping-period`, which must be well below
/// `down_after`, or a link that was merely replaced looks like a server that is down. Of a replica
/// that could be promoted it must have heard within five of them, and it asks once a second. It
/// replaces a link older than `min-link-reconnect-period` on which three `publish-period`s
/// brought no news; while it does, it hears no answer either. `tilt-period` is how long it
/// mistrusts itself after it stood still.
const QUICK: [(&str, u32); 6] = [
    ("info-period", 200),
    ("ping-period", 300),
    ("ask-period", 100),
    ("publish-period", 500),
    ("min-link-reconnect-period", 2_000),
    ("tilt-period", 1_000),
];

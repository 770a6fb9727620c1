//! Where Redis is and how patient to be with it: [`ConnectOptions`].

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use redis::{ProtocolVersion, RedisConnectionInfo};

use super::{
    ConnectError,
    deployment::{Deployment, Secret},
    url,
};
use crate::metrics::ConnectMetrics;

/// Where Redis is, who we are to it, and how long it may take.
///
/// Made from a URL; the setters change the rest. `Debug` shows no password.
///
/// # URLs
///
/// | URL | |
/// |---|---|
/// | `redis://user:password@host:6379/0` | TCP; user, password, port and database may be left out |
/// | `rediss://..` | the same over TLS (feature `tls`, on by default); certificates are always checked |
/// | `unix:///path.sock?db=0&user=..&pass=..` | a unix socket, also as `redis+unix://` |
/// | `redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0` | the master of that name, wherever the sentinels say it is |
/// | `redis+cluster://user:password@host1:6379,host2:6379` | a Cluster; there is no database but 0 |
///
/// `rediss+sentinel://` and `rediss+cluster://` are the same over TLS. User, password and hosts are
/// percent-decoded, an IPv6 address stands in `[ ]`. All take the query keys `protocol` (`resp2` or
/// `resp3`) and `client_name`, those of Sentinel `sentinel_user`, `sentinel_pass` and `sentinel_tls`
/// as well (the user and password before the hosts are those of the *master*); any other key is
/// refused.
///
/// # Default
///
/// - connect timeout 1 s: name, socket, TLS, login and check together
/// - response timeout 500 ms for each attempt: a healthy Redis answers in 1 ms, and a slow one is
///   told from a dead one before the user is gone
/// - 1 shared connection: it carries 0.6 M calls a second, more than one Redis thread serves
/// - suspect after 2 unanswered calls in a row: one may be bad luck
/// - probe each second, which must be answered in 500 ms: an idle client notices within 1.5 s
/// - reconnect delay from 50 ms, doubling to 1 s, half of it random
/// - Sentinel: each sentinel is asked once a second, and logged in to with nothing but what is said
///   of it
/// - no call is sent to a replica
/// - TCP keepalive after 10 s idle, TCP user timeout 5 s: the kernel's net under connections that
///   are not probed
/// - `TCP_NODELAY` on: one call at a time must not wait for an acknowledgement
/// - 16 exclusive connections, made when needed; 500 ms wait for a free one
/// - RESP2, client name `seawall`
#[derive(Clone, Debug)]
#[must_use]
pub struct ConnectOptions {
    pub(super) deployment: Deployment,
    pub(super) username: Option<Arc<str>>,
    pub(super) password: Option<Secret>,
    pub(super) database: u32,
    pub(super) sentinel_username: Option<Arc<str>>,
    pub(super) sentinel_password: Option<Secret>,
    /// `None` where there are no sentinels.
    pub(super) sentinel_tls: Option<bool>,
    pub(super) sentinel_poll: Duration,
    pub(super) replica_reads: bool,
    pub(super) protocol: ProtocolVersion,
    pub(super) client_name: String,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) connections: usize,
    pub(super) suspect_after: u32,
    pub(super) probe_interval: Duration,
    pub(super) probe_timeout: Duration,
    pub(super) reconnect_first: Duration,
    pub(super) reconnect_longest: Duration,
    pub(super) keepalive: Duration,
    pub(super) tcp_user_timeout: Duration,
    pub(super) nodelay: bool,
    pub(super) pool_size: usize,
    pub(super) pool_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(super) ca_certificate: Option<Secret>,
    pub(super) metrics: ConnectMetrics,
}

impl ConnectOptions {
    /// Reads a URL: see the [type's docs](Self#urls).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] saying what to change; it repeats no part of the URL.
    pub fn from_url(url: &str) -> Result<Self, ConnectError> {
        url::parse(url)
    }

    pub(super) fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            username: None,
            password: None,
            database: 0,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_tls: None,
            sentinel_poll: Duration::from_secs(1),
            replica_reads: false,
            protocol: ProtocolVersion::RESP2,
            client_name: "seawall".to_owned(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            connections: 1,
            suspect_after: 2,
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            reconnect_first: Duration::from_millis(50),
            reconnect_longest: Duration::from_secs(1),
            keepalive: Duration::from_secs(10),
            tcp_user_timeout: Duration::from_secs(5),
            nodelay: true,
            pool_size: 16,
            pool_timeout: Duration::from_millis(500),
            #[cfg(feature = "tls")]
            ca_certificate: None,
            metrics: ConnectMetrics::default(),
        }
    }

    /// Logs in as this ACL user. Needs a password.
    pub fn with_username(mut self, username: impl AsRef<str>) -> Self {
        self.username = Some(username.as_ref().into());
        self
    }

    /// Logs in with this password.
    pub fn with_password(mut self, password: impl AsRef<str>) -> Self {
        self.password = Some(Secret::new(password.as_ref()));
        self
    }

    /// Selects this database.
    pub fn with_database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Speaks this version of the protocol.
    pub fn with_protocol(mut self, protocol: ProtocolVersion) -> Self {
        self.protocol = protocol;
        self
    }

    /// The name that `CLIENT LIST` shows. Printable ASCII without spaces, at most 64 characters.
    pub fn with_client_name(mut self, name: impl AsRef<str>) -> Self {
        self.client_name = name.as_ref().to_owned();
        self
    }

    /// Trusts these certificates, in PEM, *instead of* the system's. For `rediss://` only.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn with_ca_certificate(mut self, pem: impl AsRef<str>) -> Self {
        self.ca_certificate = Some(Secret::new(pem.as_ref()));
        self
    }

    /// How long making a connection may take in all, from the name to the check of its role.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt waits for its answer; a call's own deadline may end it earlier.
    pub fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How many connections ordinary calls share, turn by turn.
    ///
    /// More than one helps when single answers are large and others wait behind them. Calls are
    /// ordered only if one is awaited before the next is made, however many connections there are.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How many calls in a row may wait the whole response timeout before the connection is
    /// replaced.
    ///
    /// A call that ended at an earlier deadline of its own does not count: its patience says nothing
    /// about the connection.
    pub fn with_suspect_after(mut self, timeouts: u32) -> Self {
        self.suspect_after = timeouts;
        self
    }

    /// How often the connection is probed, and how long the answer may take. One that is not
    /// answered replaces the connection.
    pub fn with_probe(mut self, interval: Duration, timeout: Duration) -> Self {
        self.probe_interval = interval;
        self.probe_timeout = timeout;
        self
    }

    /// The first and the longest delay between attempts to connect.
    pub fn with_reconnect_delay(mut self, first: Duration, longest: Duration) -> Self {
        self.reconnect_first = first;
        self.reconnect_longest = longest;
        self
    }

    /// After how long without traffic the kernel asks the other end whether it is there.
    pub fn with_keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = idle;
        self
    }

    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
    ///
    /// Linux only; elsewhere it does nothing.
    pub fn with_tcp_user_timeout(mut self, timeout: Duration) -> Self {
        self.tcp_user_timeout = timeout;
        self
    }

    /// Whether small writes go out at once (`TCP_NODELAY`).
    ///
    /// Off, many concurrent calls share packets, which carries up to a third more of them; but a
    /// single call can then wait for the other end's delayed acknowledgement, 40 ms on Linux.
    pub fn with_nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How many exclusive connections there may be, and how long to wait for a free one.
    pub fn with_exclusive(mut self, connections: usize, wait: Duration) -> Self {
        self.pool_size = connections;
        self.pool_timeout = wait;
        self
    }

    /// Counts into these metrics.
    pub fn with_metrics(mut self, metrics: ConnectMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Refuses what makes no sense, before anything is opened.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        span("connect_timeout", self.connect_timeout)?;
        span("response_timeout", self.response_timeout)?;
        span("probe interval", self.probe_interval)?;
        span("probe timeout", self.probe_timeout)?;
        span("sentinel poll", self.sentinel_poll)?;
        span("first reconnect delay", self.reconnect_first)?;
        span("longest reconnect delay", self.reconnect_longest)?;
        span("tcp_user_timeout", self.tcp_user_timeout)?;
        span("exclusive wait", self.pool_timeout)?;
        count("connections", self.connections, 1..=64)?;
        count("exclusive connections", self.pool_size, 1..=4096)?;
        if self.suspect_after == 0 {
            return Err(ConnectError::setting("suspect_after", "must be at least 1"));
        }
        if self.reconnect_longest < self.reconnect_first {
            return Err(ConnectError::setting(
                "longest reconnect delay",
                "must not be shorter than the first",
            ));
        }
        // The kernel counts in whole seconds, and one third of it lies between two questions.
        if self.keepalive < Duration::from_secs(3) || self.keepalive > LONGEST {
            return Err(ConnectError::setting(
                "keepalive",
                "must be between 3 s and 1 h",
            ));
        }
        let printable = self.client_name.bytes().all(|byte| byte.is_ascii_graphic());
        if self.client_name.is_empty() || self.client_name.len() > 64 || !printable {
            return Err(ConnectError::setting(
                "client_name",
                "must be 1 to 64 printable ASCII characters without spaces",
            ));
        }
        if self.database != 0 && matches!(self.deployment, Deployment::Cluster(_)) {
            return Err(ConnectError::setting("database", "must be 0 in a cluster"));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(ConnectError::setting(
                "username",
                "has no password to go with it",
            ));
        }
        #[cfg(feature = "tls")]
        if self.ca_certificate.is_some() && !self.uses_tls() {
            return Err(ConnectError::setting(
                "ca_certificate",
                "is only of use with TLS: rediss://",
            ));
        }
        if self.sentinel_username.is_some() && self.sentinel_password.is_none() {
            return Err(ConnectError::setting(
                "sentinel_user",
                "has no password to go with it",
            ));
        }
        let about_sentinels =
            self.sentinel_password.is_some() || self.sentinel_tls.is_some() || self.replica_reads;
        if about_sentinels && !matches!(self.deployment, Deployment::Sentinel(_)) {
            return Err(ConnectError::setting(
                "what is said of sentinels or replicas",
                "is only of use with redis+sentinel://",
            ));
        }
        Ok(())
    }

    #[cfg(feature = "tls")]
    /// Whether any connection is made over TLS.
    pub(super) fn uses_tls(&self) -> bool {
        match &self.deployment {
            Deployment::Standalone(address) => {
                matches!(address, super::deployment::Address::Tls(_))
            }
            Deployment::Sentinel(group) => group.tls || self.sentinel_tls == Some(true),
            Deployment::Cluster(nodes) => nodes
                .iter()
                .any(|node| matches!(node, super::deployment::Address::Tls(_))),
        }
    }

    /// What the redis crate needs to log in.
    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default()
            .set_db(self.database.into())
            .set_protocol(self.protocol)
            .set_lib_name("seawall", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.expose());
        }
        login
    }
}

/// Nothing here is measured in hours, and sums with longer ones could overflow.
const LONGEST: Duration = Duration::from_secs(3600);

fn span(what: &'static str, value: Duration) -> Result<(), ConnectError> {
    if value < Duration::from_millis(1) || value > LONGEST {
        return Err(ConnectError::setting(what, "must be between 1 ms and 1 h"));
    }
    Ok(())
}

fn count(
    what: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
) -> Result<(), ConnectError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(ConnectError::setting(
        what,
        format!("must be between {least} and {most}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConnectOptions {
        ConnectOptions::from_url("redis://ann:s3cret@localhost/1").unwrap()
    }

    #[test]
    fn the_defaults_pass_their_own_check() {
        options().check().unwrap();
    }

    #[test]
    fn debug_output_shows_no_password() {
        let shown = format!("{:?}", options());
        assert!(
            shown.contains("ann") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn absurd_settings_are_refused_by_name() {
        const MS: Duration = Duration::from_millis(1);
        let absurd = [
            (
                "connect_timeout",
                options().with_connect_timeout(Duration::ZERO),
            ),
            (
                "response_timeout",
                options().with_response_timeout(Duration::MAX),
            ),
            ("probe interval", options().with_probe(Duration::ZERO, MS)),
            ("probe timeout", options().with_probe(MS, Duration::MAX)),
            (
                "sentinel poll",
                options().with_sentinel_poll(Duration::ZERO),
            ),
            ("sentinel_user", options().with_sentinel_username("watcher")),
            (
                "what is said of sentinels or replicas",
                options().with_sentinel_password("pw"),
            ),
            ("connections", options().with_connections(0)),
            ("connections", options().with_connections(65)),
            ("exclusive connections", options().with_exclusive(0, MS)),
            ("exclusive wait", options().with_exclusive(1, Duration::MAX)),
            ("suspect_after", options().with_suspect_after(0)),
            (
                "longest reconnect delay",
                options().with_reconnect_delay(MS * 2, MS),
            ),
            (
                "first reconnect delay",
                options().with_reconnect_delay(Duration::ZERO, MS),
            ),
            ("keepalive", options().with_keepalive(MS)),
            (
                "tcp_user_timeout",
                options().with_tcp_user_timeout(Duration::MAX),
            ),
            ("client_name", options().with_client_name("two words")),
            ("client_name", options().with_client_name("")),
            (
                "username",
                ConnectOptions::from_url("redis://ann@h").unwrap(),
            ),
        ];
        for (name, options) in absurd {
            match options.check() {
                Err(ConnectError::InvalidSetting { what, .. }) => assert_eq!(what, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

//! What others may know about the connection: [`Status`] and [`Trouble`].

use std::fmt;

use tokio::time::Instant;

/// Whether there is a working connection, since when, and what was wrong last.
///
/// Watch it through [`Connection::status`](super::Connection::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// There is a connection that was checked to lead to a master.
    pub up: bool,
    /// How often a connection has been made: 0 before the first.
    pub generation: u64,
    /// When `up` last changed; when the connection was opened, if it never did.
    pub since: Instant,
    /// Why there is no connection, or why the last one was given up. `None` before any trouble.
    pub trouble: Option<Trouble>,
}

impl Status {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            up: false,
            generation: 0,
            since: now,
            trouble: None,
        }
    }
}

/// Why there is no connection, or why one was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// The cluster says that it takes no requests: slots without a primary, or no majority.
    ClusterDown,
    /// Connecting took longer than
    /// [`connect_timeout`](super::ConnectOptions::with_connect_timeout).
    ConnectTimeout,
    /// The server does not take the user and password.
    Credentials,
    /// The server refused to select the database.
    Database,
    /// The server is still loading its data.
    Loading,
    /// The socket was closed.
    Lost,
    /// The sentinels have another master, which says that it is one.
    Moved,
    /// What answers is no node of a Redis Cluster, or of one that has no slots yet.
    NoCluster,
    /// A probe was not answered in time.
    Probe,
    /// What answers is not a Redis server, or one that cannot speak the protocol asked for.
    Protocol,
    /// The server is a replica.
    Replica,
    /// The sentinels do not take the user and password given for them.
    SentinelCredentials,
    /// No sentinel answers.
    SentinelsUnreachable,
    /// Too many calls in a row were not answered in time.
    Silent,
    /// The TLS handshake failed, or there are no certificates to trust.
    Tls,
    /// The sentinels that answer know no master of this name.
    UnknownMaster,
    /// Nothing accepts connections at the address.
    Unreachable,
    /// The host name has no address.
    Unresolved,
}

impl Trouble {
    /// What can end a connection that worked: the reasons in the metrics.
    pub(super) const ENDINGS: [Self; 8] = [
        Self::Credentials,
        Self::Loading,
        Self::Lost,
        Self::Moved,
        Self::Probe,
        Self::Protocol,
        Self::Replica,
        Self::Silent,
    ];

    /// One lowercase word, as metrics and log lines have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterDown => "cluster_down",
            Self::ConnectTimeout => "connect_timeout",
            Self::Credentials => "credentials",
            Self::Database => "database",
            Self::Loading => "loading",
            Self::Lost => "lost",
            Self::Moved => "moved",
            Self::NoCluster => "no_cluster",
            Self::Probe => "probe",
            Self::Protocol => "protocol",
            Self::Replica => "replica",
            Self::SentinelCredentials => "sentinel_credentials",
            Self::SentinelsUnreachable => "sentinels_unreachable",
            Self::Silent => "silent",
            Self::Tls => "tls",
            Self::UnknownMaster => "unknown_master",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
        }
    }

    /// Whether it means that no sentinel could say anything about the master.
    pub(super) fn is_silence(self) -> bool {
        matches!(self, Self::SentinelCredentials | Self::SentinelsUnreachable)
    }

    pub(super) fn explain(self) -> &'static str {
        match self {
            Self::ClusterDown => "the cluster takes no requests",
            Self::ConnectTimeout => "connecting took too long",
            Self::Credentials => "the server does not take the user and password",
            Self::Database => "the server refused the database number",
            Self::Loading => "the server is still loading its data",
            Self::Lost => "the connection was closed",
            Self::Moved => "the sentinels have another master",
            Self::NoCluster => "what answers is no node of a Redis Cluster that has slots",
            Self::Probe => "a probe was not answered in time",
            Self::Protocol => "what answers is not a Redis server, or does not know the protocol",
            Self::Replica => "the server is a replica",
            Self::SentinelCredentials => "the sentinels do not take the user and password",
            Self::SentinelsUnreachable => "no sentinel answers",
            Self::Silent => "several calls in a row were not answered in time",
            Self::Tls => "the TLS handshake failed",
            Self::UnknownMaster => "the sentinels know no master of this name",
            Self::Unreachable => "nothing accepts connections at the address",
            Self::Unresolved => "the host name has no address",
        }
    }
}

/// A sentence for people.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}

//! What [`ConnectOptions`] says of sentinels and replicas.

use std::time::Duration;

use redis::{ProtocolVersion, RedisConnectionInfo};

use crate::connect::{ConnectOptions, deployment::Secret};

/// For `redis+sentinel://` only.
impl ConnectOptions {
    /// Logs in to the sentinels as this ACL user. Needs a
    /// [password](Self::with_sentinel_password).
    pub fn with_sentinel_username(mut self, username: impl AsRef<str>) -> Self {
        self.sentinel_username = Some(username.as_ref().into());
        self
    }

    /// Logs in to the sentinels with this password. Default: none, whatever the master's is.
    pub fn with_sentinel_password(mut self, password: impl AsRef<str>) -> Self {
        self.sentinel_password = Some(Secret::new(password.as_ref()));
        self
    }

    /// How often each sentinel is asked where the master is, a quarter more or less by chance.
    ///
    /// A failover is heard of at once, by `+switch-master`; this is the net below it.
    pub fn with_sentinel_poll(mut self, interval: Duration) -> Self {
        self.sentinel_poll = interval;
        self
    }

    /// Whether calls that [ask for it](crate::RedisCall::with_replica_read) are sent to a replica.
    ///
    /// What is read there is as old as the replica is behind, with no bound that is promised; a
    /// client that has just written may not find it. There is one connection to each replica that
    /// the sentinels call healthy and that says it follows its master. When none works, and half of
    /// the response timeout after one falls silent, the master is asked instead. While there is no
    /// connection to a master, these calls fail like all others.
    pub fn with_replica_reads(mut self, replicas: bool) -> Self {
        self.replica_reads = replicas;
        self
    }

    /// Whether the sentinels speak TLS. Default: as the master does.
    pub fn with_sentinel_tls(mut self, tls: bool) -> Self {
        self.sentinel_tls = Some(tls);
        self
    }

    /// What the redis crate needs to log in to the sentinels: they announce in RESP3 on the connection that they answer on.
    pub(in crate::connect) fn sentinel_login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("seawall", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.sentinel_username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.sentinel_password {
            login = login.set_password(password.expose());
        }
        login
    }
}

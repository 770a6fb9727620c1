//! Making one connection: find the server, open a socket, log in, and check whom it leads to.

use std::{
    future::Future,
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::select_ok;
use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    ConnectError,
    deployment::{Address, Endpoint},
    options::ConnectOptions,
    status::Trouble,
};
use crate::classify;

/// Makes connections. It is the one place that knows how to log in, and whether a master is there.
pub(super) struct Dialer {
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    client_name: String,
    timeout: Duration,
    keepalive: TcpKeepalive,
    user_timeout: Duration,
    nodelay: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    role_is_hidden: AtomicBool,
}

impl Dialer {
    pub(super) fn new(options: &ConnectOptions) -> Result<Self, ConnectError> {
        #[cfg(feature = "tls")]
        options.deployment.tls_hosts().try_for_each(Tls::check)?;
        Ok(Self {
            login: options.login(),
            sentinel_login: options.sentinel_login(),
            client_name: options.client_name.clone(),
            timeout: options.connect_timeout,
            keepalive: TcpKeepalive::new()
                .with_time(options.keepalive)
                .with_interval(options.keepalive / 3),
            user_timeout: options.tcp_user_timeout,
            nodelay: options.nodelay,
            #[cfg(feature = "tls")]
            tls: if options.uses_tls() {
                let certificate = options.ca_certificate.as_ref().map(|pem| pem.expose());
                Some(Tls::new(certificate)?)
            } else {
                None
            },
            role_is_hidden: AtomicBool::new(false),
        })
    }

    /// Makes a connection to the master at this address, within the connect timeout.
    ///
    /// It lives until `cut` is cancelled or the socket closes, and then calls `ended`. Cancel safe:
    /// a connection that is not returned is closed.
    pub(super) async fn dial(
        &self,
        at: &Address,
        cut: CancellationToken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        self.in_time(cut.clone(), async {
            let connecting = self.connect(at, &self.login, plain(), cut, ended);
            let mut connection = Box::pin(connecting).await?;
            self.verify(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    /// As [`dial`](Self::dial), to a server of any role.
    pub(super) async fn visit(
        &self,
        at: &Address,
        cut: CancellationToken,
    ) -> Result<MultiplexedConnection, Trouble> {
        let connecting = self.connect(at, &self.login, plain(), cut.clone(), || {});
        self.in_time(cut, connecting).await
    }

    /// As [`dial`](Self::dial), to a sentinel, whose announcements go to `pushes`.
    pub(super) async fn sentinel(
        &self,
        at: &Address,
        cut: CancellationToken,
        pushes: impl AsyncPushSender,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        let config = plain().set_push_sender(pushes);
        let connecting = self.connect(at, &self.sentinel_login, config, cut.clone(), ended);
        self.in_time(cut, Box::pin(connecting))
            .await
            .map_err(|trouble| match trouble {
                Trouble::Credentials => Trouble::SentinelCredentials,
                other => other,
            })
    }

    /// As [`dial`](Self::dial), to a replica that follows its master.
    pub(super) async fn replica(
        &self,
        at: &Address,
        cut: CancellationToken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        self.in_time(cut.clone(), async {
            let connecting = self.connect(at, &self.login, plain(), cut, ended);
            let mut connection = Box::pin(connecting).await?;
            self.verify_replica(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    async fn in_time(
        &self,
        cut: CancellationToken,
        connecting: impl Future<Output = Result<MultiplexedConnection, Trouble>>,
    ) -> Result<MultiplexedConnection, Trouble> {
        let half_made = cut.drop_guard();
        let connection = timeout(self.timeout, connecting)
            .await
            .unwrap_or(Err(Trouble::ConnectTimeout))?;
        half_made.disarm();
        Ok(connection)
    }

    async fn connect(
        &self,
        at: &Address,
        login: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
        cut: CancellationToken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        let mut connection = match at {
            Address::Tcp(endpoint) => {
                let socket = self.socket(endpoint).await?;
                self.log_in(socket, login, config, cut, ended).await?
            }
            #[cfg(feature = "tls")]
            Address::Tls(endpoint) => {
                let socket = self.socket(endpoint).await?;
                let tls = self.tls.as_ref().ok_or(Trouble::Tls)?;
                let socket = tls.handshake(&endpoint.host, socket).await?;
                self.log_in(socket, login, config, cut, ended).await?
            }
            #[cfg(not(feature = "tls"))]
            Address::Tls(_) => return Err(Trouble::Tls),
            Address::Unix { path } => {
                let connecting = UnixStream::connect(path).await;
                let socket = connecting.map_err(|_| Trouble::Unreachable)?;
                self.log_in(socket, login, config, cut, ended).await?
            }
        };
        // For people only, so a user who may not have it goes without.
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(&self.client_name);
        connection
            .send_packed_command(&name)
            .await
            .map_err(|error| trouble(login, &error))?;
        Ok(connection)
    }

    async fn socket(&self, at: &Endpoint) -> Result<TcpStream, Trouble> {
        let addresses = lookup_host((&*at.host, at.port))
            .await
            .map_err(|_| Trouble::Unresolved)?;
        // All at once: one address that swallows packets must not use up the time of the others.
        let attempts: Vec<_> = addresses
            .map(|address| Box::pin(TcpStream::connect(address)))
            .collect();
        if attempts.is_empty() {
            return Err(Trouble::Unresolved);
        }
        let (socket, _) = select_ok(attempts)
            .await
            .map_err(|_| Trouble::Unreachable)?;
        self.configure(&socket).map_err(|_| Trouble::Unreachable)?;
        Ok(socket)
    }

    fn configure(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(self.nodelay)?;
        let socket = SockRef::from(socket);
        socket.set_tcp_keepalive(&self.keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        Ok(())
    }

    async fn log_in<S>(
        &self,
        socket: S,
        login: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
        cut: CancellationToken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (connection, driver) = MultiplexedConnection::new_with_config(login, socket, config)
            .await
            .map_err(|error| trouble(login, &error))?;
        spawn(driver, cut, ended);
        Ok(connection)
    }

    /// Whether a working master is at the other end. Has no time limit of its own.
    pub(super) async fn verify(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Trouble> {
        match self.stand(connection).await? {
            Standing::Master => Ok(()),
            Standing::Replica { .. } => Err(Trouble::Replica),
            Standing::Hidden => {
                if !self.role_is_hidden.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "this user may not ask Redis for its ROLE: \
                         a replica is noticed only once it refuses a write"
                    );
                }
                Ok(())
            }
        }
    }

    /// Whether a replica is there that follows its master. Has no time limit of its own.
    pub(super) async fn verify_replica(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Trouble> {
        match self.stand(connection).await? {
            Standing::Replica { follows: true } => Ok(()),
            _ => Err(Trouble::Replica),
        }
    }

    async fn stand(&self, connection: &mut MultiplexedConnection) -> Result<Standing, Trouble> {
        // ROLE is answered while the data is still loading, PING is not; a user may be allowed
        // either.
        let mut questions = redis::Pipeline::with_capacity(2);
        questions.cmd("ROLE").cmd("PING");
        let answers = connection
            .send_packed_commands(&questions, 0, 2)
            .await
            .map_err(|error| trouble(&self.login, &error))?;
        let [role, ping] = answers.as_slice() else {
            return Err(Trouble::Protocol);
        };
        judge(role, ping)
    }
}

/// Each call brings its own time limit, and blocking reads have none.
fn plain() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None)
}

fn trouble(login: &RedisConnectionInfo, error: &RedisError) -> Trouble {
    // The redis crate gives every refusal of SELECT the same code.
    let no_login = error.detail() == Some("Authentication required.");
    match error.kind() {
        _ if no_login || classify::is_unauthenticated(error) => Trouble::Credentials,
        ErrorKind::Io => Trouble::Lost,
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("LOADING") => Trouble::Loading,
            Some("MASTERDOWN") => Trouble::Replica,
            _ if login.db() != 0 => Trouble::Database,
            _ => Trouble::Protocol,
        },
        _ => Trouble::Protocol,
    }
}

/// What moves the bytes. Dropping it closes the socket and ends every call that waits on it.
fn spawn(
    driver: impl Future<Output = ()> + Send + 'static,
    cut: CancellationToken,
    ended: impl FnOnce() + Send + 'static,
) {
    tokio::spawn(async move {
        let _ = cut.run_until_cancelled(driver).await;
        ended();
    });
}

#[derive(Debug, PartialEq)]
enum Standing {
    Master,
    Replica {
        /// It has a connection to its master.
        follows: bool,
    },
    /// The server works, and the user may not ask what it is.
    Hidden,
}

/// Reads the answers to ROLE and PING.
fn judge(role: &Value, ping: &Value) -> Result<Standing, Trouble> {
    if let Value::ServerError(refusal) = ping {
        match refusal.code() {
            "LOADING" => return Err(Trouble::Loading),
            "NOAUTH" => return Err(Trouble::Credentials),
            "MASTERDOWN" => return Err(Trouble::Replica),
            // No permission, or a script that takes long: it is there, all the same.
            _ => {}
        }
    }
    let parts = match role {
        Value::ServerError(refusal) if refusal.code() == "NOAUTH" => {
            return Err(Trouble::Credentials);
        }
        Value::ServerError(_) => return Ok(Standing::Hidden),
        Value::Array(parts) => parts.as_slice(),
        _ => &[],
    };
    match parts {
        [Value::BulkString(name), ..] if name == b"master" => Ok(Standing::Master),
        [Value::BulkString(name), _, _, Value::BulkString(link), ..] if name == b"slave" => {
            Ok(Standing::Replica {
                follows: link == b"connected",
            })
        }
        _ => Err(Trouble::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn judged(role: &str, ping: &str) -> Result<Standing, Trouble> {
        let value = |wire: &str| parse_redis_value(wire.as_bytes()).unwrap();
        judge(&value(role), &value(ping))
    }

    const MASTER: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    const REPLICA: &str = "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$7\r\nconnect\r\n:-1\r\n";
    const FOLLOWER: &str = "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:7\r\n";
    const SENTINEL: &str = "*2\r\n$8\r\nsentinel\r\n*0\r\n";
    const FORBIDDEN: &str = "-NOPERM this user has no permissions\r\n";
    const PONG: &str = "+PONG\r\n";

    #[test]
    fn only_a_master_that_has_its_data_will_do() {
        assert_eq!(judged(MASTER, PONG), Ok(Standing::Master));
        let replica = |follows| Ok(Standing::Replica { follows });
        assert_eq!(judged(REPLICA, PONG), replica(false));
        assert_eq!(judged(FOLLOWER, PONG), replica(true));
        assert_eq!(judged(SENTINEL, PONG), Err(Trouble::Protocol));
        assert_eq!(
            judged(MASTER, "-LOADING Redis is loading\r\n"),
            Err(Trouble::Loading)
        );
    }

    #[test]
    fn a_user_who_may_not_ask_is_served() {
        assert_eq!(judged(FORBIDDEN, PONG), Ok(Standing::Hidden));
        assert_eq!(judged(FORBIDDEN, FORBIDDEN), Ok(Standing::Hidden));
        assert_eq!(judged(MASTER, FORBIDDEN), Ok(Standing::Master));
        assert_eq!(
            judged("-NOAUTH log in\r\n", "-NOAUTH log in\r\n"),
            Err(Trouble::Credentials)
        );
    }

    #[test]
    fn a_server_busy_with_a_script_is_not_replaced() {
        assert_eq!(
            judged(MASTER, "-BUSY a script is running\r\n"),
            Ok(Standing::Master)
        );
    }
}

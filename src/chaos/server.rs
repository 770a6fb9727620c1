//! A real `redis-server` that a test can kill, freeze and start again.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection,
};
use tokio::{
    fs,
    time::{sleep, timeout},
};
use url::Url;

use super::{
    StartError,
    builder::RedisServerBuilder,
    port::Port,
    process::{NOT_FOUND, Process},
};

/// A `redis-server` process of our own, on a free port of 127.0.0.1, in a directory of its own.
///
/// It keeps its port while it is down, and the port lies outside the range from which the kernel
/// numbers outgoing connections, so a [`restart`](Self::restart) can't find it taken.
///
/// Dropping it kills the server and removes the directory, which blocks the thread for some
/// milliseconds. Both also happen when the test process itself is killed: see the
/// [module](super).
///
/// It needs a clock that runs: under tokio's paused time, waiting for its start would be skipped.
#[derive(Debug)]
pub struct RedisServer {
    settings: RedisServerBuilder,
    process: Process,
    port: Port,
}

impl RedisServer {
    /// Starts a server that keeps nothing: no password, no persistence, a port of its choice.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// A server with other settings; [`RedisServerBuilder::start`] starts it.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::new()
    }

    /// Kills the server with SIGKILL, and waits until it is gone. Nothing to do if it is down.
    ///
    /// # Errors
    ///
    /// What the system says, which it does not for a child process of our own.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the server is killed even if this is dropped.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await.map(drop)
    }

    /// Stops the server with SIGSTOP, and waits until it stands still: its sockets stay open and
    /// take bytes, and nothing answers.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if the server is down.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the server is frozen even if this is dropped.
    pub async fn freeze(&self) -> io::Result<()> {
        self.process.freeze().await
    }

    /// Lets a frozen server go on. It then answers all that has reached its sockets meanwhile.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if the server is down.
    pub fn thaw(&self) -> io::Result<()> {
        self.process.thaw()
    }

    /// Kills the server if it runs, and starts it again on the same port and directory.
    ///
    /// What it finds there is what its persistence wrote: everything it had acknowledged if it is
    /// [`durable`](RedisServerBuilder::durable), else nothing.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way it leaves the server down or starting; `restart` again, or drop it.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.boot().await
    }

    /// As [`restart`](Self::restart), with its data removed first.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    ///
    /// # Cancel safety
    ///
    /// As [`restart`](Self::restart); the data may be gone already.
    pub async fn restart_empty(&mut self) -> Result<(), StartError> {
        self.kill().await?;
        fs::remove_dir_all(self.data_dir()).await?;
        fs::create_dir(self.data_dir()).await?;
        self.boot().await
    }

    /// Whether the process is there, be it frozen.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// `redis://<ip>:<port>/`, with the password if there is one. It outlives restarts.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = format!("redis://{}/", self.addr());
        if let Some(password) = &self.settings.password
            && let Ok(mut with_password) = Url::parse(&url)
            && with_password.set_password(Some(password)).is_ok()
        {
            url = with_password.into();
        }
        url
    }

    /// The `unix://` URL of the server, if it was asked for a
    /// [`unix_socket`](RedisServerBuilder::unix_socket).
    #[must_use]
    pub fn unix_url(&self) -> Option<String> {
        let mut url = Url::from_file_path(self.socket()?).ok()?;
        if let Some(password) = &self.settings.password {
            url.query_pairs_mut().append_pair("pass", password);
        }
        Some(url.as_str().replacen("file", "unix", 1))
    }

    /// Where the server listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The port on which the server listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// The process id; `None` once it was killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process
            .pid()
            .and_then(|pid| pid.as_raw_pid().try_into().ok())
    }

    /// The directory with the server's configuration, log and data. Removed when this is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// A new plain connection straight to the server, to look at the far end with.
    ///
    /// It waits at most 5 s for a reply, not the redis crate's 500 ms: a busy machine is no
    /// failure of the code under test.
    ///
    /// # Errors
    ///
    /// What the redis crate says, such as that the server is down.
    pub async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = Client::open(self.url())?;
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
    }

    /// Runs one command on a [`connection`](Self::connection) of its own.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use seawall::chaos::RedisServer;
    ///
    /// let redis = RedisServer::start().await?;
    /// let waiting: usize = redis.command(redis::cmd("LLEN").arg("emails")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the redis crate says: no connection, an error reply, or a reply that is not a `T`.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection().await?).await
    }

    /// Lays out the directory and starts the server in it.
    pub(super) async fn launch(
        settings: RedisServerBuilder,
        port: Port,
    ) -> Result<Self, StartError> {
        let process = Process::new("seawall-redis-")?;
        let mut server = Self {
            settings,
            process,
            port,
        };
        fs::create_dir(server.data_dir()).await?;
        fs::write(server.config(), server.directives()).await?;
        server.boot().await?;
        Ok(server)
    }

    async fn boot(&mut self) -> Result<(), StartError> {
        let config = self.config();
        let mut arguments = vec![config.as_os_str()];
        if self.settings.sentinel {
            arguments.push(OsStr::new("--sentinel"));
        }
        self.process
            .spawn(&self.settings.program, &arguments)
            .await?;
        let answering = async {
            while self.process.is_running() && !self.answers().await {
                sleep(POLL).await;
            }
        };
        let silent = timeout(READY_WITHIN, answering).await.is_err();
        if !silent && self.process.is_running() {
            for command in &self.settings.at_start {
                let _ = self.command::<()>(command).await;
            }
            return Ok(());
        }
        let status = self.process.kill().await?;
        let log = self.log_tail().await;
        if silent {
            return Err(StartError::Silent {
                within: READY_WITHIN,
                log,
            });
        }
        Err(match status {
            Some(status) if status.code() == Some(NOT_FOUND) => StartError::NotInstalled {
                program: self.settings.program.clone(),
            },
            _ if log.contains("Address already in use") => {
                StartError::PortTaken { port: self.port() }
            }
            status => StartError::Died {
                status: status.unwrap_or_default(),
                log,
            },
        })
    }

    /// Whether a PING gets its PONG (not LOADING), and from this process: somebody else's server
    /// may have taken the port just before.
    async fn answers(&self) -> bool {
        let ask = async {
            let mut connection = self.connection().await?;
            let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
            let info: String = redis::cmd("INFO")
                .arg("server")
                .query_async(&mut connection)
                .await?;
            RedisResult::Ok((pong, info))
        };
        let (Ok((pong, info)), Some(pid)) = (ask.await, self.pid()) else {
            return false;
        };
        let ours = format!("process_id:{pid}");
        pong == "PONG" && info.lines().any(|line| line.trim_end() == ours)
    }

    fn directives(&self) -> String {
        let mut text = format!(
            "bind {}\nport {}\ndir {}\n",
            self.port.ip(),
            self.port(),
            quoted(&self.data_dir().to_string_lossy()),
        );
        if !self.settings.sentinel {
            text += "save \"\"\n";
        }
        if self.settings.durable {
            text += "appendonly yes\nappendfsync always\n";
        }
        if let Some(password) = &self.settings.password {
            text += &format!("requirepass {}\n", quoted(password));
        }
        if let Some(socket) = self.socket() {
            text += &format!("unixsocket {}\n", quoted(&socket.to_string_lossy()));
        }
        for (name, value) in &self.settings.directives {
            text += &format!("{name} {value}\n");
        }
        text
    }

    /// The last lines that the server wrote: why it died is among them.
    async fn log_tail(&self) -> String {
        let log = fs::read(self.process.log()).await.unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    fn config(&self) -> PathBuf {
        self.dir().join("redis.conf")
    }

    fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn socket(&self) -> Option<PathBuf> {
        self.settings
            .unix_socket
            .then(|| self.dir().join("redis.sock"))
    }
}

/// How long a server may take to say PONG: it may have much to load, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
const LOG_TAIL: usize = 20;

/// A value as `redis.conf` wants it, whatever bytes it has.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_password_survives_the_configuration_file() {
        assert_eq!(quoted("plain"), r#""plain""#);
        assert_eq!(
            quoted("a \"b\" \\ \n\u{e9}"),
            r#""a \"b\" \\ \x0a\xc3\xa9""#
        );
    }
}

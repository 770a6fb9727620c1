//! What a [`RedisServer`] is started with, and how starting can fail.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    process::ExitStatus,
    time::Duration,
};

use redis::Cmd;

use super::{NotMet, port::Port, server::RedisServer};

/// The settings of a [`RedisServer`]; made by [`RedisServer::builder`].
///
/// # Default
///
/// - `program`: `redis-server`, looked for in `PATH`
/// - `port`: a free one
/// - `password`: none
/// - not durable: no append-only file, no snapshots
/// - no unix socket
#[derive(Clone)]
#[must_use = "it starts nothing until `start` is called"]
pub struct RedisServerBuilder {
    pub(super) program: OsString,
    pub(super) port: Option<u16>,
    pub(super) password: Option<String>,
    pub(super) durable: bool,
    pub(super) unix_socket: bool,
    pub(super) directives: Vec<(String, String)>,
    pub(super) sentinel: bool,
    pub(super) at_start: Vec<Cmd>,
}

impl RedisServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            program: "redis-server".into(),
            port: None,
            password: None,
            durable: false,
            unix_socket: false,
            directives: Vec::new(),
            sentinel: false,
            at_start: Vec::new(),
        }
    }

    /// Writes each change to disk before it is acknowledged (`appendonly yes`, `appendfsync
    /// always`): what the server has acknowledged is there after a
    /// [`kill`](RedisServer::kill) and a [`restart`](RedisServer::restart).
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Adds a directive to the configuration, the value as `redis.conf` has it, e.g.
    /// `.arg("maxmemory", "1mb")` or `.arg("save", "60 1")`. It overrides an earlier one.
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.directives.push((name.into(), value.into()));
        self
    }

    /// Asks clients for this password (`requirepass`).
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Listens on this port, which had better lie outside the kernel's ephemeral range.
    pub const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Listens on a unix socket too: [`RedisServer::unix_url`].
    pub const fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Runs another program than `redis-server`: another version, or another server that reads
    /// its configuration.
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    /// Runs it as a Sentinel, which has no data.
    pub(super) const fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Sends this after each start: a setting that the configuration file can't hold. A server
    /// that does not know it goes without.
    pub(super) fn at_start(mut self, command: Cmd) -> Self {
        self.at_start.push(command);
        self
    }

    /// Starts the server and waits, for up to 30 s, until it answers PING with PONG, which it
    /// does only once its data is loaded.
    ///
    /// # Errors
    ///
    /// [`StartError`], which carries the end of the server's log where that helps. Without a
    /// `redis-server` it says how to get one: let the test fail with it.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, so is the half-started server.
    pub async fn start(self) -> Result<RedisServer, StartError> {
        if let Some(number) = self.port {
            let taken = |_| StartError::PortTaken { port: number };
            let port = Port::claim(number).map_err(taken)?;
            return RedisServer::launch(self, port).await;
        }
        let mut draws = 0;
        loop {
            draws += 1;
            match RedisServer::launch(self.clone(), Port::draw()?).await {
                Err(StartError::PortTaken { .. }) if draws < DRAWS => {}
                started => return started,
            }
        }
    }
}

impl fmt::Debug for RedisServerBuilder {
    /// Without the password and the directives, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServerBuilder")
            .field("program", &self.program)
            .field("port", &self.port)
            .field("durable", &self.durable)
            .field("unix_socket", &self.unix_socket)
            .finish_non_exhaustive()
    }
}

/// Another process can take a port between the draw and the start; twice in a row, hardly.
pub(super) const DRAWS: usize = 5;

/// Why a [`RedisServer`], or a set of them, did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no such program here.
    #[error("{} was not found; install it with: apt-get install redis-server", .program.display())]
    NotInstalled {
        /// What was looked for.
        program: OsString,
    },
    /// Somebody else listens on the port.
    #[error("port {port} is taken")]
    PortTaken {
        /// The port that was asked for.
        port: u16,
    },
    /// The server ended before it answered, e.g. since it did not like its configuration.
    #[error("the server died at its start, {status}:\n{log}")]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server runs, and does not answer.
    #[error("the server did not answer within {within:?}:\n{log}")]
    Silent {
        /// How long it was awaited.
        within: Duration,
        /// The end of its log.
        log: String,
    },
    /// The servers of a set run, and do not find each other.
    #[error("the servers run, but not together")]
    NotTogether(#[from] NotMet),
    /// The system did not let us make a directory, a socket or a process.
    #[error("could not start a server")]
    Io(#[from] io::Error),
}

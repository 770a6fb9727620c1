//! Servers that can be told to refuse, and a way to read an error whole.

use std::{error::Error as StdError, fmt::Write as _, time::Duration};

use redis::Cmd;
use seawall::{
    Error, RedisCall, Reply, Seawall,
    call::ScriptCall,
    chaos::{RedisServer, wait_until},
    classify::{Class, Landed, Verdict},
    connect::{ConnectOptions, Connection},
    stack::Builder,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// Ends a test that would hang; no test passes or fails by it otherwise.
pub const PLENTY: Duration = Duration::from_secs(30);

pub const OUTAGE: Verdict = Verdict::new(Class::Outage, Landed::No);
pub const PERMANENT: Verdict = Verdict::new(Class::Permanent, Landed::No);
pub const NOT_NOW: Verdict = Verdict::new(Class::Transient, Landed::No);
pub const LOST: Verdict = Verdict::new(Class::Transient, Landed::Maybe);

/// A state in which Redis takes no writes, with what leads into it and out of it.
pub struct Refusing {
    pub code: &'static str,
    pub on: &'static str,
    pub off: &'static str,
}

pub const REFUSING: [Refusing; 4] = [
    Refusing {
        code: "READONLY",
        on: "REPLICAOF 127.0.0.1 1",
        off: "REPLICAOF NO ONE",
    },
    Refusing {
        code: "OOM",
        on: "CONFIG SET maxmemory 1",
        off: "CONFIG SET maxmemory 0",
    },
    Refusing {
        code: "NOREPLICAS",
        on: "CONFIG SET min-replicas-to-write 1",
        off: "CONFIG SET min-replicas-to-write 0",
    },
    Refusing {
        code: "MISCONF",
        on: "CONFIG SET stop-writes-on-bgsave-error yes",
        off: "CONFIG SET stop-writes-on-bgsave-error no",
    },
];

/// A server that can be talked into each of [`REFUSING`].
pub async fn server() -> RedisServer {
    let redis = RedisServer::builder()
        .durable()
        .arg("save", "3600 1000000")
        .arg("stop-writes-on-bgsave-error", "no")
        .arg("busy-reply-threshold", "20")
        .start()
        .await
        .expect("redis-server starts");
    // A snapshot cannot replace a directory, so the last one has failed for as long as it is there.
    std::fs::create_dir(redis.dir().join("data/dump.rdb")).unwrap();
    tell(&redis, "BGSAVE").await;
    wait_until("a snapshot that failed", PLENTY, || async {
        info(&redis, "persistence")
            .await
            .contains("rdb_last_bgsave_status:err")
    })
    .await
    .unwrap();
    redis
}

/// A server with these lines in its configuration, and nothing else.
pub async fn server_with(settings: &[(&str, &str)]) -> RedisServer {
    settings
        .iter()
        .fold(RedisServer::builder(), |builder, (name, value)| {
            builder.arg(*name, *value)
        })
        .start()
        .await
        .expect("redis-server starts")
}

pub async fn info(redis: &RedisServer, section: &str) -> String {
    redis
        .command(redis::cmd("INFO").arg(section))
        .await
        .unwrap()
}

/// Gives the server a command, past everything under test.
pub async fn tell(redis: &RedisServer, line: &str) {
    redis
        .command::<redis::Value>(&cmd(line))
        .await
        .unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// A command from the line that one would type.
pub fn cmd(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    cmd
}

pub fn call(line: &str) -> RedisCall {
    RedisCall::new("test", cmd(line))
}

/// MULTI, the commands, EXEC.
pub fn transaction(lines: &[&str]) -> RedisCall {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for line in lines {
        pipe.add_command(cmd(line));
    }
    RedisCall::new("test", pipe)
}

pub fn pipeline(lines: &[&str]) -> RedisCall {
    let mut pipe = redis::pipe();
    for line in lines {
        pipe.add_command(cmd(line));
    }
    RedisCall::new("test", pipe)
}

/// A script that does nothing but write.
pub fn script() -> RedisCall {
    const SOURCE: &str = "return redis.call('SET', KEYS[1], '1')";
    let mut evalsha = redis::cmd("EVALSHA");
    evalsha
        .arg(redis::Script::new(SOURCE).get_hash())
        .arg(1)
        .arg("written");
    RedisCall::new("test", ScriptCall::new(SOURCE, evalsha))
}

/// A connection that looks at the server only when it has a call to send.
pub async fn connection(url: &str) -> Connection {
    let connection = open(url, |options| options);
    connection.wait_ready(PLENTY).await.unwrap();
    connection
}

pub fn open(url: &str, change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Connection {
    let hour = Duration::from_secs(3600);
    let options = ConnectOptions::from_url(url)
        .unwrap()
        .with_response_timeout(PLENTY)
        .with_probe(hour, PLENTY);
    Connection::open(change(options)).unwrap()
}

pub async fn send(connection: &Connection, call: RedisCall) -> Result<Reply, Error> {
    connection.clone().oneshot(call).await
}

pub async fn refusal(connection: &Connection, call: RedisCall) -> Error {
    send(connection, call)
        .await
        .expect_err("it is to be refused")
}

/// The whole chain, as somebody would log it.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// A whole line and its spool's directory.
pub struct Line {
    pub seawall: Seawall,
    pub registry: prometheus::Registry,
    _dir: TempDir,
}

impl Line {
    pub async fn to(url: &str) -> Self {
        Self::with(url, |builder| builder).await
    }

    pub async fn with(url: &str, change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let builder = Seawall::builder(url, dir.path())
            .unwrap()
            .metrics(&registry);
        let seawall = change(builder).connect().await.unwrap();
        Self {
            seawall,
            registry,
            _dir: dir,
        }
    }

    /// Waits for a connection, so that what is refused from here on is refused by Redis.
    pub async fn connected(self) -> Self {
        self.is_up().await;
        self
    }

    pub async fn is_up(&self) {
        self.seawall.connection().wait_ready(PLENTY).await.unwrap();
    }

    /// Waits until calls get through again.
    pub async fn comes_back(&self) {
        let answered = || async { self.seawall.call(call("GET a")).await.is_ok() };
        wait_until("an answer", PLENTY, answered).await.unwrap();
    }

    /// Waits until all that was handed in is in Redis, or parked.
    pub async fn drained(&self) {
        tokio::time::timeout(PLENTY, self.seawall.flush())
            .await
            .unwrap_or_else(|_| panic!("not drained: {:?}", self.seawall.health()));
    }

    pub fn text(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }

    /// Whether the metrics have this sample.
    pub fn shows(&self, sample: &str) -> bool {
        self.text().lines().any(|line| line == sample)
    }

    pub async fn comes_to_show(&self, sample: &str) {
        wait_until(sample, PLENTY, || async { self.shows(sample) })
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
    }
}

/// The list `key`, from front to back.
pub async fn list(redis: &RedisServer, key: &str) -> Vec<String> {
    redis
        .command(redis::cmd("LRANGE").arg(key).arg(0).arg(-1))
        .await
        .unwrap()
}

pub fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

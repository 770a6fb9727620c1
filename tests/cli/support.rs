//! A spool to look at, and the command to look with.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use seawall::{
    Job, Seawall,
    chaos::RedisServer,
    sequence::{Command as RedisCommand, Write},
    spool::{
        Spoolable,
        stopped::{Record, Refusal, Stopped},
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Longer than anything here takes.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

pub(crate) const LANE: &str = "019a0000-0000-7000-8000-000000000001";
pub(crate) const OTHER: &str = "019a0000-0000-7000-8000-000000000002";

/// What the command has said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its only document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.all()))
    }

    /// Its lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn all(&self) -> String {
        format!("code {}\n{}\n{}", self.code, self.out, self.err)
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.all());
        assert!(!self.err.contains("panicked"), "{}", self.all());
        self
    }
}

/// `seawall spool <arguments>`, without the environment's settings.
pub(crate) fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command
        .arg("spool")
        .args(arguments)
        .env_remove("SEAWALL_SPOOL_DIR")
        .env_remove("SEAWALL_REDIS_URL")
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Said {
    said(command(arguments).spawn().unwrap()).await
}

pub(crate) async fn said(child: Child) -> Said {
    let output = tokio::time::timeout(PLENTY, child.wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory for spools and exports.
pub(crate) struct Scene(TempDir);

impl Scene {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As an argument.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// What an application leaves while Redis is away: `count` jobs, `queue-0`, `queue-1`, ..
pub(crate) async fn leave(dir: &Path, queue: &str, count: usize) {
    let app = Seawall::builder("redis://127.0.0.1:1", dir).unwrap();
    let app = app
        .spool(|options| options.with_spool_after(Duration::from_millis(1)))
        .connect()
        .await
        .unwrap();
    let jobs = (0..count).map(|number| Job::new(queue, format!("{queue}-{number}")));
    for receipt in app.enqueue_all(jobs).await {
        assert!(receipt.unwrap().is_spooled());
    }
    assert!(app.shutdown(Duration::ZERO).await.unwrap() >= count as u64);
}

/// An application that comes back, replays what is left, and ends.
pub(crate) async fn come_back(dir: &Path, redis: &RedisServer) {
    let app = Seawall::builder(&redis.url(), dir)
        .unwrap()
        .connect()
        .await
        .unwrap();
    tokio::time::timeout(PLENTY, app.flush()).await.unwrap();
    assert_eq!(app.shutdown(PLENTY).await.unwrap(), 0);
}

pub(crate) async fn list(redis: &RedisServer, key: &str) -> Vec<String> {
    let all = redis::cmd("LRANGE").arg(key).arg(0).arg(-1).to_owned();
    redis.command(&all).await.unwrap()
}

/// The jobs that [`leave`] leaves.
pub(crate) fn jobs(queue: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{queue}-{number}"))
        .collect()
}

/// A spool that is the same each time: a lane of five writes with a number missing, one of a single
/// write, and a parked one.
pub(crate) async fn fixed(dir: &Path) {
    let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let list = Some("elsewhere".into());
    let group = vec![
        RedisCommand::new("HSET")
            .arg("job:7")
            .arg("state")
            .arg("secret-state"),
        RedisCommand::new("RPUSH").arg("emails").arg("7"),
    ];
    let writes = [
        (3, Write::push_back("emails", "secret-3")),
        (
            4,
            Write::push("emails", list, seawall::sequence::Side::Front, "secret-4"),
        ),
        (5, Write::push_back("emails", "secret-5").with_expiry(soon)),
        (7, Write::group("emails", group)),
        (
            8,
            Write::push_back("emails", vec![0xff, 0xfe]).with_expiry(long_ago),
        ),
    ];
    let mut records: Vec<_> = writes
        .into_iter()
        .map(|(number, write)| record(LANE, number, &write))
        .collect();
    records.push(record(
        OTHER,
        1,
        &Write::push_back("re\x1b[31mports", "secret-r"),
    ));
    let mut parked = record(LANE, 2, &Write::push_back("emails", "secret-2"));
    parked.refusal = Some(Refusal {
        reason: "WRONGTYPE Operation against a key".into(),
        attempts: 1,
    });
    records.push(parked);
    of(dir, records).await;
}

/// A spool of these records.
pub(crate) async fn of(dir: &Path, records: Vec<Record>) {
    let count = records.len() as u64;
    let mut spool = Stopped::create(dir).await.unwrap();
    let restored = spool.restore(records).await.unwrap();
    assert_eq!((restored.written, restored.present), (count, 0));
    spool.close().await.unwrap();
}

pub(crate) fn record(lane: &str, number: u64, write: &Write) -> Record {
    let mut bytes = Vec::new();
    write.encode(&mut bytes);
    Record {
        lane: lane.parse().unwrap(),
        queue: write.queue().to_owned(),
        number,
        acknowledged: if lane == LANE { 2 } else { 0 },
        written: SystemTime::UNIX_EPOCH + Duration::from_millis(1_750_000_000_123),
        refusal: None,
        known_as: None,
        bytes: bytes.into(),
    }
}

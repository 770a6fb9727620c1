//! A queue on a real Redis: operations go to it through the whole line, and what workers do by other scripts is
//! done by hand.

use std::collections::{BTreeMap, BTreeSet};

use redis::FromRedisValue;
use seawall::{
    Seawall,
    chaos::RedisServer,
    job::{JobId, PROCEDURE},
    sequence::Write,
};
use tempfile::TempDir;

use crate::packed::{number, of_execution};

pub(crate) struct Queue {
    pub(crate) redis: RedisServer,
    pub(crate) seawall: Seawall,
    _dir: TempDir,
}

pub(crate) fn id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

/// One operation, as the script has it. One of an execution is of a job with the record `job`, a blank and the id;
/// `more` is its attempt, the worker and what [`of_execution`] tells. That of a new job is its record, and when it is
/// due.
pub(crate) fn operation(kind: &str, id: u8, more: &[&str]) -> Write {
    let job = self::id(id);
    let packed = match (kind, more) {
        ("A", [record, due]) => {
            let (due, record) = (number(due.as_bytes()), format!("{record:<9}"));
            [b"A", &job.as_bytes()[..], &due, record.as_bytes()].concat()
        }
        ("E" | "R" | "D" | "G", [attempt, token, parts @ ..]) => {
            let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
            let (born, run) = (format!("ob {id:<5}"), format!("{attempt} {token}"));
            of_execution(
                kind.as_bytes()[0],
                job.as_bytes(),
                born.as_bytes(),
                &run,
                &parts,
            )
        }
        _ => [kind.as_bytes(), job.as_bytes()].concat(),
    };
    Write::procedure("q", &PROCEDURE, packed)
}

/// What a queue holds, by the first byte of the jobs' ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) jobs: BTreeMap<u8, String>,
    pub(crate) ready: BTreeSet<u8>,
    pub(crate) later: BTreeMap<u8, i64>,
    pub(crate) running: BTreeMap<u8, String>,
    pub(crate) failures: BTreeMap<u8, String>,
    pub(crate) dead: BTreeMap<u8, i64>,
    pub(crate) results: BTreeMap<u8, String>,
}

impl Queue {
    pub(crate) async fn new() -> Self {
        let redis = RedisServer::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let builder = Seawall::builder(redis.url().as_str(), dir.path()).unwrap();
        let seawall = builder.connect().await.unwrap();
        Self {
            redis,
            seawall,
            _dir: dir,
        }
    }

    /// Hands all of it in at once, so that it travels in few batches.
    pub(crate) async fn apply(&self, operations: Vec<Write>) {
        for receipt in self.seawall.enqueue_all(operations).await {
            let _ = receipt.unwrap();
        }
        self.seawall.flush().await;
    }

    pub(crate) async fn tell<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        self.redis.command(command).await.unwrap()
    }

    pub(crate) async fn contents(&self) -> Contents {
        let texts = async |part: &str| -> BTreeMap<u8, String> {
            let all: Vec<(Vec<u8>, String)> = self.tell(redis::cmd("HGETALL").arg(key(part))).await;
            all.into_iter().map(|(id, text)| (id[0], text)).collect()
        };
        let scores = async |part: &str| -> BTreeMap<u8, i64> {
            let mut command = redis::cmd("ZRANGE");
            command.arg(key(part)).arg(0).arg(-1).arg("WITHSCORES");
            let all: Vec<(Vec<u8>, i64)> = self.tell(&command).await;
            all.into_iter().map(|(id, score)| (id[0], score)).collect()
        };
        let ready: Vec<Vec<u8>> = self
            .tell(redis::cmd("LRANGE").arg(key("ready")).arg(0).arg(-1))
            .await;
        Contents {
            jobs: texts("jobs")
                .await
                .into_iter()
                .map(|(id, record)| (id, record.trim_end().to_owned()))
                .collect(),
            ready: ready.into_iter().map(|id| id[0]).collect(),
            later: scores("later").await,
            running: texts("running").await,
            failures: texts("failures").await,
            dead: scores("dead").await,
            results: texts("results").await,
        }
    }
}

pub(crate) fn key(part: &str) -> String {
    format!("seawall:{{q}}:{part}")
}

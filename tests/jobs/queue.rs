//! A queue on a real Redis: operations go to it through the whole line, and what workers do by other scripts is
//! done by hand.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use redis::FromRedisValue;
use seawall::{
    Seawall,
    chaos::RedisServer,
    job::{JobId, PROCEDURE},
    sequence::Write,
};
use tempfile::TempDir;

pub(crate) struct Queue {
    pub(crate) redis: RedisServer,
    pub(crate) seawall: Seawall,
    _dir: TempDir,
}

pub(crate) fn id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

/// One operation, as the script has it. One of an execution is of a job with the record `job`, a blank and the id.
pub(crate) fn operation(kind: &str, id: u8, more: &[&str]) -> Write {
    let mut arguments = vec![
        Bytes::from(kind.to_owned()),
        Bytes::copy_from_slice(self::id(id).as_bytes()),
    ];
    let mut more = more;
    if let ("E" | "R" | "D" | "G", [attempt, token, rest @ ..]) = (kind, more) {
        arguments.push(Bytes::from(format!("{attempt} {token}")));
        arguments.push(Bytes::from(format!("ob {id}")));
        more = rest;
    }
    // What is not kept needs no time, and no result.
    if let ("E", [outcome, "0", ..]) = (kind, more) {
        arguments.push(Bytes::from((*outcome).to_owned()));
        more = &[];
    }
    arguments.extend(more.iter().map(|part| Bytes::from((*part).to_owned())));
    Write::procedure("q", &PROCEDURE, arguments)
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
            jobs: texts("jobs").await,
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

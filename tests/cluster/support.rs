//! What the tests of a cluster share.

use std::{
    ops::AsyncFnOnce,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use seawall::{
    Error, Job, RedisCall, Reply, Seawall,
    chaos::{Balance, Books, RedisCluster, wait_until},
    connect::{ConnectOptions, Connection},
    spool::Replay,
    stack::Builder,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// Ends a test that would hang; no test passes or fails by it otherwise.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

pub(crate) fn cmd(line: &str) -> redis::Cmd {
    let mut words = line.split_whitespace();
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    cmd
}

pub(crate) fn call(line: &str) -> RedisCall {
    RedisCall::new("test", cmd(line))
}

pub(crate) async fn send(connection: &Connection, call: RedisCall) -> Result<Reply, Error> {
    connection.clone().oneshot(call).await
}

pub(crate) async fn connection(url: &str) -> Connection {
    let options = ConnectOptions::from_url(url).unwrap();
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PLENTY).await.unwrap();
    connection
}

/// A whole line and its spool's directory.
pub(crate) struct Line {
    pub(crate) seawall: Seawall,
    _dir: TempDir,
}

impl Line {
    pub(crate) async fn to(cluster: &RedisCluster) -> Self {
        Self::with(cluster, |builder| builder).await
    }

    pub(crate) async fn with(
        cluster: &RedisCluster,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = Seawall::builder(&cluster.url(), dir.path())
            .unwrap()
            .spool(|spool| {
                let (first, longest) = (Duration::from_millis(10), Duration::from_millis(200));
                spool.with_replay(Replay::unpaced().with_delays(first, longest))
            });
        let seawall = change(builder).connect().await.unwrap();
        seawall.connection().wait_ready(PLENTY).await.unwrap();
        Self { seawall, _dir: dir }
    }

    /// Hands in the jobs of these numbers, one after the other.
    pub(crate) async fn enqueue(&self, queue: &str, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let job = Job::new(queue, number.to_string());
            let _receipt = self.seawall.enqueue(job).await.unwrap();
        }
    }

    /// Waits until all that was handed in is in Redis, or parked.
    pub(crate) async fn drained(&self) {
        tokio::time::timeout(PLENTY, self.seawall.flush())
            .await
            .unwrap_or_else(|_| panic!("not drained: {:?}", self.seawall.health()));
    }
}

/// The list `key`, from front to back.
pub(crate) async fn list(cluster: &RedisCluster, key: &str) -> Vec<u64> {
    let range = redis::cmd("LRANGE").arg(key).arg(0).arg(-1).to_owned();
    cluster.command(key, &range).await.unwrap()
}

/// One key on each node, in the order of the nodes' numbers.
pub(crate) async fn key_of_each(cluster: &RedisCluster, nodes: usize) -> Vec<String> {
    let mut keys = vec![None; nodes];
    for number in 0.. {
        let key = format!("k{number}");
        let owner = cluster.owner_of(&key).await.unwrap();
        keys[owner].get_or_insert(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    keys.into_iter().flatten().collect()
}

/// Waits until the replicas have all that their primaries have; no write may come meanwhile.
pub(crate) async fn replicated(cluster: &RedisCluster) {
    wait_until("replicas that have everything", PLENTY, || async {
        let mut heads = Vec::new();
        for node in cluster.nodes().iter().filter(|node| node.is_running()) {
            let Ok(info) = node.command::<String>(&cmd("INFO replication")).await else {
                return false;
            };
            let field = |name: &str| {
                let mut lines = info.lines();
                lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
            };
            let id = info.lines().find(|line| line.starts_with("master_replid:"));
            let id = id.map(str::to_owned);
            let offset = field("slave_repl_offset:").or_else(|| field("master_repl_offset:"));
            heads.push((id, offset));
        }
        // Each is there twice: at the primary and at its replica.
        heads.sort();
        heads.chunks(2).all(|pair| pair.first() == pair.last())
    })
    .await
    .unwrap();
}

/// Enqueues to `queues` for as long as `nemesis` is at work, drains, and makes up the balance of what
/// is in the lists then.
pub(crate) async fn under_load(
    cluster: &mut RedisCluster,
    line: &Line,
    queues: &[String],
    nemesis: impl AsyncFnOnce(&mut RedisCluster, &AtomicU64),
) -> Balance {
    let books = Books::new();
    let (at_work, accepted) = (AtomicBool::new(true), AtomicU64::new(0));
    let producers = join_all(queues.iter().map(|queue| {
        let (books, at_work, accepted) = (&books, &at_work, &accepted);
        async move {
            let mut number = 0_u64;
            while at_work.load(Relaxed) {
                books.attempt((queue, number));
                let job = Job::new(queue.as_str(), number.to_string());
                if line.seawall.enqueue(job).await.is_ok() {
                    books.acknowledge((queue, number));
                    accepted.fetch_add(1, Relaxed);
                }
                number += 1;
                // Thousands a second would only fill the lists.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }));
    let work = async {
        nemesis(cluster, &accepted).await;
        at_work.store(false, Relaxed);
    };
    futures_util::join!(producers, work);
    line.drained().await;
    cluster.wait_until_ok().await.unwrap();
    for queue in queues {
        for number in list(cluster, queue).await {
            books.deliver((queue, number));
        }
    }
    let balance = books.balance();
    assert_eq!(line.seawall.health().spool.parked, 0, "{balance}");
    balance
}

/// Waits until so many more have been accepted.
pub(crate) async fn more(accepted: &AtomicU64, count: u64) {
    let enough = accepted.load(Relaxed) + count;
    wait_until("more receipts", PLENTY, || async {
        accepted.load(Relaxed) >= enough
    })
    .await
    .unwrap();
}

pub(crate) fn clean(balance: &Balance) {
    assert!(
        balance.is_clean() && balance.acknowledged > 0 && balance.lost == 0,
        "{balance}"
    );
}

//! What the sentinels and the nodes say, and waiting until they say what is wanted.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue};
use tokio::time::timeout;

use super::SentinelSet;
use crate::chaos::{NotMet, RedisServer, wait_until};

impl SentinelSet {
    /// Which node a majority of all the sentinels takes for the primary, if there is one. A
    /// sentinel that is down or does not answer within a second has no say.
    ///
    /// # Cancel safety
    ///
    /// It only asks.
    pub async fn primary(&self) -> Option<usize> {
        let command = self.sentinel_command("GET-MASTER-ADDR-BY-NAME");
        let asked = self.sentinels().map(|sentinel| ask(sentinel, &command));
        let answers: Vec<Option<(String, u16)>> = join_all(asked).await;
        let addrs = self.node_addrs();
        addrs.iter().position(|addr| {
            let named = (addr.ip().to_string(), addr.port());
            let votes = answers.iter().flatten().filter(|answer| **answer == named);
            votes.count() > self.sentinels().len() / 2
        })
    }

    /// Waits, for up to a minute, until a majority of the sentinels names another primary and that
    /// node says so itself; returns which.
    ///
    /// # Errors
    ///
    /// [`NotMet`] after that minute.
    ///
    /// # Cancel safety
    ///
    /// It only asks.
    pub async fn wait_for_primary_other_than(&self, old: usize) -> Result<usize, NotMet> {
        self.wait_for("another primary", |primary| primary != old)
            .await
    }

    /// Waits, for up to a minute, until a majority of the sentinels names a primary and that node
    /// says so itself; returns which.
    ///
    /// # Errors
    ///
    /// [`NotMet`] after that minute.
    ///
    /// # Cancel safety
    ///
    /// It only asks.
    pub async fn wait_for_primary(&self) -> Result<usize, NotMet> {
        self.wait_for("a primary", |_| true).await
    }

    /// Waits, for up to a minute, until a failover could work, whoever the primary is: all
    /// processes run and answer, all replicas are in sync with the primary, and all sentinels
    /// know the primary, the replicas and each other.
    ///
    /// # Errors
    ///
    /// [`NotMet`] after that minute; it names what was missing last.
    ///
    /// # Cancel safety
    ///
    /// It only asks.
    pub async fn wait_until_healthy(&self) -> Result<(), NotMet> {
        let missing = Mutex::new(String::new());
        let healthy = wait_until("a healthy Sentinel set", PATIENCE, || async {
            let found = self.find_missing().await;
            let healthy = found.is_none();
            *missing.lock() = found.unwrap_or_default();
            healthy
        });
        healthy.await.map_err(|error| error.since(&missing.lock()))
    }

    /// Waits, for up to a minute, until every replica has what the primary has now.
    ///
    /// # Errors
    ///
    /// [`NotMet`] after that minute; it names what was missing last.
    ///
    /// # Cancel safety
    ///
    /// It only asks.
    pub async fn wait_until_replicated(&self) -> Result<(), NotMet> {
        let missing = Mutex::new(String::new());
        let replicated = wait_until("the replicas to catch up", PATIENCE, || async {
            let found = match self.primary().await {
                Some(primary) => self.find_lagging(primary).await,
                None => Some(NO_PRIMARY.to_owned()),
            };
            let replicated = found.is_none();
            *missing.lock() = found.unwrap_or_default();
            replicated
        });
        let replicated = replicated.await;
        replicated.map_err(|error| error.since(&missing.lock()))
    }

    /// Asks the sentinels for a failover (`SENTINEL FAILOVER`), one after the other and for up to
    /// a minute, until one agrees. It has begun then, not ended:
    /// [`wait_for_primary_other_than`](Self::wait_for_primary_other_than).
    ///
    /// # Errors
    ///
    /// [`NotMet`] after that minute.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the failover may have begun or not.
    pub async fn failover(&self) -> Result<(), NotMet> {
        let command = self.sentinel_command("FAILOVER");
        wait_until("a sentinel to begin a failover", PATIENCE, || async {
            for sentinel in self.sentinels() {
                if ask::<()>(sentinel, &command).await.is_some() {
                    return true;
                }
            }
            false
        })
        .await
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(usize) -> bool) -> Result<usize, NotMet> {
        let found = OnceLock::new();
        wait_until(what, PATIENCE, || async {
            let Some(primary) = self.primary().await.filter(|primary| wanted(*primary)) else {
                return false;
            };
            let said = self.replication(primary).await;
            said.get("role").is_some_and(|role| role == "master") && found.set(primary).is_ok()
        })
        .await?;
        Ok(*found.get().expect("it was found, or the wait is an error"))
    }

    /// What keeps the set from being healthy.
    async fn find_missing(&self) -> Option<String> {
        let down = |server: &RedisServer| !server.is_running();
        if let Some(node) = self.nodes().position(down) {
            return Some(format!("node {node} is down"));
        }
        if let Some(sentinel) = self.sentinels().position(down) {
            return Some(format!("sentinel {sentinel} is down"));
        }
        let Some(primary) = self.primary().await else {
            return Some(NO_PRIMARY.to_owned());
        };
        if let Some(lagging) = self.find_lagging(primary).await {
            return Some(lagging);
        }
        let views = self.sentinels().enumerate();
        let views = views.map(|(number, sentinel)| self.find_unknown(primary, number, sentinel));
        join_all(views).await.into_iter().flatten().next()
    }

    /// What a sentinel does not know, or does not take for well.
    async fn find_unknown(
        &self,
        primary: usize,
        number: usize,
        sentinel: &RedisServer,
    ) -> Option<String> {
        let [master, replicas, sentinels] =
            ["MASTER", "REPLICAS", "SENTINELS"].map(|of| self.sentinel_command(of));
        let (master, replicas, sentinels) = tokio::join!(
            ask::<Fields>(sentinel, &master),
            ask::<Vec<Fields>>(sentinel, &replicas),
            ask::<Vec<Fields>>(sentinel, &sentinels),
        );
        let unknown = |what: &str| Some(format!("sentinel {number} does not see {what}"));
        let knows = |fields: &Fields, node: usize, flags: &str| {
            let addr = self.nodes[node].addr();
            fields.get("ip") == Some(&addr.ip().to_string())
                && fields.get("port") == Some(&addr.port().to_string())
                && fields.get("flags").is_some_and(|seen| seen == flags)
        };
        if !master.is_some_and(|master| knows(&master, primary, "master")) {
            return unknown(&format!("the primary, node {primary}"));
        }
        let replicas = replicas.unwrap_or_default();
        for node in (0..self.nodes.len()).filter(|node| *node != primary) {
            let linked = |seen: &&Fields| {
                seen.get("master-link-status")
                    .is_some_and(|link| link == "ok")
            };
            let mut of_it = replicas.iter().filter(|seen| knows(seen, node, "slave"));
            if !of_it.any(|seen| linked(&seen)) {
                return unknown(&format!("replica {node}"));
            }
        }
        let sound = |seen: &&Fields| seen.get("flags").is_some_and(|seen| seen == "sentinel");
        let others = sentinels.unwrap_or_default().iter().filter(sound).count();
        if others + 1 < self.sentinels.len() {
            return unknown("all other sentinels");
        }
        None
    }

    /// Which replica has not what the primary had when this was asked.
    async fn find_lagging(&self, primary: usize) -> Option<String> {
        let said = self.replication(primary).await;
        let addr = self.nodes[primary].addr();
        let offset = |of: &Fields, name: &str| of.get(name).and_then(|text| text.parse().ok());
        let Some(written) = offset(&said, "master_repl_offset") else {
            return Some(format!("the primary, node {primary}, does not answer"));
        };
        if said.get("role").is_none_or(|role| role != "master") {
            return Some(format!("node {primary} takes itself for a replica"));
        }
        let others = (0..self.nodes.len()).filter(|node| *node != primary);
        let others: Vec<usize> = others.collect();
        let all = join_all(others.iter().map(|node| self.replication(*node))).await;
        for (node, seen) in others.iter().zip(&all) {
            let is = |name: &str, wanted: &str| seen.get(name).is_some_and(|got| got == wanted);
            let follows = is("role", "slave")
                && is("master_host", &addr.ip().to_string())
                && is("master_port", &addr.port().to_string());
            if !follows {
                return Some(format!("node {node} does not follow node {primary}"));
            }
            let read: Option<u64> = offset(seen, "slave_repl_offset");
            if !is("master_link_status", "up") || read < Some(written) {
                return Some(format!("replica {node} is behind"));
            }
        }
        let listed = said.keys().filter(|name| {
            name.strip_prefix("slave")
                .is_some_and(|number| number.parse::<u32>().is_ok())
        });
        let online = listed.filter(|name| said[*name].contains("state=online"));
        (online.count() < others.len()).then(|| format!("node {primary} lacks a replica"))
    }

    /// The lines of `INFO replication` of a node, empty if it does not answer.
    pub(super) async fn replication(&self, node: usize) -> Fields {
        let command = redis::cmd("INFO").arg("replication").to_owned();
        let text: Option<String> = ask(self.node(node), &command).await;
        let lines = text.iter().flat_map(|text| text.lines());
        lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
            .collect()
    }

    fn sentinel_command(&self, subcommand: &str) -> Cmd {
        redis::cmd("SENTINEL")
            .arg(subcommand)
            .arg(&self.name)
            .to_owned()
    }
}

type Fields = HashMap<String, String>;

const NO_PRIMARY: &str = "no majority of the sentinels names a primary";

/// As long as anything here is awaited.
const PATIENCE: Duration = Duration::from_secs(60);

/// `None` for an error, or if it takes longer than a second.
async fn ask<T: FromRedisValue>(server: &RedisServer, command: &Cmd) -> Option<T> {
    let asked = timeout(Duration::from_secs(1), server.command(command)).await;
    asked.ok()?.ok()
}

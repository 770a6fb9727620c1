//! The connection behind real sentinels: failovers of every kind, and sentinels that are down, frozen,
//! wrong or lying.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod failover;
mod fake;
mod finding;
mod login;
mod replicas;

use std::time::Duration;

use prometheus::Registry;
use redis::{Cmd, cmd};
use seawall::{
    Error, RedisCall,
    call::Repeat,
    chaos::{SentinelSet, wait_until},
    connect::{ConnectOptions, Connection, Status},
    metrics::Metrics,
};
use tower::ServiceExt;

/// Longer than anything here takes, so a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// So rare that it does not happen in a test.
const NEVER: Duration = Duration::from_secs(3600);

/// A connection whose metrics can be read.
struct Client {
    connection: Connection,
    registry: Registry,
}

impl Client {
    fn open(options: ConnectOptions) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let connection = Connection::open(options.with_metrics(metrics.connect)).unwrap();
        Self {
            connection,
            registry,
        }
    }

    async fn ready(options: ConnectOptions) -> Self {
        let client = Self::open(options);
        client.connection.wait_ready(PATIENCE).await.unwrap();
        client
    }

    async fn of(set: &SentinelSet) -> Self {
        Self::ready(ConnectOptions::from_url(&set.url()).unwrap()).await
    }

    async fn send(&self, command: &Cmd) -> Result<seawall::Reply, Error> {
        let call = RedisCall::new("test", command.clone()).with_repeat(Repeat::Safe);
        self.connection.clone().oneshot(call).await
    }

    async fn write(&self, number: u64) -> Result<(), Error> {
        self.send(cmd("SET").arg("k").arg(number)).await.map(drop)
    }

    /// Writes until it works.
    async fn write_again(&self) {
        wait_until("a write to work", PATIENCE, || async {
            self.write(1).await.is_ok()
        })
        .await
        .unwrap();
    }

    /// The port of the server that answers.
    async fn port(&self) -> u16 {
        let reply = self
            .send(cmd("CONFIG").arg("GET").arg("port"))
            .await
            .unwrap();
        let (_, port): (String, u16) = reply.decode().unwrap();
        port
    }

    async fn seen(&self, met: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.connection.status();
        let seen = tokio::time::timeout(PATIENCE, status.wait_for(met)).await;
        *seen.expect("it comes to that").unwrap()
    }

    fn status(&self) -> Status {
        *self.connection.status().borrow()
    }

    /// A sample's value; `label` is that of the only label there is, if there is one.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let family = family.unwrap_or_else(|| panic!("no {name}"));
        let of_label = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().all(|pair| pair.value() == label)
        };
        let found: Vec<_> = family.get_metric().iter().filter(of_label).collect();
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        found.into_iter().map(value).sum()
    }

    async fn counted(&self, name: &str, label: &str, least: f64) {
        wait_until(name, PATIENCE, || async {
            self.metric(name, label) >= least
        })
        .await
        .unwrap();
    }
}

fn options(url: &str) -> ConnectOptions {
    ConnectOptions::from_url(url).unwrap()
}

/// The URL of these sentinels.
fn url(sentinels: &[std::net::SocketAddr], rest: &str) -> String {
    let hosts: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
    format!("redis+sentinel://{}/{rest}", hosts.join(","))
}

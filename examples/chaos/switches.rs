//! When the sentinels announced another primary, and how soon the producers had an answer from it.

use std::{net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use seawall::{chaos::SentinelSet, error::BoxError};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::journal::now_us;

/// Listens to all sentinels until it is dropped.
pub(crate) struct Switches {
    seen: watch::Sender<Vec<Switch>>,
    _listening: JoinSet<()>,
}

/// A new primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    /// When the first sentinel said so.
    pub(crate) at_us: u64,
    /// Where its server listens itself.
    pub(crate) port: u16,
}

impl Switches {
    pub(crate) async fn watch(set: &SentinelSet) -> Result<Self, BoxError> {
        let ports: Vec<(SocketAddr, u16)> = set
            .node_addrs()
            .into_iter()
            .zip(set.nodes().map(|node| node.port()))
            .collect();
        let seen = watch::Sender::default();
        let mut listening = JoinSet::new();
        for sentinel in set.sentinels() {
            let client = redis::Client::open(sentinel.url())?;
            listening.spawn(listen(client, ports.clone(), seen.clone()));
        }
        Ok(Self {
            seen,
            _listening: listening,
        })
    }

    pub(crate) fn seen(&self) -> Vec<Switch> {
        self.seen.borrow().clone()
    }

    /// Waits for the one after the first `count`.
    pub(crate) async fn after(&self, count: usize) -> Result<Switch, BoxError> {
        let mut seen = self.seen.subscribe();
        let seen = seen.wait_for(|seen| seen.len() > count);
        Ok(timeout(PATIENCE, seen).await??[count])
    }
}

/// For ever: a sentinel that is killed comes back.
async fn listen(
    client: redis::Client,
    ports: Vec<(SocketAddr, u16)>,
    seen: watch::Sender<Vec<Switch>>,
) {
    loop {
        if let Ok(mut events) = client.get_async_pubsub().await
            && events.subscribe("+switch-master").await.is_ok()
        {
            let mut events = events.into_on_message();
            while let Some(event) = events.next().await {
                let at_us = now_us();
                let text: String = event.get_payload().unwrap_or_default();
                let port = new_primary(&text).and_then(|addr| {
                    let known = ports.iter().find(|(announced, _)| *announced == addr);
                    known.map(|(_, port)| *port)
                });
                let Some(port) = port else {
                    continue;
                };
                seen.send_if_modified(|seen| {
                    // The others say the same a little later.
                    let news = seen.last().is_none_or(|last| last.port != port);
                    if news {
                        seen.push(Switch { at_us, port });
                    }
                    news
                });
            }
        }
        sleep(AGAIN).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(20);

/// `<name> <old address> <old port> <new address> <new port>`.
fn new_primary(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ').skip(3);
    let (host, port) = (words.next()?, words.next()?);
    Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
}

/// From each switch to each producer's first answer from the new primary, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delays {
    sorted: Vec<Duration>,
    /// Switches after which a producer had no answer from that primary before the next one.
    pub(crate) none: usize,
}

impl Delays {
    /// `successes` are those of one producer, as [`Entry::Success`](crate::journal::Entry::Success) has
    /// them.
    pub(crate) fn of(switches: &[Switch], successes: &[(u64, u16)]) -> Self {
        let mut delays = Self::default();
        for (number, Switch { at_us, port }) in switches.iter().enumerate() {
            let next = switches.get(number + 1).map_or(u64::MAX, |next| next.at_us);
            let before = successes.iter().rev().find(|(at, _)| at < at_us);
            let after = successes
                .iter()
                .find(|(at, served_by)| (*at_us..next).contains(at) && served_by == port);
            if before.is_some_and(|(_, served_by)| served_by == port) {
                // It had found out before it was announced.
                delays.sorted.push(Duration::ZERO);
            } else if let Some((at, _)) = after {
                delays.sorted.push(Duration::from_micros(at - at_us));
            } else {
                delays.none += 1;
            }
        }
        delays.sorted.sort_unstable();
        delays
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sorted.extend(other.sorted);
        self.sorted.sort_unstable();
        self.none += other.none;
    }

    fn at(&self, share: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        let at = (last as f64 * share).ceil() as usize;
        self.sorted.get(at).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Delays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |share: f64| self.at(share).as_secs_f64() * 1e3;
        write!(
            f,
            "n={} p50={:.1} ms p90={:.1} ms p99={:.1} ms max={:.1} ms none={}",
            self.sorted.len(),
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(1.0),
            self.none
        )
    }
}

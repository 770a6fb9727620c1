//! The Redis under attack, of one topology or another.

use std::{collections::BTreeMap, sync::Arc};

use clap::ValueEnum;
use redis::aio::MultiplexedConnection;
use seawall::{
    chaos::{
        Attack, AttackError, ProxiedServer, RedisCluster, RedisServer, SentinelSet, Strike, Target,
    },
    error::BoxError,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    produce::Level,
    switches::{Switch, Switches},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    Standalone,
    Sentinel,
    Cluster,
}

pub(crate) enum World {
    Standalone(ProxiedServer),
    Sentinel(SentinelSet, Switches),
    Cluster(RedisCluster),
}

impl Topology {
    pub(crate) const ALL: [Self; 3] = [Self::Standalone, Self::Sentinel, Self::Cluster];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }

    /// The levels of acknowledgement that there can be.
    pub(crate) fn levels(self) -> &'static [Level] {
        match self {
            Self::Standalone => &Level::ALONE,
            Self::Sentinel | Self::Cluster => &Level::ALL,
        }
    }

    /// Whether a failover may lose what was acknowledged.
    pub(crate) fn loses_writes(self) -> bool {
        self != Self::Standalone
    }
}

impl World {
    /// Each server writes to disk before it acknowledges: what is lost is lost by failovers.
    pub(crate) async fn start(topology: Topology) -> Result<Self, BoxError> {
        Ok(match topology {
            Topology::Standalone => {
                Self::Standalone(ProxiedServer::start(RedisServer::builder().durable()).await?)
            }
            Topology::Sentinel => {
                let set = SentinelSet::builder().durable().proxied().start().await?;
                let switches = Switches::watch(&set).await?;
                Self::Sentinel(set, switches)
            }
            Topology::Cluster => Self::Cluster(RedisCluster::builder().durable().start().await?),
        })
    }

    /// As a client is given it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Standalone(server) => server.url(),
            Self::Sentinel(set, _) => set.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// The list at `key`, where it is now, without taking anything out of it.
    pub(crate) async fn list(&self, key: &str) -> Result<Vec<Vec<u8>>, BoxError> {
        let server = match self {
            Self::Standalone(server) => server.server(),
            Self::Sentinel(set, _) => {
                let primary = set.primary().await;
                set.node(primary.ok_or("no majority of the sentinels names a primary")?)
            }
            Self::Cluster(cluster) => cluster.node(cluster.owner_of(key).await?),
        };
        pages(server.connection().await?, key).await
    }

    /// When there was a new primary, as far as somebody announces it.
    pub(crate) fn switches(&self) -> Vec<Switch> {
        match self {
            Self::Sentinel(_, switches) => switches.seen(),
            Self::Standalone(_) | Self::Cluster(_) => Vec::new(),
        }
    }
}

impl Target for World {
    fn attacks(&self) -> Vec<Attack> {
        match self {
            Self::Standalone(server) => server.attacks(),
            Self::Sentinel(set, _) => set.attacks(),
            Self::Cluster(cluster) => cluster.attacks(),
        }
    }

    async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
        match self {
            Self::Standalone(server) => server.strike(strike).await,
            Self::Sentinel(set, _) => set.strike(strike).await,
            Self::Cluster(cluster) => cluster.strike(strike).await,
        }
    }

    async fn recover(&mut self) -> Result<(), AttackError> {
        match self {
            Self::Standalone(server) => server.recover().await,
            Self::Sentinel(set, _) => set.recover().await,
            Self::Cluster(cluster) => cluster.recover().await,
        }
    }
}

/// A target that takes the calm away while it is attacked, and counts the attacks.
pub(crate) struct Disturbing<'a> {
    world: &'a mut World,
    calm: Arc<Mutex<()>>,
    disturbed: Option<OwnedMutexGuard<()>>,
    pub(crate) attacks: BTreeMap<&'static str, u32>,
}

impl<'a> Disturbing<'a> {
    pub(crate) fn new(world: &'a mut World, calm: Arc<Mutex<()>>) -> Self {
        Self {
            world,
            calm,
            disturbed: None,
            attacks: BTreeMap::new(),
        }
    }
}

impl Target for Disturbing<'_> {
    fn attacks(&self) -> Vec<Attack> {
        self.world.attacks()
    }

    async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
        self.disturbed = Some(self.calm.clone().lock_owned().await);
        *self.attacks.entry(strike.attack.name()).or_default() += 1;
        self.world.strike(strike).await
    }

    async fn recover(&mut self) -> Result<(), AttackError> {
        self.world.recover().await?;
        self.disturbed = None;
        Ok(())
    }
}

async fn pages(mut redis: MultiplexedConnection, key: &str) -> Result<Vec<Vec<u8>>, BoxError> {
    let mut list = Vec::new();
    loop {
        let start = list.len();
        let mut range = redis::cmd("LRANGE");
        range.arg(key).arg(start).arg(start + PAGE - 1);
        let page: Vec<Vec<u8>> = range.query_async(&mut redis).await?;
        list.extend_from_slice(&page);
        if page.len() < PAGE {
            return Ok(list);
        }
    }
}

const PAGE: usize = 5_000;

//! The Redis under attack, of one topology or another.

use clap::ValueEnum;
use rand::rngs::StdRng;
use redis::aio::MultiplexedConnection;
use seawall::error::BoxError;

use crate::{cluster::Cluster, sentinel::Sentinel, standalone::Standalone, switches::Switch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    Standalone,
    Sentinel,
    Cluster,
}

pub(crate) enum World {
    Standalone(Standalone),
    Sentinel(Sentinel),
    Cluster(Cluster),
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

    /// Whether a failover may lose what was acknowledged.
    pub(crate) fn loses_writes(self) -> bool {
        self != Self::Standalone
    }
}

impl World {
    pub(crate) async fn start(topology: Topology) -> Result<Self, BoxError> {
        Ok(match topology {
            Topology::Standalone => Self::Standalone(Standalone::start().await?),
            Topology::Sentinel => Self::Sentinel(Sentinel::start().await?),
            Topology::Cluster => Self::Cluster(Cluster::start().await?),
        })
    }

    /// As a client is given it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Standalone(standalone) => standalone.url(),
            Self::Sentinel(sentinel) => sentinel.set.url(),
            Self::Cluster(cluster) => cluster.cluster.url(),
        }
    }

    /// Carries out one attack on who has these keys, to its end, and says which.
    pub(crate) async fn strike(
        &mut self,
        dice: &mut StdRng,
        keys: &[String],
    ) -> Result<&'static str, BoxError> {
        match self {
            Self::Standalone(standalone) => standalone.strike(dice).await,
            Self::Sentinel(sentinel) => sentinel.strike(dice).await,
            Self::Cluster(cluster) => cluster.strike(dice, keys).await,
        }
    }

    /// The list at `key`, where it is now, without taking anything out of it.
    pub(crate) async fn list(&self, key: &str) -> Result<Vec<Vec<u8>>, BoxError> {
        let server = match self {
            Self::Standalone(standalone) => &standalone.redis,
            Self::Sentinel(sentinel) => sentinel.set.node(sentinel.primary().await?),
            Self::Cluster(Cluster { cluster, .. }) => cluster.node(cluster.owner_of(key).await?),
        };
        pages(server.connection().await?, key).await
    }

    /// When there was a new primary, as far as somebody announces it.
    pub(crate) fn switches(&self) -> Vec<Switch> {
        match self {
            Self::Sentinel(sentinel) => sentinel.switches.seen(),
            Self::Standalone(_) | Self::Cluster(_) => Vec::new(),
        }
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

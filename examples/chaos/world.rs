//! The Redis under attack, of one topology or another.

use clap::ValueEnum;
use rand::rngs::StdRng;
use redis::aio::MultiplexedConnection;
use seawall::error::BoxError;

use crate::standalone::Standalone;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    Standalone,
}

pub(crate) enum World {
    Standalone(Standalone),
}

impl Topology {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
        }
    }
}

impl World {
    pub(crate) async fn start(topology: Topology) -> Result<Self, BoxError> {
        Ok(match topology {
            Topology::Standalone => Self::Standalone(Standalone::start().await?),
        })
    }

    /// As a client is given it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Standalone(standalone) => standalone.url(),
        }
    }

    /// Carries out one attack to its end, and says which.
    pub(crate) async fn strike(&mut self, dice: &mut StdRng) -> Result<&'static str, BoxError> {
        match self {
            Self::Standalone(standalone) => standalone.strike(dice).await,
        }
    }

    /// Ends all faults, and waits until everybody is back.
    pub(crate) async fn heal(&mut self) -> Result<(), BoxError> {
        match self {
            Self::Standalone(standalone) => standalone.heal(),
        }
        Ok(())
    }

    /// The list at `key`, where it is now, without taking anything out of it.
    pub(crate) async fn list(&self, key: &str) -> Result<Vec<Vec<u8>>, BoxError> {
        match self {
            Self::Standalone(standalone) => pages(standalone.redis.connection().await?, key).await,
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

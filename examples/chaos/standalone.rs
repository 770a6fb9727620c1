//! One durable Redis behind a proxy, and what is done to it.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use seawall::{
    chaos::{Fault, FaultProxy, RedisServer},
    error::BoxError,
};
use tokio::time::sleep;

pub(crate) struct Standalone {
    pub(crate) redis: RedisServer,
    proxy: FaultProxy,
    /// What is still to come before any comes again.
    bag: Vec<Attack>,
}

#[derive(Clone, Copy, Debug)]
enum Attack {
    Kill,
    Freeze,
    Network(&'static str, Fault),
}

impl Standalone {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let redis = RedisServer::builder().durable().start().await?;
        let proxy = FaultProxy::start(redis.addr()).await?;
        Ok(Self {
            redis,
            proxy,
            bag: Vec::new(),
        })
    }

    pub(crate) fn url(&self) -> String {
        self.proxy.url()
    }

    /// Carries out one attack to its end, and says which.
    pub(crate) async fn strike(&mut self, dice: &mut StdRng) -> Result<&'static str, BoxError> {
        if self.bag.is_empty() {
            self.bag = attacks(dice);
        }
        let Some(attack) = self.bag.pop() else {
            return Ok("none");
        };
        let lasts = Duration::from_millis(dice.random_range(20..1_500));
        match attack {
            Attack::Kill => {
                self.redis.kill().await?;
                sleep(lasts).await;
                self.redis.restart().await?;
                Ok("kill")
            }
            Attack::Freeze => {
                self.redis.freeze().await?;
                sleep(lasts).await;
                self.redis.thaw()?;
                Ok("freeze")
            }
            Attack::Network(name, fault) => {
                self.proxy.set(fault);
                sleep(lasts).await;
                self.proxy.heal();
                Ok(name)
            }
        }
    }
}

fn attacks(dice: &mut StdRng) -> Vec<Attack> {
    let network = |name, fault| Attack::Network(name, fault);
    let mut attacks = vec![
        Attack::Kill,
        Attack::Kill,
        Attack::Freeze,
        network("refuse", Fault::Refuse),
        network("reset", Fault::Reset),
        network("black_hole", Fault::BlackHole),
        network("silence_old", Fault::SilenceOld),
        network("drop_replies", Fault::DropReplies),
        network("drop_one_reply", Fault::DropNextReply),
        network(
            "cut_request",
            Fault::CutRequestAfter(dice.random_range(0..20_000)),
        ),
        network(
            "latency",
            Fault::Latency(Duration::from_millis(dice.random_range(1..300))),
        ),
    ];
    attacks.shuffle(dice);
    attacks
}

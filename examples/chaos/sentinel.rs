//! A primary, its replicas and their sentinels, and what is done to them.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use seawall::{chaos::SentinelSet, error::BoxError};
use tokio::time::sleep;

use crate::switches::Switches;

pub(crate) struct Sentinel {
    pub(crate) set: SentinelSet,
    pub(crate) switches: Switches,
    /// What is still to come before any comes again.
    bag: Vec<Attack>,
}

#[derive(Clone, Copy, Debug)]
enum Attack {
    KillPrimary,
    /// Started again before anybody takes over, or not.
    RestartPrimary,
    FreezePrimary,
    Failover,
    /// The primary alone acknowledges what no replica gets, and is killed.
    CutReplicasAndKill,
    RestartReplica,
    RestartSentinel,
    FreezeSentinel,
    KillAllSentinels,
    ResetClients,
}

impl Sentinel {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let set = SentinelSet::builder().durable().proxied().start().await?;
        let switches = Switches::watch(&set).await?;
        Ok(Self {
            set,
            switches,
            bag: Vec::new(),
        })
    }

    /// Carries out one attack, heals, and says which it was.
    pub(crate) async fn strike(&mut self, dice: &mut StdRng) -> Result<&'static str, BoxError> {
        if self.bag.is_empty() {
            self.bag = attacks(dice);
        }
        let lasts = Duration::from_millis(dice.random_range(20..1_500));
        let replica = dice.random_range(1..self.set.nodes().len());
        let sentinel = dice.random_range(0..self.set.sentinels().len());
        let primary = self.primary().await?;
        let replica = (primary + replica) % self.set.nodes().len();
        let name = match self.bag.pop() {
            Some(Attack::KillPrimary) => {
                self.kill().await?;
                "kill"
            }
            Some(Attack::RestartPrimary) => {
                self.set.node_mut(primary).kill().await?;
                sleep(lasts).await;
                "kill_and_restart"
            }
            Some(Attack::FreezePrimary) => {
                self.set.node(primary).freeze().await?;
                // From shorter than anybody notices to longer than a failover takes.
                sleep(lasts * 3).await;
                "freeze"
            }
            Some(Attack::Failover) => {
                self.failover().await?;
                "failover"
            }
            Some(Attack::CutReplicasAndKill) => {
                self.set.cut_replication(primary);
                sleep(lasts).await;
                self.kill().await?;
                "cut_replicas_and_kill"
            }
            Some(Attack::RestartReplica) => {
                self.set.node_mut(replica).kill().await?;
                sleep(lasts).await;
                "restart_replica"
            }
            Some(Attack::RestartSentinel) => {
                self.set.sentinel_mut(sentinel).kill().await?;
                sleep(lasts).await;
                "restart_sentinel"
            }
            Some(Attack::FreezeSentinel) => {
                self.set.sentinel(sentinel).freeze().await?;
                sleep(lasts).await;
                "freeze_sentinel"
            }
            Some(Attack::KillAllSentinels) => {
                let sentinels = self.set.sentinels().len();
                for sentinel in 0..sentinels {
                    self.set.sentinel_mut(sentinel).kill().await?;
                }
                sleep(lasts).await;
                "kill_all_sentinels"
            }
            Some(Attack::ResetClients) => {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL").arg("TYPE").arg("normal");
                self.set.node(primary).command::<()>(&kill).await?;
                "reset"
            }
            None => "none",
        };
        self.heal().await?;
        Ok(name)
    }

    pub(crate) async fn heal(&mut self) -> Result<(), BoxError> {
        self.set.heal();
        self.set.revive().await?;
        Ok(self.set.wait_until_healthy().await?)
    }

    /// Kills the primary, and waits until another one serves.
    pub(crate) async fn kill(&mut self) -> Result<(), BoxError> {
        let old = self.set.kill_primary().await?;
        self.set.wait_for_primary_other_than(old).await?;
        Ok(())
    }

    /// A failover by command, to its end.
    pub(crate) async fn failover(&self) -> Result<(), BoxError> {
        let old = self.primary().await?;
        self.set.failover().await?;
        self.set.wait_for_primary_other_than(old).await?;
        Ok(())
    }

    pub(crate) async fn primary(&self) -> Result<usize, BoxError> {
        let primary = self.set.primary().await;
        primary.ok_or_else(|| "no majority of the sentinels names a primary".into())
    }
}

fn attacks(dice: &mut StdRng) -> Vec<Attack> {
    let mut attacks = vec![
        Attack::KillPrimary,
        Attack::RestartPrimary,
        Attack::FreezePrimary,
        Attack::Failover,
        Attack::CutReplicasAndKill,
        Attack::CutReplicasAndKill,
        Attack::RestartReplica,
        Attack::RestartSentinel,
        Attack::FreezeSentinel,
        Attack::KillAllSentinels,
        Attack::ResetClients,
    ];
    attacks.shuffle(dice);
    attacks
}

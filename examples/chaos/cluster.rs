//! A Redis Cluster, and what is done to it.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use seawall::{
    chaos::{RedisCluster, wait_until},
    error::BoxError,
};
use tokio::time::sleep;

use crate::replication;

pub(crate) struct Cluster {
    pub(crate) cluster: RedisCluster,
    /// What is still to come before any comes again.
    bag: Vec<Attack>,
}

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// The primary of some slots, until its replica has taken over.
    KillPrimary,
    /// Started again before anybody takes over, or not.
    RestartPrimary,
    FreezePrimary,
    Failover,
    /// A primary alone acknowledges what its replica does not get, and is killed.
    CutReplicaAndKill,
    RestartReplica,
    /// A queue's slot goes to another primary, in steps.
    MoveSlot,
    ResetClients,
}

impl Cluster {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let cluster = RedisCluster::builder().durable().start().await?;
        Ok(Self {
            cluster,
            bag: Vec::new(),
        })
    }

    /// Carries out one attack on who serves one of the keys, heals, and says which it was.
    pub(crate) async fn strike(
        &mut self,
        dice: &mut StdRng,
        keys: &[String],
    ) -> Result<&'static str, BoxError> {
        if self.bag.is_empty() {
            self.bag = attacks(dice);
        }
        let key = &keys[dice.random_range(0..keys.len())];
        let primary = self.cluster.owner_of(key).await?;
        let lasts = Duration::from_millis(dice.random_range(20..1_500));
        let name = match self.bag.pop() {
            Some(Attack::KillPrimary) => {
                self.kill(key, primary).await?;
                "kill"
            }
            Some(Attack::RestartPrimary) => {
                self.cluster.kill(primary).await?;
                sleep(lasts).await;
                "kill_and_restart"
            }
            Some(Attack::FreezePrimary) => {
                self.cluster.freeze(primary).await?;
                // From shorter than anybody notices to longer than a failover takes.
                sleep(lasts * 3).await;
                self.cluster.thaw(primary)?;
                "freeze"
            }
            Some(Attack::Failover) => {
                let replica = self.cluster.replica_of(primary).await?;
                self.cluster.failover(replica).await?;
                "failover"
            }
            Some(Attack::CutReplicaAndKill) => {
                let replica = self.cluster.replica_of(primary).await?;
                replication::cut(self.cluster.node(primary), [self.cluster.node(replica)]).await?;
                sleep(lasts).await;
                self.kill(key, primary).await?;
                replication::mend([self.cluster.node(replica)]).await?;
                "cut_replica_and_kill"
            }
            Some(Attack::RestartReplica) => {
                let replica = self.cluster.replica_of(primary).await?;
                self.cluster.kill(replica).await?;
                sleep(lasts).await;
                "restart_replica"
            }
            Some(Attack::MoveSlot) => {
                self.move_slot(dice, key, primary).await?;
                "move_slot"
            }
            Some(Attack::ResetClients) => {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL").arg("TYPE").arg("normal");
                self.cluster.node(primary).command::<()>(&kill).await?;
                "reset"
            }
            None => "none",
        };
        self.heal().await?;
        Ok(name)
    }

    pub(crate) async fn heal(&mut self) -> Result<(), BoxError> {
        for node in 0..self.cluster.nodes().len() {
            if !self.cluster.node(node).is_running() {
                self.cluster.restart(node).await?;
            }
        }
        Ok(self.cluster.wait_until_ok().await?)
    }

    async fn kill(&mut self, key: &str, primary: usize) -> Result<(), BoxError> {
        self.cluster.kill(primary).await?;
        wait_until("another primary", PATIENCE, || async {
            self.cluster
                .owner_of(key)
                .await
                .is_ok_and(|owner| owner != primary)
        })
        .await?;
        Ok(())
    }

    async fn move_slot(&self, dice: &mut StdRng, key: &str, from: usize) -> Result<(), BoxError> {
        let other = format!("any{}", dice.random_range(0..1_000));
        let to = self.cluster.owner_of(&other).await?;
        if to == from {
            return Ok(());
        }
        let pause = Duration::from_millis(dice.random_range(0..200));
        let slot = self.cluster.slot_of(key).await?;
        let migration = self.cluster.begin_migration(slot, from, to).await?;
        sleep(pause).await;
        // One key at a time: between them the list is on one node and its lane's number on the other.
        while migration.move_keys(&self.cluster, 1).await? > 0 {
            sleep(pause).await;
        }
        Ok(migration.finish(&self.cluster).await?)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn attacks(dice: &mut StdRng) -> Vec<Attack> {
    let mut attacks = vec![
        Attack::KillPrimary,
        Attack::RestartPrimary,
        Attack::FreezePrimary,
        Attack::Failover,
        Attack::CutReplicaAndKill,
        Attack::CutReplicaAndKill,
        Attack::RestartReplica,
        Attack::MoveSlot,
        Attack::MoveSlot,
        Attack::ResetClients,
    ];
    attacks.shuffle(dice);
    attacks
}

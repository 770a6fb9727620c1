//! A Redis Cluster, as a target.

use std::time::Duration;

use tokio::time::sleep;

use super::{Attack, AttackError, Strike, Target};
use crate::chaos::{RedisCluster, RedisServer, wait_until};

/// Attacks the primary of a slot that the [`draw`](Strike::draw) decides, and its replicas. What is killed comes
/// back with what its persistence wrote: make it
/// [`durable`](crate::chaos::RedisClusterBuilder::durable) unless that is to be lost.
///
/// There are no proxies here: the network is reset by the primary, and replicas are kept from it by a wrong
/// password.
impl Target for RedisCluster {
    fn attacks(&self) -> Vec<Attack> {
        vec![
            Attack::Kill,
            Attack::Freeze,
            Attack::Failover,
            Attack::LoseWrites,
            Attack::KillReplica,
            Attack::FreezeReplica,
            Attack::MoveSlot,
            Attack::Reset,
        ]
    }

    async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
        let slot = strike.pick(SLOTS) as u16;
        let primary = self.owner_of_slot(slot).await?;
        match strike.attack {
            Attack::Kill => {
                self.kill(primary).await?;
                Ok(format!("primary {primary} was killed"))
            }
            Attack::Freeze => {
                self.freeze(primary).await?;
                Ok(format!("primary {primary} was frozen"))
            }
            Attack::Failover => {
                let replica = self.replica_of(primary).await?;
                self.failover(replica).await?;
                Ok(format!("primary {primary} was replaced by {replica}"))
            }
            Attack::LoseWrites => {
                let replica = self.replica_of(primary).await?;
                set_password(self.node(replica), WRONG).await?;
                kill_clients(self.node(primary), "replica").await?;
                sleep(strike.lasts.min(LONGEST_CUT)).await;
                self.kill(primary).await?;
                // Else it would be back with all it has.
                wait_until("another primary", PATIENCE, || async {
                    let owner = self.owner_of_slot(slot).await;
                    owner.is_ok_and(|owner| owner != primary)
                })
                .await?;
                Ok(format!(
                    "primary {primary} was cut from its replica and then killed"
                ))
            }
            Attack::KillReplica => {
                let replica = self.replica_of(primary).await?;
                self.kill(replica).await?;
                Ok(format!("replica {replica} was killed"))
            }
            Attack::FreezeReplica => {
                let replica = self.replica_of(primary).await?;
                self.freeze(replica).await?;
                Ok(format!("replica {replica} was frozen"))
            }
            Attack::MoveSlot => {
                let (slot, to) = self.move_slot(primary, slot, strike).await?;
                Ok(format!("slot {slot} has moved from {primary} to {to}"))
            }
            Attack::Reset => {
                kill_clients(self.node(primary), "normal").await?;
                Ok(format!("primary {primary} closed its connections"))
            }
            other => Err(AttackError::Unknown(other)),
        }
    }

    async fn recover(&mut self) -> Result<(), AttackError> {
        for node in 0..self.nodes().len() {
            if self.node(node).is_running() {
                self.thaw(node)?;
            } else {
                self.restart(node).await?;
            }
            set_password(self.node(node), self.password().unwrap_or("")).await?;
        }
        self.wait_until_ok().await?;
        Ok(())
    }
}

impl RedisCluster {
    /// Moves a slot that is in use, if any is, to another primary, a key at a time: in between, what belongs
    /// together is on two nodes.
    async fn move_slot(
        &self,
        from: usize,
        unused: u16,
        strike: &Strike,
    ) -> Result<(u16, usize), AttackError> {
        let key: Option<String> = self.node(from).command(&redis::cmd("RANDOMKEY")).await?;
        let slot = match key {
            Some(key) => self.slot_of(&key).await?,
            None => unused,
        };
        let mut to = from;
        // There are three primaries or more, each with a share of the slots.
        for step in 1..=SHARES {
            to = self
                .owner_of_slot((unused + step * (SLOTS as u16 / SHARES)) % SLOTS as u16)
                .await?;
            if to != from {
                break;
            }
        }
        let pause = strike.lasts / 10;
        let migration = self.begin_migration(slot, from, to).await?;
        sleep(pause).await;
        while migration.move_keys(self, 1).await? > 0 {
            sleep(pause).await;
        }
        migration.finish(self).await?;
        Ok((slot, to))
    }
}

const SLOTS: usize = 16_384;
const SHARES: u16 = 16;

/// A replica that has long lost its primary is not promoted.
const LONGEST_CUT: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
const WRONG: &str = "not the password";

/// What a replica logs in to its primary with.
async fn set_password(replica: &RedisServer, password: &str) -> Result<(), AttackError> {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("masterauth").arg(password);
    Ok(replica.command(&set).await?)
}

async fn kill_clients(server: &RedisServer, kind: &str) -> Result<(), AttackError> {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg(kind);
    Ok(server.command(&kill).await?)
}

//! A set of sentinels and their nodes, as a target.

use std::time::Duration;

use tokio::time::sleep;

use super::{Attack, AttackError, Strike, Target};
use crate::chaos::{SentinelSet, sentinel::CLIENTS};

/// Attacks on the network, and those that part servers, need a set that is
/// [`proxied`](crate::chaos::SentinelSetBuilder::proxied). What is killed comes back with what its
/// persistence wrote: a set that is not [`durable`](crate::chaos::SentinelSetBuilder::durable)
/// loses all it has when its primary is back before another was promoted.
impl Target for SentinelSet {
    fn attacks(&self) -> Vec<Attack> {
        let mut attacks = vec![
            Attack::Kill,
            Attack::Freeze,
            Attack::KillSentinel,
            Attack::FreezeSentinel,
        ];
        if self.nodes().len() > 1 {
            attacks.extend([Attack::Failover, Attack::KillReplica, Attack::FreezeReplica]);
        }
        if self.node_proxy(0).is_some() {
            attacks.extend(Attack::on_the_network());
            attacks.push(Attack::CutOff);
            if self.nodes().len() > 1 {
                attacks.extend([Attack::LoseWrites, Attack::Isolate, Attack::SplitBrain]);
            }
        }
        attacks
    }

    async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
        let primary = self.wait_for_primary().await?;
        if let (Some(fault), Some(proxy)) =
            (strike.attack.fault(strike.draw), self.node_proxy(primary))
        {
            proxy.set_from(CLIENTS, fault);
            return Ok(format!("clients of node {primary} have {fault:?}"));
        }
        let replicas: Vec<usize> = (0..self.nodes().len())
            .filter(|node| *node != primary)
            .collect();
        let replica = replicas.get(strike.pick(replicas.len())).copied();
        let replica = replica.ok_or(AttackError::Unknown(strike.attack));
        let sentinel = strike.pick(self.sentinels().len());
        let of_primary = |what: &str| Ok(format!("the primary, node {primary}, {what}"));
        match strike.attack {
            Attack::Kill => {
                self.node_mut(primary).kill().await?;
                of_primary("was killed")
            }
            Attack::Freeze => {
                self.node(primary).freeze().await?;
                of_primary("was frozen")
            }
            Attack::Failover => {
                self.failover().await?;
                of_primary("is to be replaced")
            }
            Attack::LoseWrites => {
                self.cut_replication(primary);
                sleep(strike.lasts.min(LONGEST_CUT)).await;
                self.node_mut(primary).kill().await?;
                // Else it would be back with all it has.
                self.wait_for_primary_other_than(primary).await?;
                of_primary("was cut from its replicas and then killed")
            }
            Attack::Isolate => {
                self.isolate(primary);
                of_primary("was cut from all but its clients")
            }
            Attack::CutOff => {
                self.cut_off(primary);
                of_primary("was cut from all")
            }
            Attack::SplitBrain => {
                self.leave_with_clients(primary);
                of_primary("was left alone with its clients")
            }
            Attack::KillReplica => {
                let replica = replica?;
                self.node_mut(replica).kill().await?;
                Ok(format!("replica {replica} was killed"))
            }
            Attack::FreezeReplica => {
                let replica = replica?;
                self.node(replica).freeze().await?;
                Ok(format!("replica {replica} was frozen"))
            }
            Attack::KillSentinel => {
                self.sentinel_mut(sentinel).kill().await?;
                Ok(format!("sentinel {sentinel} was killed"))
            }
            Attack::FreezeSentinel => {
                self.sentinel(sentinel).freeze().await?;
                Ok(format!("sentinel {sentinel} was frozen"))
            }
            other => Err(AttackError::Unknown(other)),
        }
    }

    async fn recover(&mut self) -> Result<(), AttackError> {
        self.heal();
        self.revive().await?;
        self.wait_until_healthy().await?;
        Ok(())
    }
}

/// A replica that has long lost its primary is not promoted.
const LONGEST_CUT: Duration = Duration::from_secs(3);

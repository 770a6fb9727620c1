//! A slot that changes its node, step by step.

use redis::{Cmd, RedisResult};

use super::RedisCluster;

/// A slot on its way from one node to another: made by [`RedisCluster::begin_migration`].
///
/// As long as it is, the old node answers ASK for keys that it has not (any more), and TRYAGAIN for
/// several keys of which it has only some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the slot stays on its way until `finish` is called"]
pub struct SlotMigration {
    slot: u16,
    from: usize,
    to: usize,
}

impl RedisCluster {
    /// Declares a slot to be moving, and moves nothing yet.
    ///
    /// # Errors
    ///
    /// What the redis crate says, e.g. that `from` does not serve the slot.
    pub async fn begin_migration(
        &self,
        slot: u16,
        from: usize,
        to: usize,
    ) -> RedisResult<SlotMigration> {
        let (source, target) = (self.id(from).await?, self.id(to).await?);
        let importing = set_slot(slot, "IMPORTING", &source);
        self.node(to).command::<()>(&importing).await?;
        let migrating = set_slot(slot, "MIGRATING", &target);
        self.node(from).command::<()>(&migrating).await?;
        Ok(SlotMigration { slot, from, to })
    }

    /// Moves a slot and all that is in it.
    ///
    /// # Errors
    ///
    /// As those of its steps: [`begin_migration`](Self::begin_migration),
    /// [`SlotMigration::move_keys`] and [`SlotMigration::finish`].
    pub async fn migrate_slot(&self, slot: u16, from: usize, to: usize) -> RedisResult<()> {
        let migration = self.begin_migration(slot, from, to).await?;
        while migration.move_keys(self, 100).await? > 0 {}
        migration.finish(self).await
    }
}

impl SlotMigration {
    /// Moves up to `count` keys, and says how many it found to move.
    ///
    /// # Errors
    ///
    /// What the redis crate says.
    pub async fn move_keys(&self, cluster: &RedisCluster, count: usize) -> RedisResult<usize> {
        let mut list = redis::cmd("CLUSTER");
        list.arg("GETKEYSINSLOT").arg(self.slot).arg(count);
        let keys: Vec<Vec<u8>> = cluster.node(self.from).command(&list).await?;
        if !keys.is_empty() {
            self.move_these(cluster, &keys).await?;
        }
        Ok(keys.len())
    }

    /// Moves these keys, of those that are there.
    ///
    /// # Errors
    ///
    /// What the redis crate says.
    pub async fn move_these<K>(&self, cluster: &RedisCluster, keys: &[K]) -> RedisResult<()>
    where
        K: redis::ToRedisArgs,
    {
        let mut migrate = redis::cmd("MIGRATE");
        migrate
            .arg("127.0.0.1")
            .arg(cluster.node(self.to).port())
            .arg("")
            .arg(0)
            .arg(TIMEOUT_MS);
        if let Some(password) = cluster.password() {
            migrate.arg("AUTH").arg(password);
        }
        migrate.arg("KEYS");
        for key in keys {
            migrate.arg(key);
        }
        cluster.node(self.from).command(&migrate).await
    }

    /// Gives the slot to its new node for good, and tells all nodes that are awake.
    ///
    /// # Errors
    ///
    /// What the redis crate says, e.g. that the old node still has keys in it.
    pub async fn finish(self, cluster: &RedisCluster) -> RedisResult<()> {
        let assign = set_slot(self.slot, "NODE", &cluster.id(self.to).await?);
        // The new owner first: should the others be told and it not, the slot would be nobody's.
        cluster.node(self.to).command::<()>(&assign).await?;
        cluster.node(self.from).command::<()>(&assign).await?;
        for node in cluster.awake() {
            // A replica takes no such order, and hears of it from its primary.
            let _ = cluster.node(node).command::<()>(&assign).await;
        }
        Ok(())
    }
}

const TIMEOUT_MS: u32 = 5_000;

fn set_slot(slot: u16, state: &str, node: &str) -> Cmd {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SETSLOT").arg(slot).arg(state).arg(node);
    cmd
}

//! Replicas that are kept from their primary, without touching anybody's network.

use redis::RedisResult;
use seawall::chaos::RedisServer;

/// Until [`mend`], the replicas get nothing from the primary: they log in with a password that is wrong.
/// It does not know, and goes on acknowledging.
pub(crate) async fn cut<'a>(
    primary: &RedisServer,
    replicas: impl IntoIterator<Item = &'a RedisServer>,
) -> RedisResult<()> {
    for replica in replicas {
        password(replica, "wrong").await?;
    }
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("replica");
    primary.command(&kill).await
}

pub(crate) async fn mend<'a>(
    replicas: impl IntoIterator<Item = &'a RedisServer>,
) -> RedisResult<()> {
    for replica in replicas {
        password(replica, "").await?;
    }
    Ok(())
}

async fn password(replica: &RedisServer, password: &str) -> RedisResult<()> {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("masterauth").arg(password);
    replica.command(&set).await
}

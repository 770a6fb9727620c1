//! What the redis crate's own cluster connection does when a node fails: why it is not used. A
//! comparison, printed and not judged, since it is of somebody else's code.

use std::time::Duration;

use redis::{
    AsyncCommands, RedisResult, cluster::ClusterClientBuilder, cluster_async::ClusterConnection,
};
use seawall::chaos::RedisCluster;
use tokio::time::{Instant, timeout};

use crate::support::{cmd, key_of_each};

/// A node that is not missed by the others, so that it stays in their map.
async fn cluster() -> RedisCluster {
    let builder = RedisCluster::builder().replicas(0);
    let builder = builder.node_timeout(Duration::from_secs(60));
    builder.start().await.unwrap()
}

async fn connect(cluster: &RedisCluster, retries: u32) -> ClusterConnection {
    let nodes: Vec<_> = cluster.nodes().iter().map(|node| node.url()).collect();
    ClusterClientBuilder::new(nodes)
        .retries(retries)
        .connection_timeout(Duration::from_secs(1))
        .response_timeout(Duration::from_millis(500))
        .overall_response_timeout(None)
        .build()
        .unwrap()
        .get_async_connection()
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "a comparison with another library, not a promise of this one"]
async fn a_call_to_a_frozen_node_with_the_redis_crate() {
    for retries in [0, 1, 3] {
        let mut cluster = cluster().await;
        let mut connection = connect(&cluster, retries).await;
        let owner = cluster.owner_of("n").await.unwrap();
        cluster.freeze(owner).await.unwrap();
        let began = Instant::now();
        let answer = timeout(Duration::from_secs(8), connection.incr::<_, _, i64>("n", 1)).await;
        let took = began.elapsed();
        drop(connection);
        cluster.thaw(owner).unwrap();
        let value: Option<u64> = cluster.command("n", &cmd("GET n")).await.unwrap();
        println!("retries={retries}: {answer:?} after {took:?}; the value is {value:?}");
    }
}

#[tokio::test]
#[ignore = "a comparison with another library, not a promise of this one"]
async fn calls_to_other_nodes_while_the_redis_crate_reads_the_slots() {
    for retries in [0, 3] {
        let mut cluster = cluster().await;
        let connection = connect(&cluster, retries).await;
        let keys = key_of_each(&cluster, 3).await;
        let slot = cluster.slot_of(&keys[1]).await.unwrap();
        cluster.freeze(0).await.unwrap();
        cluster.migrate_slot(slot, 1, 2).await.unwrap();
        let mut moved = connection.clone();
        let moved = async { moved.get::<_, Option<i64>>(&keys[1]).await };
        let others = async {
            let mut worst = Duration::ZERO;
            let end = Instant::now() + Duration::from_secs(4);
            while Instant::now() < end {
                let began = Instant::now();
                let _: RedisResult<Option<i64>> = connection.clone().get(&keys[2]).await;
                worst = worst.max(began.elapsed());
            }
            worst
        };
        let (moved, worst) = tokio::join!(moved, others);
        println!("retries={retries}: MOVED gave {moved:?}; the slowest of the others: {worst:?}");
    }
}

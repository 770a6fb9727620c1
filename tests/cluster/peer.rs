//! experiment
use crate::support::cmd;
use redis::{AsyncCommands, cluster::ClusterClientBuilder, cluster_async::ClusterConnection};
use seawall::chaos::RedisCluster;
use std::time::{Duration, Instant};

async fn conn(c: &RedisCluster, retries: u32) -> ClusterConnection {
    let nodes: Vec<_> = c.nodes().iter().map(|n| n.url()).collect();
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
async fn e1_frozen_incr() {
    for retries in [0, 1, 3] {
        let mut c = RedisCluster::builder()
            .replicas(0)
            .node_timeout(Duration::from_secs(60))
            .start()
            .await
            .unwrap();
        let mut con = conn(&c, retries).await;
        let _: () = con.set("n", 0).await.unwrap();
        let o = c.owner_of("n").await.unwrap();
        c.freeze(o).await.unwrap();
        let t = Instant::now();
        let r = tokio::time::timeout(Duration::from_secs(8), con.incr::<_, _, i64>("n", 1)).await;
        println!("E1 retries={retries} {r:?} after {:?}", t.elapsed());
        c.thaw(o).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let v: i64 = c.command("n", &cmd("GET n")).await.unwrap();
        println!("E1 retries={retries} value={v}");
    }
}

#[tokio::test]
async fn e2_frozen_stalls_others() {
    for retries in [3, 0] {
        let mut c = RedisCluster::builder()
            .replicas(0)
            .node_timeout(Duration::from_secs(60))
            .start()
            .await
            .unwrap();
        let con = conn(&c, retries).await;
        let keys: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
        let mut of = [None, None, None];
        for k in &keys {
            let o = c.owner_of(k).await.unwrap();
            if of[o].is_none() {
                of[o] = Some(k.clone());
            }
            if of.iter().all(|x| x.is_some()) {
                break;
            }
        }
        let slot = c.slot_of(of[1].as_ref().unwrap()).await.unwrap();
        c.freeze(0).await.unwrap();
        c.migrate_slot(slot, 1, 2).await.unwrap();
        let mut a = con.clone();
        let k1 = of[1].clone().unwrap();
        let k2 = of[2].clone().unwrap();
        let k1b = k1.clone();
        let h = tokio::spawn(async move {
            let t = Instant::now();
            let r: redis::RedisResult<Option<i64>> = a.get(&k1b).await;
            (r, t.elapsed())
        });
        let mut worst = Duration::ZERO;
        let mut errs = 0;
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let t = Instant::now();
            let r = tokio::time::timeout(
                Duration::from_secs(4),
                con.clone().get::<_, Option<i64>>(&k2),
            )
            .await;
            if !matches!(r, Ok(Ok(_))) {
                errs += 1;
            }
            worst = worst.max(t.elapsed());
        }
        println!(
            "E2 retries={retries} moved: {:?}; a call to a healthy node: worst {worst:?}, errors {errs}",
            h.await.unwrap()
        );
    }
}

#[tokio::test]
async fn e3_killed() {
    let mut c = RedisCluster::start().await.unwrap();
    let con = conn(&c, 0).await;
    let o = c.owner_of("n").await.unwrap();
    c.kill(o).await.unwrap();
    let start = Instant::now();
    let mut seen = std::collections::BTreeMap::new();
    let mut ok = None;
    while start.elapsed() < Duration::from_secs(8) {
        let t = Instant::now();
        let r: redis::RedisResult<i64> = con.clone().incr("n", 1).await;
        match r {
            Ok(_) => {
                ok.get_or_insert(start.elapsed());
            }
            Err(e) => {
                let en = seen
                    .entry(format!("{:?} {:?} {}", e.kind(), e.code(), e))
                    .or_insert((0, Duration::ZERO));
                en.0 += 1;
                en.1 = en.1.max(t.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("E3 first ok {ok:?} {seen:#?}");
}

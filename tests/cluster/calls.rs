//! Calls and jobs while nothing fails, and what a cluster cannot do.

use std::time::Duration;

use seawall::{
    Job, RedisCall,
    call::ScriptCall,
    chaos::{RedisCluster, RedisServer, wait_until},
    classify::{Class, Landed},
    connect::{ConnectOptions, Connection, Trouble},
    error::ErrorKind,
    job::Destination,
    sequence::Command,
};

use crate::support::{Line, PLENTY, call, cmd, connection, key_of_each, list, send};

#[tokio::test]
async fn jobs_of_many_queues_arrive_in_order_wherever_their_slots_are() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    let mut queues: Vec<String> = (0..20).map(|number| format!("queue:{number}")).collect();
    // Names whose hash tag is not what stands between the braces of the lane's key.
    queues.extend(["a}b", "{}x", "{half", "x:{tag}:y", "}{"].map(str::to_owned));
    for queue in &queues {
        line.enqueue(queue, 0..20).await;
    }
    assert_eq!(line.seawall.health().spool.records, 0);
    let mut owners = std::collections::BTreeSet::new();
    for queue in &queues {
        assert_eq!(
            list(&cluster, queue).await,
            Vec::from_iter(0..20),
            "{queue}"
        );
        owners.insert(cluster.owner_of(queue).await.unwrap());
    }
    assert_eq!(owners.len(), 3);
    assert_eq!(line.seawall.shutdown(PLENTY).await.unwrap(), 0);
    for node in cluster.nodes() {
        let lanes: Vec<String> = node.command(&cmd("KEYS seawall:*")).await.unwrap();
        assert!(lanes.is_empty(), "a lane has not ended: {lanes:?}");
    }
}

#[tokio::test]
async fn one_replica_is_enough_to_find_the_others() {
    let cluster = RedisCluster::start().await.unwrap();
    let connection = connection(&cluster.url_of(&[5])).await;
    for key in key_of_each(&cluster, 3).await {
        send(&connection, call(&format!("SET {key} 1")))
            .await
            .unwrap();
        let value: u8 = send(&connection, call(&format!("GET {key}")))
            .await
            .unwrap()
            .decode()
            .unwrap();
        assert_eq!(value, 1);
    }
    // A node may be used before its connection is counted.
    let mut status = connection.status();
    let all =
        status.wait_for(|status| status.up && status.trouble.is_none() && status.generation >= 3);
    let _ = tokio::time::timeout(PLENTY, all).await.unwrap().unwrap();
    send(&connection, call("PING")).await.unwrap();
}

#[tokio::test]
async fn the_password_is_for_all_nodes_and_shown_nowhere() {
    let cluster = RedisCluster::builder()
        .replicas(0)
        .password("s3cret:p@ss/w%rd")
        .start()
        .await
        .unwrap();
    let right = connection(&cluster.url()).await;
    for key in key_of_each(&cluster, 3).await {
        send(&right, call(&format!("SET {key} 1"))).await.unwrap();
    }
    assert!(!format!("{right:?}").contains("s3cret"));

    let url = cluster.url().replace("s3cret", "wr0ng");
    let options = ConnectOptions::from_url(&url).unwrap();
    assert!(!format!("{options:?}").contains("wr0ng"));
    let wrong = Connection::open(options).unwrap();
    let mut status = wrong.status();
    let refused = status.wait_for(|status| status.trouble == Some(Trouble::Credentials));
    drop(
        tokio::time::timeout(PLENTY, refused)
            .await
            .unwrap()
            .unwrap(),
    );
    let error = send(&wrong, call("GET a")).await.unwrap_err();
    assert!(error.is_outage() && !error.may_have_landed(), "{error:?}");
    assert!(!format!("{error:?} {wrong:?}").contains("wr0ng"));
}

#[tokio::test]
async fn a_server_that_is_no_node_of_a_cluster_is_told_from_one_that_is_away() {
    let server = RedisServer::start().await.unwrap();
    let options = ConnectOptions::from_url(&format!("redis+cluster://{}", server.addr()));
    let connection = Connection::open(options.unwrap()).unwrap();
    let mut status = connection.status();
    let told = status.wait_for(|status| status.trouble == Some(Trouble::NoCluster));
    drop(tokio::time::timeout(PLENTY, told).await.unwrap().unwrap());
    assert!(
        send(&connection, call("GET a"))
            .await
            .unwrap_err()
            .is_outage()
    );
}

#[tokio::test]
async fn a_call_across_slots_is_refused_before_it_is_sent() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let connection = connection(&cluster.url()).await;
    let mut pipe = redis::pipe();
    pipe.cmd("SET")
        .arg("k3y:a")
        .arg(1)
        .cmd("SET")
        .arg("k3y:b")
        .arg(1);
    let mut atomic = redis::pipe();
    atomic
        .atomic()
        .cmd("GET")
        .arg("k3y:a")
        .cmd("GET")
        .arg("k3y:b");
    let mut evalsha = redis::cmd("EVALSHA");
    evalsha.arg("0123").arg(2).arg("k3y:a").arg("k3y:b");
    for refused in [
        call("MGET k3y:a k3y:b"),
        call("RENAME k3y:a k3y:b"),
        RedisCall::new("test", pipe),
        RedisCall::new("test", atomic),
        RedisCall::new("test", ScriptCall::new("return 1", evalsha)),
    ] {
        let error = send(&connection, refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CrossSlot);
        assert_eq!(error.verdict().class, Class::Permanent);
        assert_eq!(error.verdict().landed, Landed::No);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("k3y"), "{shown}");
    }
    // What the name of the command does not tell, the server sees.
    let error = send(&connection, call("SORT a BY b* STORE c"))
        .await
        .unwrap_err();
    assert!(error.is_permanent(), "{error:?}");
    for node in cluster.nodes() {
        let stats: String = node.command(&cmd("INFO commandstats")).await.unwrap();
        for name in [
            "cmdstat_mget",
            "cmdstat_rename",
            "cmdstat_evalsha",
            "cmdstat_multi",
        ] {
            assert!(!stats.contains(name), "{stats}");
        }
    }
    let one_slot = call("MSET {a}1 1 {a}2 2");
    send(&connection, one_slot).await.unwrap();
}

#[tokio::test]
async fn an_exclusive_connection_leads_to_the_node_of_its_key() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let connection = connection(&cluster.url()).await;
    let error = connection.exclusive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for key in key_of_each(&cluster, 3).await {
        let mut exclusive = connection.exclusive_for(&key).await.unwrap();
        let pop = redis::cmd("BLPOP").arg(&key).arg(30).to_owned();
        let push = call(&format!("RPUSH {key} job"));
        let (popped, pushed) = tokio::join!(
            pop.query_async::<(String, String)>(&mut exclusive),
            send(&connection, push)
        );
        pushed.unwrap();
        assert_eq!(popped.unwrap(), (key, "job".to_owned()));
    }
}

/// One whose keys are elsewhere is its caller's to put right; the lane goes on.
#[tokio::test]
async fn a_job_for_another_slot_than_its_queues_is_refused_by_itself() {
    let cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::to(&cluster).await;
    let keys = key_of_each(&cluster, 3).await;
    let queue = keys[0].as_str();
    let push = |key: &str| Destination::list(key);
    // On the same node as the queue, in another slot.
    let near = {
        let mut number = 0;
        loop {
            let key = format!("near:{number}");
            if cluster.owner_of(&key).await.unwrap() == 0 {
                break key;
            }
            number += 1;
        }
    };
    let group = |key: &str| {
        let count = Command::new("INCR").arg(key.to_owned());
        let push = Command::new("RPUSH").arg(queue.to_owned()).arg("never");
        Destination::commands(vec![count, push])
    };
    line.enqueue(queue, 0..3).await;
    for destination in [push(&keys[1]), push(&near), group(&keys[2]), group(&near)] {
        let job = Job::new(queue, "never").with_destination(destination);
        let error = line.seawall.enqueue(job).await.unwrap_err();
        assert!(error.is_permanent(), "{error:?}");
    }
    line.enqueue(queue, 3..6).await;
    let health = line.seawall.health();
    assert_eq!(
        (health.spool.records, health.spool.parked),
        (0, 0),
        "{health:?}"
    );
    assert_eq!(list(&cluster, queue).await, Vec::from_iter(0..6));
    for key in [&keys[1], &keys[2], &near] {
        assert!(list(&cluster, key).await.is_empty(), "{key}");
    }
}

#[tokio::test]
async fn jobs_for_another_slot_that_wait_on_disk_are_parked_and_the_others_go() {
    let mut cluster = RedisCluster::builder().replicas(0).start().await.unwrap();
    let line = Line::with(&cluster, |builder| {
        builder.spool(|spool| spool.with_spool_after(Duration::from_millis(50)))
    })
    .await;
    let keys = key_of_each(&cluster, 3).await;
    let queue = keys[0].as_str();
    for node in 0..3 {
        cluster.kill(node).await.unwrap();
    }
    let group = |key: &str| {
        let count = Command::new("INCR").arg(key.to_owned());
        Destination::commands(vec![count])
    };
    for number in 0..9_u64 {
        let job = Job::new(queue, number.to_string());
        let job = match number % 3 {
            1 => job.with_destination(Destination::list(keys[1].as_str())),
            2 => job.with_destination(group(&keys[2])),
            _ => job,
        };
        assert!(!line.seawall.enqueue(job).await.unwrap().is_delivered());
    }
    for node in 0..3 {
        cluster.restart(node).await.unwrap();
    }
    wait_until("six parked jobs", PLENTY, || async {
        line.seawall.health().spool.parked == 6
    })
    .await
    .unwrap();
    line.drained().await;
    cluster.wait_until_ok().await.unwrap();
    assert_eq!(list(&cluster, queue).await, [0, 3, 6]);
}

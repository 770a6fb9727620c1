//! The master fails over: by command, killed, frozen, idle and under load.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::cmd;
use seawall::{chaos::SentinelSet, connect::Trouble};

use super::{Client, NEVER, PATIENCE, options};

async fn set() -> SentinelSet {
    let set = SentinelSet::builder().replicas(1).start().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    set
}

/// How the master ends.
#[derive(Clone, Copy, Debug)]
enum By {
    Command,
    Kill,
    Freeze,
}

async fn hurt(set: &mut SentinelSet, by: By) -> usize {
    match by {
        By::Command => {
            let old = set.primary().await.unwrap();
            set.failover().await.unwrap();
            old
        }
        By::Kill => set.kill_primary().await.unwrap(),
        By::Freeze => set.freeze_primary().await.unwrap(),
    }
}

/// Nobody calls: the connection has to find out, and go over, by itself.
async fn an_idle_client_follows(by: By) {
    let mut set = set().await;
    let client = Client::of(&set).await;
    let old = hurt(&mut set, by).await;
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    client.counted("seawall_failovers_total", "", 1.0).await;
    let status = client.seen(|status| status.up).await;
    assert!(status.generation > 1);
    assert_eq!(client.port().await, set.node(new).port());
    client.write(1).await.unwrap();
    assert_eq!(client.metric("seawall_failovers_total", ""), 1.0);
    let address = |node: usize| set.node_addrs()[node].to_string();
    assert_eq!(client.metric("seawall_master_info", &address(new)), 1.0);
    assert_eq!(client.metric("seawall_master_info", &address(old)), 0.0);
}

#[tokio::test]
async fn an_idle_client_follows_a_failover_by_command() {
    an_idle_client_follows(By::Command).await;
}

#[tokio::test]
async fn an_idle_client_leaves_a_killed_master() {
    an_idle_client_follows(By::Kill).await;
}

#[tokio::test]
async fn an_idle_client_leaves_a_master_that_accepts_and_never_answers() {
    an_idle_client_follows(By::Freeze).await;
}

/// Many callers all the while, each of whom must always be answered, and in the end well.
async fn callers_are_served_again(by: By) {
    let mut set = set().await;
    let client = Client::of(&set).await;
    let written = AtomicU64::new(0);
    let load = async {
        let callers = (0..8).map(|_| async {
            loop {
                if client.write(1).await.is_ok() {
                    written.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        });
        futures_util::future::join_all(callers).await;
    };
    let fault = async {
        let old = hurt(&mut set, by).await;
        let new = set.wait_for_primary_other_than(old).await.unwrap();
        client.counted("seawall_failovers_total", "", 1.0).await;
        let before = written.load(Ordering::Relaxed);
        seawall::chaos::wait_until("more writes", PATIENCE, || async {
            written.load(Ordering::Relaxed) > before + 100
        })
        .await
        .unwrap();
        new
    };
    let new = tokio::select! {
        new = fault => new,
        _ = load => unreachable!("callers go on for ever"),
    };
    assert_eq!(client.port().await, set.node(new).port());
}

#[tokio::test]
async fn callers_are_served_again_after_a_failover_by_command() {
    callers_are_served_again(By::Command).await;
}

#[tokio::test]
async fn callers_are_served_again_after_the_master_was_killed() {
    callers_are_served_again(By::Kill).await;
}

#[tokio::test]
async fn callers_are_served_again_after_the_master_was_frozen() {
    callers_are_served_again(By::Freeze).await;
}

#[tokio::test]
async fn a_master_that_comes_back_as_one_is_not_gone_back_to() {
    let set = set().await;
    let client = Client::of(&set).await;
    let old = set.freeze_primary().await.unwrap();
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    client.counted("seawall_failovers_total", "", 1.0).await;
    // For a while it still takes itself for the master.
    set.node(old).thaw().unwrap();
    client.write_again().await;
    assert_eq!(client.port().await, set.node(new).port());
    set.wait_until_healthy().await.unwrap();
    assert_eq!(client.metric("seawall_failovers_total", ""), 1.0);
}

/// Nothing but the announcement can end it: nobody probes, polls or calls.
#[tokio::test]
async fn a_blocking_read_ends_when_another_master_is_announced() {
    let set = set().await;
    let options = options(&set.url())
        .with_probe(NEVER, PATIENCE)
        .with_sentinel_poll(NEVER);
    let client = Client::ready(options).await;
    let mut exclusive = client.connection.exclusive().await.unwrap();
    let (blocking, old) = tokio::join!(
        async {
            let mut read = cmd("BLPOP");
            let read = read.arg("jobs").arg(0);
            let read = read.query_async::<Option<(String, String)>>(&mut exclusive);
            tokio::time::timeout(PATIENCE, read).await
        },
        async { set.freeze_primary().await.unwrap() },
    );
    assert!(
        blocking
            .expect("it ends")
            .unwrap_err()
            .is_connection_dropped()
    );
    drop(exclusive);
    let new = set.wait_for_primary_other_than(old).await.unwrap();
    let status = client
        .seen(|status| status.generation == 2 && status.up)
        .await;
    assert_eq!(status.trouble, Some(Trouble::Moved));
    // The pool has connections to the new master only.
    let mut exclusive = client.connection.exclusive().await.unwrap();
    let mut port = cmd("CONFIG");
    let port = port.arg("GET").arg("port");
    let (_, port): (String, u16) = port.query_async(&mut exclusive).await.unwrap();
    assert_eq!(port, set.node(new).port());
}

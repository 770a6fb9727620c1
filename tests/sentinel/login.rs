//! Users and passwords: those of the master, those of the sentinels, and when they change.

use redis::cmd;
use seawall::{Job, Seawall, chaos::SentinelSet, connect::Trouble, spool::Place};

use super::{Client, PATIENCE, options, url};

const PASSWORD: &str = "m@ster/s3cret";
const SENTINEL_PASSWORD: &str = "w@tch/s3cret";

async fn set() -> SentinelSet {
    let set = SentinelSet::builder().replicas(0).sentinels(1);
    let set = set.password(PASSWORD).sentinel_password(SENTINEL_PASSWORD);
    let set = set.start().await.unwrap();
    set.wait_until_healthy().await.unwrap();
    set
}

#[tokio::test]
async fn master_and_sentinels_have_passwords_of_their_own() {
    let set = set().await;
    Client::of(&set).await.write(1).await.unwrap();
    let by_setters = options(&url(&set.sentinel_addrs(), "mymaster"))
        .with_password(PASSWORD)
        .with_sentinel_password(SENTINEL_PASSWORD);
    Client::ready(by_setters).await.write(1).await.unwrap();
    // The master's is not shown to the sentinels, nor theirs to the master.
    let without = options(&url(&set.sentinel_addrs(), "mymaster")).with_password(PASSWORD);
    let client = Client::open(without);
    client
        .seen(|status| status.trouble == Some(Trouble::SentinelCredentials))
        .await;
    let without =
        options(&url(&set.sentinel_addrs(), "mymaster")).with_sentinel_password(SENTINEL_PASSWORD);
    let client = Client::open(without);
    client
        .seen(|status| status.trouble == Some(Trouble::Credentials))
        .await;
    let shown = format!("{:?}", client.connection);
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn jobs_wait_while_the_masters_password_is_wrong_and_go_when_it_is_put_right() {
    let set = set().await;
    let dir = tempfile::tempdir().unwrap();
    let seawall = Seawall::builder(&set.url(), dir.path()).unwrap();
    let seawall = seawall.connect().await.unwrap();
    seawall.connection().wait_ready(PATIENCE).await.unwrap();
    let rotate = |to: &str| cmd("CONFIG").arg("SET").arg("requirepass").arg(to).take();
    let mut admin = set.node(0).connection().await.unwrap();
    rotate("other").query_async::<()>(&mut admin).await.unwrap();
    // Those who have logged in stay so until they connect again.
    let kill = cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes")
        .take();
    kill.query_async::<i64>(&mut admin).await.unwrap();
    let mut status = seawall.connection().status();
    let refused = status.wait_for(|status| status.trouble == Some(Trouble::Credentials));
    drop(
        tokio::time::timeout(PATIENCE, refused)
            .await
            .unwrap()
            .unwrap(),
    );
    let receipt = seawall.enqueue(Job::new("emails", "hello")).await.unwrap();
    assert_eq!(receipt.place(), Place::Spooled);
    rotate(PASSWORD)
        .query_async::<()>(&mut admin)
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, seawall.flush())
        .await
        .unwrap();
    let mut length = cmd("LLEN");
    let length: u64 = length.arg("emails").query_async(&mut admin).await.unwrap();
    assert_eq!(length, 1);
}

//! No answer at all: the way to Redis is what fails.

use std::time::Duration;

use seawall::{
    chaos::{Fault, FaultProxy, RedisServer},
    connect::{Connection, Trouble},
    error::ErrorKind,
};

use crate::support::{LOST, OUTAGE, PLENTY, call, chain, open, refusal, send, server_with, tell};

async fn behind_a_proxy() -> (RedisServer, FaultProxy, Connection) {
    let redis = server_with(&[]).await;
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let connection = open(&proxy.url(), |options| {
        options.with_response_timeout(Duration::from_millis(200))
    });
    connection.wait_ready(PLENTY).await.unwrap();
    (redis, proxy, connection)
}

async fn trouble(connection: &Connection, is: impl Fn(Trouble) -> bool) {
    let mut status = connection.status();
    let met = status.wait_for(|status| status.trouble.is_some_and(&is));
    drop(tokio::time::timeout(PLENTY, met).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_refused_connection_is_an_outage_and_nothing_was_sent() {
    let (_redis, proxy, _) = behind_a_proxy().await;
    proxy.set(Fault::Refuse);
    let connection = open(&proxy.url(), |options| options);
    trouble(&connection, |trouble| trouble == Trouble::Unreachable).await;
    let error = refusal(&connection, call("SET a 1")).await;
    assert_eq!(
        (error.verdict(), error.kind()),
        (OUTAGE, ErrorKind::Connect)
    );
    assert!(error.retry_after().is_some(), "{error:?}");
}

#[tokio::test]
async fn a_name_without_an_address_is_an_outage_and_nothing_was_sent() {
    let connection = open("redis://no-such-host.invalid", |options| options);
    // A resolver that is itself away says nothing at all.
    trouble(&connection, |trouble| {
        matches!(trouble, Trouble::Unresolved | Trouble::ConnectTimeout)
    })
    .await;
    let error = refusal(&connection, call("SET a 1")).await;
    assert_eq!(
        (error.verdict(), error.kind()),
        (OUTAGE, ErrorKind::Connect)
    );
}

#[tokio::test]
async fn a_black_hole_may_have_swallowed_a_call_and_the_connection_is_replaced() {
    let (redis, proxy, connection) = behind_a_proxy().await;
    // Old sockets are silent for ever, new ones work: only replacing it helps.
    proxy.set(Fault::SilenceOld);
    for _ in 0..2 {
        let error = refusal(&connection, call("SET a 1")).await;
        assert_eq!((error.verdict(), error.kind()), (LOST, ErrorKind::Timeout));
    }
    let mut status = connection.status();
    let replaced = status.wait_for(|status| status.up && status.generation == 2);
    drop(
        tokio::time::timeout(PLENTY, replaced)
            .await
            .unwrap()
            .unwrap(),
    );
    assert_eq!(connection.status().borrow().trouble, Some(Trouble::Silent));
    send(&connection, call("SET a 1"))
        .await
        .expect("a new socket");
    drop(redis);
}

#[tokio::test]
async fn a_frozen_server_may_yet_do_what_it_was_sent() {
    let (redis, _proxy, connection) = behind_a_proxy().await;
    redis.freeze().await.unwrap();
    let error = refusal(&connection, call("SET late 1")).await;
    assert_eq!(error.verdict(), LOST);
    redis.thaw().unwrap();
    let landed = async || {
        let exists: bool = redis
            .command(redis::cmd("EXISTS").arg("late"))
            .await
            .unwrap();
        exists
    };
    seawall::chaos::wait_until("the write that was given up", PLENTY, landed)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reset_after_the_send_may_have_landed() {
    let (redis, proxy, connection) = behind_a_proxy().await;
    proxy.set(Fault::DropNextReply);
    let error = refusal(&connection, call("INCR a")).await;
    assert_eq!(error.verdict(), LOST, "{}", chain(&error));
    // It has, as it happens.
    let landed: u8 = redis.command(redis::cmd("GET").arg("a")).await.unwrap();
    assert_eq!(landed, 1);
}

#[tokio::test]
async fn a_reset_in_the_middle_of_the_send_may_have_landed() {
    let (redis, proxy, connection) = behind_a_proxy().await;
    proxy.set(Fault::CutRequestAfter(10));
    let error = refusal(&connection, call("INCR a")).await;
    assert_eq!(error.verdict(), LOST, "{}", chain(&error));
    let landed: bool = redis.command(redis::cmd("EXISTS").arg("a")).await.unwrap();
    assert!(!landed, "nobody here can know, but it has not");
}

#[tokio::test]
async fn an_orderly_end_after_the_send_may_have_landed() {
    let (redis, _proxy, connection) = behind_a_proxy().await;
    let mut exclusive = connection.exclusive().await.unwrap();
    let reading = call("BLPOP empty 0");
    let (answer, ()) = tokio::join!(exclusive.call(&reading), async {
        let waits = async || {
            crate::support::info(&redis, "clients")
                .await
                .contains("blocked_clients:1")
        };
        seawall::chaos::wait_until("the read that blocks", PLENTY, waits)
            .await
            .unwrap();
        tell(&redis, "CLIENT KILL TYPE normal SKIPME yes").await;
    });
    let error = answer.expect_err("its connection was closed");
    assert_eq!(error.verdict(), LOST, "{}", chain(&error));
}

#[tokio::test]
async fn a_server_that_is_killed_under_a_call_may_have_done_it() {
    let (mut redis, _proxy, connection) = behind_a_proxy().await;
    let connection = {
        drop(connection);
        crate::support::connection(&redis.url()).await
    };
    redis.freeze().await.unwrap();
    let sent = tokio::spawn(async move { refusal(&connection, call("SET a 1")).await });
    // The call is on its way once it has been polled; wherever it is then, nobody can know.
    tokio::task::yield_now().await;
    redis.kill().await.unwrap();
    let error = sent.await.unwrap();
    assert_eq!(error.verdict(), LOST, "{}", chain(&error));
}

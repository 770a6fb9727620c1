//! Each fault does what it says, and no more.

use std::{io, net::IpAddr, time::Duration};

use seawall::chaos::{Counts, Fault, FaultProxy, RedisServer, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{A_WHILE, PLENTY, Raw, length, length_of};

#[tokio::test]
async fn a_healthy_proxy_passes_everything() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let large = vec![b'x'; 3_000_000];
    let client = redis::Client::open(proxy.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    connection.set_response_timeout(PLENTY);
    let echo = redis::cmd("ECHO").arg(&large).to_owned();
    assert_eq!(
        echo.query_async::<Vec<u8>>(&mut connection).await.unwrap(),
        large
    );
    drop(connection);
    let counts = counted(&proxy, |counts| counts.open == 0).await;
    assert_eq!((counts.accepted, counts.dropped_replies), (1, 0));
    drop(redis);
}

#[tokio::test]
async fn refuse_refuses_the_new_and_leaves_the_open() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = pinged(&proxy).await;
    for _ in 0..3 {
        proxy.set(Fault::Refuse);
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
        proxy.heal();
        pinged(&proxy).await;
    }
}

#[tokio::test]
async fn reset_resets_the_open_and_the_new() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = pinged(&proxy).await;
    proxy.set(Fault::Reset);
    open.is_reset().await;
    let mut new = Raw::connect(proxy.addr()).await;
    new.is_reset().await;
    proxy.heal();
    pinged(&proxy).await;
    assert_eq!(proxy.accepted(), 3);
}

#[tokio::test]
async fn cut_resets_the_open_and_no_more() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = pinged(&proxy).await;
    proxy.cut();
    open.is_reset().await;
    pinged(&proxy).await;
}

#[tokio::test]
async fn a_black_hole_swallows_all_and_closes_nothing() {
    let (mut redis, proxy) = redis_behind_a_proxy().await;
    let mut open = pinged(&proxy).await;

    proxy.set(Fault::BlackHole);
    open.send("RPUSH list 1\r\n").await;
    open.hears_nothing().await;
    let mut during = Raw::connect(proxy.addr()).await;
    during.send("PING\r\n").await;
    during.hears_nothing().await;
    assert_eq!(length(&redis).await, 0);
    redis.restart().await.unwrap();
    open.hears_nothing().await;

    proxy.heal();
    open.send("PING\r\n").await;
    open.hears_nothing().await;
    during.hears_nothing().await;
    pinged(&proxy).await;
    assert_eq!(length(&redis).await, 0);
}

#[tokio::test]
async fn silencing_the_old_leaves_the_new_alone() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut old = pinged(&proxy).await;
    proxy.set(Fault::SilenceOld);
    let mut new = Raw::connect(proxy.addr()).await;
    assert_eq!(new.ask("RPUSH list 1\r\n").await.unwrap(), ":1");
    old.send("RPUSH list 2\r\n").await;
    old.hears_nothing().await;
    proxy.heal();
    old.hears_nothing().await;
    assert_eq!(length(&redis).await, 1);
}

#[tokio::test]
async fn dropped_replies_are_counted_and_their_requests_executed() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;

    proxy.set(Fault::DropReplies);
    client
        .send("RPUSH list 1\r\nRPUSH list 2\r\nLRANGE list 0 -1\r\n")
        .await;
    counted(&proxy, |counts| counts.dropped_replies == 3).await;
    assert_eq!(length(&redis).await, 2);
    client.hears_nothing().await;

    // The stream has a gap: what came now would be taken for the answer to the first push.
    proxy.heal();
    client.send("RPUSH list 3\r\n").await;
    counted(&proxy, |counts| counts.dropped_replies == 4).await;
    assert_eq!(length(&redis).await, 3);
    client.hears_nothing().await;
}

#[tokio::test]
async fn the_next_reply_is_dropped_once_with_its_connection() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    proxy.set(Fault::DropNextReply);
    let lost = client.ask("RPUSH list 1\r\n").await.unwrap_err();
    assert_eq!(lost.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(length(&redis).await, 1);
    assert_eq!((proxy.dropped_replies(), proxy.fault()), (1, Fault::None));
    assert_eq!(
        Raw::connect(proxy.addr())
            .await
            .ask("LLEN list\r\n")
            .await
            .unwrap(),
        ":1"
    );
}

#[tokio::test]
async fn a_batch_is_cut_in_the_middle() {
    const COMMAND: &str = "RPUSH list abcdefghij\r\n";
    const WHOLE: usize = 5_000;
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;

    proxy.set(Fault::CutRequestAfter((WHOLE * COMMAND.len() + 7) as u64));
    let _ = client
        .stream
        .write_all(COMMAND.repeat(WHOLE + 100).as_bytes())
        .await;
    assert!(client.ends().await, "the connection goes on");
    let all = || async { length(&redis).await == WHOLE };
    wait_until("the commands before the cut", PLENTY, all)
        .await
        .unwrap();
    pinged(&proxy).await;
    assert_eq!(length(&redis).await, WHOLE);
}

#[tokio::test]
async fn latency_holds_replies_back_in_order() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;

    proxy.set(Fault::Latency(A_WHILE));
    let sent = Instant::now();
    assert_eq!(client.ask("RPUSH list 1\r\n").await.unwrap(), ":1");
    assert!(sent.elapsed() >= A_WHILE);

    client.send("RPUSH list 2\r\n").await;
    proxy.heal();
    client.send("RPUSH list 3\r\n").await;
    assert_eq!(client.line().await.unwrap(), ":2");
    assert_eq!(client.line().await.unwrap(), ":3");
}

#[tokio::test]
async fn a_stall_holds_everything_and_loses_nothing() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    let mut given_up = pinged(&proxy).await;

    proxy.set(Fault::Stall);
    client.send("RPUSH list 1\r\n").await;
    client.hears_nothing().await;
    given_up.send("RPUSH other 1\r\n").await;
    drop(given_up);
    let mut during = Raw::connect(proxy.addr()).await;
    during.send("PING\r\n").await;
    during.hears_nothing().await;
    assert_eq!(length(&redis).await, 0);

    proxy.heal();
    assert_eq!(client.line().await.unwrap(), ":1");
    assert_eq!(during.line().await.unwrap(), "+PONG");
    let late = || async { length_of(&redis, "other").await == 1 };
    wait_until("the push of one who is gone", PLENTY, late)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reply_is_cut_in_the_middle() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    proxy.set(Fault::CutReplyAfter(":1\r\n:".len() as u64));
    client.send("RPUSH list 1\r\nRPUSH list 2\r\n").await;
    assert_eq!(client.line().await.unwrap(), ":1");
    let mut rest = Vec::new();
    let end = timeout(PLENTY, client.stream.read_to_end(&mut rest)).await;
    assert_eq!(
        end.unwrap().unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(rest, b":");
    counted(&proxy, |counts| counts.dropped_replies == 1).await;
    assert_eq!(length(&redis).await, 2);
    assert_eq!(proxy.fault(), Fault::None);
    pinged(&proxy).await;
}

#[tokio::test]
async fn jitter_holds_replies_back_in_order_and_never_too_short() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    proxy.set(Fault::Jitter {
        least: A_WHILE,
        most: A_WHILE * 2,
        seed: 7,
    });
    let sent = Instant::now();
    for number in 1..4 {
        client.send("RPUSH list 1\r\n").await;
        assert_eq!(client.line().await.unwrap(), format!(":{number}"));
    }
    assert!(sent.elapsed() >= A_WHILE * 3);
}

#[tokio::test]
async fn a_throttled_line_is_slow_both_ways_until_it_is_healed() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    let echo = format!("ECHO {}\r\n", "x".repeat(1_000));
    proxy.set(Fault::Throttle(10_000));
    let sent = Instant::now();
    client.send(&echo).await;
    assert_eq!(client.line().await.unwrap(), "$1000");
    assert!(sent.elapsed() >= A_WHILE);
    client.line().await.unwrap();

    proxy.set(Fault::Throttle(1));
    client.send(&echo).await;
    client.hears_nothing().await;
    proxy.heal();
    assert_eq!(client.line().await.unwrap(), "$1000");
}

#[tokio::test]
async fn a_slow_door_serves_the_new_late_and_the_open_at_once() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = pinged(&proxy).await;
    proxy.set(Fault::SlowAccept(A_WHILE));
    let asked = Instant::now();
    pinged(&proxy).await;
    assert!(asked.elapsed() >= A_WHILE);

    proxy.set(Fault::SlowAccept(Duration::from_secs(3_600)));
    assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
    let mut waits = Raw::connect(proxy.addr()).await;
    waits.send("PING\r\n").await;
    waits.hears_nothing().await;
    proxy.heal();
    assert_eq!(waits.line().await.unwrap(), "+PONG");
}

#[tokio::test]
async fn a_fault_of_one_source_is_not_felt_by_the_others() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let there = IpAddr::from([127, 0, 0, 77]);
    let mut here = pinged(&proxy).await;
    let mut far = Raw::connect_from(there, proxy.addr()).await;
    assert_eq!(far.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.set_from(there, Fault::BlackHole);
    far.send("PING\r\n").await;
    far.hears_nothing().await;
    assert_eq!(here.ask("PING\r\n").await.unwrap(), "+PONG");
    pinged(&proxy).await;

    proxy.set_from(there, Fault::Reset);
    far.is_reset().await;
    Raw::connect_from(there, proxy.addr())
        .await
        .is_reset()
        .await;
    assert_eq!(here.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.heal();
    let mut far = Raw::connect_from(there, proxy.addr()).await;
    assert_eq!(far.ask("PING\r\n").await.unwrap(), "+PONG");
    proxy.cut_from(there);
    far.is_reset().await;
    assert_eq!(here.ask("PING\r\n").await.unwrap(), "+PONG");
}

#[tokio::test]
async fn a_redis_that_dies_behind_the_proxy_ends_its_connections() {
    let (mut redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    redis.kill().await.unwrap();
    assert!(client.ends().await);
    let mut new = Raw::connect(proxy.addr()).await;
    new.is_reset().await;
    redis.restart().await.unwrap();
    pinged(&proxy).await;
}

#[tokio::test]
async fn a_dropped_proxy_refuses_and_ends_its_connections() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = pinged(&proxy).await;
    let addr = proxy.addr();
    drop(proxy);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(client.ends().await);
}

async fn redis_behind_a_proxy() -> (RedisServer, FaultProxy) {
    let redis = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    (redis, proxy)
}

/// Through the proxy, and known to be open on both sides of it.
async fn pinged(proxy: &FaultProxy) -> Raw {
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");
    client
}

async fn counted(proxy: &FaultProxy, wanted: impl FnMut(&Counts) -> bool) -> Counts {
    timeout(PLENTY, proxy.wait_for(wanted))
        .await
        .expect("the counts hang")
}

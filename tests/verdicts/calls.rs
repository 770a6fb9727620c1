//! The verdicts at work in [`Seawall::call`](seawall::Seawall::call): who tries again, who opens the
//! breaker.

use std::time::Duration;

use seawall::{
    breaker::State,
    call::Repeat,
    classify::{Class, Landed},
};

use crate::support::{LOST, Line, OUTAGE, call, chain, server, tell, transaction};

#[tokio::test]
async fn an_outage_is_not_tried_again_and_opens_the_breaker() {
    let redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    tell(&redis, "CONFIG SET maxmemory 1").await;
    let refused = loop {
        let write = transaction(&["SET a 1"]);
        let error = line
            .seawall
            .call(write)
            .await
            .expect_err("it has no memory");
        assert_eq!(error.verdict(), OUTAGE);
        if error.is_breaker_open() {
            break error;
        }
        assert_eq!(error.attempts(), 1, "{error:?}");
    };
    assert!(refused.retry_after().is_some(), "{refused:?}");
    assert!(line.seawall.health().outage_since.is_some());
    tell(&redis, "CONFIG SET maxmemory 0").await;
    line.comes_back().await;
}

#[tokio::test]
async fn a_call_that_is_wrong_says_so_at_once_and_speaks_for_redis() {
    let redis = server().await;
    tell(&redis, "SET text x").await;
    let line = Line::to(&redis.url()).await.connected().await;
    for _ in 0..50 {
        let error = line.seawall.call(call("LPUSH text x")).await.unwrap_err();
        assert!(error.is_permanent() && error.attempts() == 1, "{error:?}");
    }
    assert_eq!(line.seawall.health().breaker, State::Closed);
}

/// Sends `call` to a Redis that stands still until the first attempt has been given up.
async fn through_a_frozen_redis(call: seawall::RedisCall) -> (Line, Result<i64, seawall::Error>) {
    let redis = server().await;
    let line = Line::with(&redis.url(), |builder| {
        builder.connection(|options| {
            options
                .with_response_timeout(Duration::from_millis(100))
                .with_suspect_after(1000)
                .with_probe(Duration::from_secs(3600), Duration::from_secs(1))
        })
    })
    .await
    .connected()
    .await;
    tell(&redis, "SET n 7").await;
    redis.freeze().await.unwrap();
    let (answer, ()) = tokio::join!(line.seawall.call(call), async {
        line.comes_to_show("seawall_attempts_total{outcome=\"timeout\"} 1")
            .await;
        redis.thaw().unwrap();
    });
    let answer = answer.map(|reply| reply.decode().unwrap());
    // What was given up is carried out all the same, and no more than once.
    let all: i64 = redis
        .command(redis::cmd("INCRBY").arg("n").arg(0))
        .await
        .unwrap();
    assert!(all == 7 || all == 8, "{all}");
    (line, answer)
}

#[tokio::test]
async fn a_lost_answer_is_not_risked_twice_unless_that_is_safe() {
    let (_line, answer) = through_a_frozen_redis(call("INCR n")).await;
    let error = answer.expect_err("its answer is lost");
    assert_eq!(
        (error.verdict(), error.attempts()),
        (LOST, 1),
        "{}",
        chain(&error)
    );

    let (line, answer) = through_a_frozen_redis(call("GET n")).await;
    assert_eq!(answer.expect("it is asked again"), 7);
    assert!(!line.shows("seawall_retries_total 0"));

    let set = call("SET n 7 GET").with_repeat(Repeat::Safe);
    let (_line, answer) = through_a_frozen_redis(set).await;
    assert_eq!(answer.expect("it is set again"), 7);
}

#[tokio::test]
async fn an_answer_of_another_type_has_been_carried_out() {
    let redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    let reply = line.seawall.call(call("INCR n")).await.unwrap();
    let error = seawall::Error::from(reply.decode::<Vec<String>>().unwrap_err());
    assert_eq!(error.verdict().class, Class::Permanent);
    assert_eq!(error.verdict().landed, Landed::Yes);
}

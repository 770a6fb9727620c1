//! Redis answers, and the answer is no: by itself, in a pipeline, in a transaction, in a script.

use std::time::Duration;

use seawall::{
    RedisCall,
    call::ScriptCall,
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    connect::Trouble,
};

use crate::support::{
    NOT_NOW, OUTAGE, PERMANENT, PLENTY, REFUSING, call, chain, cmd, connection, open, pipeline,
    refusal, script, send, server, server_with, tell, transaction,
};
use tokio::time::timeout;

/// What is refused whole has not landed, and is an outage: it waits until Redis takes it.
#[tokio::test]
async fn a_redis_that_takes_no_writes_is_an_outage_in_whatever_shape_they_come() {
    let redis = server().await;
    let partly = Verdict::new(Class::Outage, Landed::Yes);
    for state in &REFUSING {
        #[rustfmt::skip]
        let rows = [
            ("a command",                       call("SET a 1"),                      OUTAGE),
            ("a transaction",                   transaction(&["SET a 1", "SET b 1"]), OUTAGE),
            ("a transaction that reads first",  transaction(&["GET a", "SET b 1"]),   OUTAGE),
            ("a pipeline",                      pipeline(&["SET a 1", "SET b 1"]),    OUTAGE),
            ("a pipeline of one",               pipeline(&["SET a 1"]),               OUTAGE),
            ("a pipeline that reads first",     pipeline(&["GET a", "SET b 1"]),      partly),
            ("a pipeline that reads last",      pipeline(&["SET a 1", "GET b"]),      partly),
            ("a script",                        script(),                             OUTAGE),
        ];
        for (shape, call, verdict) in rows {
            // A new one each time: READONLY costs the connection.
            let connection = connection(&redis.url()).await;
            send(&connection, script())
                .await
                .expect("it is in the cache now");
            tell(&redis, state.on).await;
            let error = refusal(&connection, call).await;
            let context = format!("{}, {shape}: {}", state.code, chain(&error));
            assert_eq!(error.verdict(), verdict, "{context}");
            assert!(context.matches(state.code).count() > 1, "{context}");
            tell(&redis, state.off).await;
        }
    }
}

#[tokio::test]
async fn each_refusal_of_one_call_has_its_verdict() {
    let redis = server().await;
    tell(&redis, "SET text x").await;
    tell(&redis, "ACL SETUSER default -incr").await;
    #[rustfmt::skip]
    let rows = [
        ("WRONGTYPE", call("LPUSH text x"),                             PERMANENT),
        ("WRONGTYPE", transaction(&["LPUSH text x"]),                   PERMANENT),
        ("WRONGTYPE", pipeline(&["LPUSH text x", "SADD text x"]),       PERMANENT),
        ("NOPERM",    call("INCR n"),                                   PERMANENT),
        ("NOPERM",    transaction(&["SET n 1", "INCR n"]),              PERMANENT),
        ("syntax",    call("SET a 1 BOGUS"),                            PERMANENT),
        ("unknown",   call("NOSUCHCOMMAND a"),                          PERMANENT),
        ("unknown",   transaction(&["SET n 1", "NOSUCHCOMMAND a"]),     PERMANENT),
        ("wrong number", call("GET"),                                   PERMANENT),
        ("WRONGPASS", call("AUTH nobody wrong"),                        OUTAGE),
    ];
    for (code, call, verdict) in rows {
        let connection = connection(&redis.url()).await;
        let error = refusal(&connection, call).await;
        let context = format!("{code}: {}", chain(&error));
        assert_eq!(error.verdict(), verdict, "{context}");
        assert!(context.matches(code).count() > 1, "{context}");
    }
}

/// EXEC has run the others: Redis has no rollback.
#[tokio::test]
async fn a_command_that_fails_inside_exec_leaves_the_others_done() {
    let redis = server().await;
    tell(&redis, "SET text x").await;
    let connection = connection(&redis.url()).await;
    for mixed in [
        transaction(&["SET a 1", "LPUSH text x"]),
        pipeline(&["SET a 1", "LPUSH text x"]),
    ] {
        tell(&redis, "DEL a").await;
        let error = refusal(&connection, mixed).await;
        assert_eq!(
            error.verdict(),
            Verdict::new(Class::Permanent, Landed::Yes),
            "{error:?}"
        );
        let done: u8 = redis.command(redis::cmd("GET").arg("a")).await.unwrap();
        assert_eq!(done, 1);
    }
}

/// A demoted master answers politely for ever; whoever stays with it writes nothing any more.
#[tokio::test]
async fn readonly_gives_the_connection_up_and_looks_for_a_master() {
    let redis = server().await;
    for refused in [
        call("SET a 1"),
        transaction(&["SET a 1"]),
        pipeline(&["GET a", "SET a 1"]),
        script(),
    ] {
        let connection = connection(&redis.url()).await;
        tell(&redis, "REPLICAOF 127.0.0.1 1").await;
        let _ = refusal(&connection, refused).await;
        let mut status = connection.status();
        let down = status.wait_for(|status| !status.up).await.unwrap();
        assert_eq!(down.trouble, Some(Trouble::Replica));
        drop(down);
        let error = refusal(&connection, call("SET a 1")).await;
        assert_eq!(error.verdict(), OUTAGE);
        tell(&redis, "REPLICAOF NO ONE").await;
        connection.wait_ready(PLENTY).await.unwrap();
        send(&connection, call("SET a 1"))
            .await
            .expect("a master again");
    }
}

#[tokio::test]
async fn a_replica_without_its_master_is_an_outage() {
    let redis = server_with(&[("replica-serve-stale-data", "no")]).await;
    let connection = connection(&redis.url()).await;
    tell(&redis, "REPLICAOF 127.0.0.1 1").await;
    let error = refusal(&connection, call("GET a")).await;
    assert_eq!(error.verdict(), OUTAGE);
    assert!(chain(&error).contains("MASTERDOWN"), "{}", chain(&error));
}

#[tokio::test]
async fn a_script_that_runs_too_long_is_an_outage_until_it_ends() {
    let redis = server().await;
    let connection = connection(&redis.url()).await;
    let mut elsewhere = redis.connection().await.unwrap();
    let endless = tokio::spawn(async move {
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .query_async::<()>(&mut elsewhere)
            .await
    });
    let said_busy = async || match send(&connection, call("SET a 1")).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.verdict(), OUTAGE);
            chain(&error).contains("BUSY")
        }
    };
    wait_until("BUSY", PLENTY, said_busy).await.unwrap();
    // In a transaction and in a script, too.
    for refused in [transaction(&["SET a 1"]), script()] {
        let error = refusal(&connection, refused).await;
        assert_eq!(error.verdict(), OUTAGE, "{}", chain(&error));
    }
    tell(&redis, "SCRIPT KILL").await;
    assert!(endless.await.unwrap().is_err());
    send(&connection, call("SET a 1"))
        .await
        .expect("it has ended");
}

/// The same socket, while the server reads its data in.
#[tokio::test]
async fn loading_is_an_outage() {
    let redis = server_with(&[
        ("enable-debug-command", "yes"),
        ("key-load-delay", "2000"),
        ("loading-process-events-interval-bytes", "1024"),
    ])
    .await;
    tell(&redis, "DEBUG POPULATE 2000 key 100").await;
    let connection = open(&redis.url(), |options| {
        options
            .with_response_timeout(Duration::from_secs(1))
            .with_suspect_after(u32::MAX)
    });
    connection.wait_ready(PLENTY).await.unwrap();
    let mut elsewhere = redis.connection().await.unwrap();
    let reloading = tokio::spawn(async move {
        loop {
            let _ = cmd("DEBUG RELOAD").query_async::<()>(&mut elsewhere).await;
        }
    });
    let said_loading = async || match send(&connection, call("SET a 1")).await {
        Err(error) if chain(&error).contains("LOADING") => {
            assert_eq!(error.verdict(), OUTAGE);
            true
        }
        _ => false,
    };
    wait_until("LOADING", PLENTY, said_loading).await.unwrap();
    // Nobody new is let in either.
    let newcomer = open(&redis.url(), |options| options);
    let mut status = newcomer.status();
    let refused = status.wait_for(|status| status.trouble == Some(Trouble::Loading));
    drop(timeout(PLENTY, refused).await.unwrap().unwrap());
    assert_eq!(refusal(&newcomer, call("SET a 1")).await.verdict(), OUTAGE);
    reloading.abort();
    tell(&redis, "CONFIG SET key-load-delay 0").await;
    newcomer.wait_ready(PLENTY).await.unwrap();
    send(&newcomer, call("SET a 1")).await.expect("loaded");
}

#[tokio::test]
async fn a_login_that_has_gone_is_an_outage_and_costs_the_connection() {
    let redis = server().await;
    let connection = connection(&redis.url()).await;
    tell(&redis, "CONFIG SET requirepass rotated").await;
    // What has logged in stays so, until it is made to forget.
    send(&connection, call("SET a 1"))
        .await
        .expect("still logged in");
    let _ = send(&connection, call("RESET")).await;
    let error = refusal(&connection, call("SET a 1")).await;
    assert_eq!(error.verdict(), OUTAGE);
    assert!(chain(&error).contains("NOAUTH"), "{}", chain(&error));
    let mut status = connection.status();
    let refused = status.wait_for(|status| status.trouble == Some(Trouble::Credentials));
    drop(refused.await.unwrap());
}

#[tokio::test]
async fn a_pool_of_our_own_that_is_busy_is_not_redis_fault() {
    let redis = server_with(&[]).await;
    let connection = open(&redis.url(), |options| {
        options.with_exclusive(1, Duration::from_millis(1))
    });
    connection.wait_ready(PLENTY).await.unwrap();
    let _held = connection.exclusive().await.unwrap();
    let error = connection
        .exclusive()
        .await
        .expect_err("the only one is taken");
    assert_eq!(error.verdict(), NOT_NOW);
    assert_eq!(error.verdict().speaks_against(), None);
}

/// What it did before it failed stays done.
#[tokio::test]
async fn a_script_that_fails_by_itself_may_have_landed() {
    const SOURCE: &str = "redis.call('SET', KEYS[1], '1') return redis.call('LPUSH', KEYS[1], '1')";
    let redis = server().await;
    let connection = connection(&redis.url()).await;
    let mut evalsha = redis::cmd("EVALSHA");
    evalsha
        .arg(redis::Script::new(SOURCE).get_hash())
        .arg(1)
        .arg("written");
    let call = RedisCall::new("test", ScriptCall::new(SOURCE, evalsha));
    let error = refusal(&connection, call).await;
    assert!(error.is_permanent() && error.may_have_landed(), "{error:?}");
}

//! Jobs that Redis does not take now: they wait, as a whole and in order, and go when it is put right.

use seawall::{
    Job,
    chaos::{RedisServer, wait_until},
    connect::Trouble,
    job::Destination,
    sequence::Command,
};

use crate::support::{Line, PLENTY, REFUSING, cmd, info, list, numbers, server, server_with, tell};

/// The same jobs through both scripts: the one for pushes, and the one for groups of commands.
fn job(queue: &'static str, number: u64, group: bool) -> Job {
    let job = Job::new(queue, number.to_string());
    if group {
        let push = Command::new("RPUSH").arg(queue).arg(number.to_string());
        let count = Command::new("INCR").arg(format!("{queue}:count"));
        job.with_destination(Destination::commands(vec![push, count]))
    } else {
        job
    }
}

async fn hand_in(line: &Line, queue: &'static str, numbers: std::ops::Range<u64>, group: bool) {
    for number in numbers {
        let receipt = line.seawall.enqueue(job(queue, number, group)).await;
        let _ = receipt.unwrap_or_else(|error| panic!("not accepted: {error:?}"));
    }
}

/// Nothing is refused for good, nothing is in twice, and the lane is direct again.
async fn all_went(line: &Line, redis: &RedisServer, queue: &str, count: u64) {
    line.drained().await;
    assert_eq!(list(redis, queue).await, numbers(0..count));
    assert_eq!(line.seawall.health().spool.parked, 0);
    line.comes_to_show("seawall_lanes{state=\"direct\"} 1")
        .await;
}

#[tokio::test]
async fn jobs_wait_for_a_redis_that_takes_no_writes_and_then_go() {
    let redis = server().await;
    for group in [false, true] {
        for state in &REFUSING {
            tell(&redis, "FLUSHALL").await;
            let line = Line::to(&redis.url()).await.connected().await;
            hand_in(&line, "q", 0..5, group).await;
            tell(&redis, state.on).await;
            hand_in(&line, "q", 5..20, group).await;
            let health = line.seawall.health();
            assert_eq!(health.spool.records, 15, "{}: {health:?}", state.code);
            assert_eq!(list(&redis, "q").await, numbers(0..5), "{}", state.code);
            tell(&redis, state.off).await;
            all_went(&line, &redis, "q", 20).await;
        }
    }
}

#[tokio::test]
async fn jobs_wait_while_another_script_runs_too_long() {
    for group in [false, true] {
        let redis = server().await;
        let line = Line::to(&redis.url()).await.connected().await;
        hand_in(&line, "q", 0..5, group).await;
        let mut elsewhere = redis.connection().await.unwrap();
        let endless = tokio::spawn(async move {
            let mut script = redis::cmd("EVAL");
            script.arg("while true do end").arg(0);
            script.query_async::<()>(&mut elsewhere).await
        });
        let busy = async || {
            let ping = redis.command::<String>(&cmd("PING")).await;
            ping.is_err_and(|error| error.code() == Some("BUSY"))
        };
        wait_until("BUSY", PLENTY, busy).await.unwrap();
        hand_in(&line, "q", 5..20, group).await;
        assert_eq!(line.seawall.health().spool.records, 15);
        tell(&redis, "SCRIPT KILL").await;
        let _ = endless.await.unwrap();
        all_went(&line, &redis, "q", 20).await;
    }
}

#[tokio::test]
async fn jobs_wait_while_a_restarted_redis_loads() {
    let mut redis = RedisServer::builder()
        .durable()
        .arg("enable-debug-command", "yes")
        .arg("loading-process-events-interval-bytes", "1024")
        .arg("key-load-delay", "500")
        .start()
        .await
        .unwrap();
    tell(&redis, "DEBUG POPULATE 3000 key 100").await;
    // So that the keys are in the file that is loaded.
    tell(&redis, "BGREWRITEAOF").await;
    let rewritten = async || {
        let info = info(&redis, "persistence").await;
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_last_bgrewrite_status:ok")
    };
    wait_until("a rewritten file", PLENTY, rewritten)
        .await
        .unwrap();
    let line = Line::to(&redis.url()).await.connected().await;
    hand_in(&line, "q", 0..5, false).await;
    redis.kill().await.unwrap();
    let mut status = line.seawall.connection().status();
    let (restarted, ()) = tokio::join!(redis.restart(), async {
        let loading = status.wait_for(|status| status.trouble == Some(Trouble::Loading));
        drop(
            tokio::time::timeout(PLENTY, loading)
                .await
                .expect("it loads")
                .unwrap(),
        );
        hand_in(&line, "q", 5..20, false).await;
    });
    restarted.unwrap();
    all_went(&line, &redis, "q", 20).await;
}

#[tokio::test]
async fn a_rotated_password_throws_no_job_away() {
    let redis = server().await;
    tell(&redis, "ACL SETUSER app on >first ~* &* +@all").await;
    let url = format!("redis://app:first@{}", redis.addr());
    let line = Line::to(&url).await.connected().await;
    hand_in(&line, "q", 0..5, false).await;
    // The server says WRONGPASS from here on.
    tell(&redis, "ACL SETUSER app resetpass >second").await;
    tell(&redis, "CLIENT KILL USER app").await;
    hand_in(&line, "q", 5..20, false).await;
    let mut status = line.seawall.connection().status();
    drop(
        status
            .wait_for(|status| status.trouble == Some(Trouble::Credentials))
            .await
            .unwrap(),
    );
    assert_eq!(line.seawall.health().spool.records, 15);
    tell(&redis, "ACL SETUSER app resetpass >first").await;
    all_went(&line, &redis, "q", 20).await;
}

#[tokio::test]
async fn a_password_that_is_asked_for_of_a_sudden_throws_no_job_away() {
    let redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    hand_in(&line, "q", 0..5, false).await;
    // The server says NOAUTH from here on, except to this one.
    let mut operator = redis.connection().await.unwrap();
    let mut say = async |line: &str| {
        cmd(line)
            .query_async::<redis::Value>(&mut operator)
            .await
            .unwrap()
    };
    say("CONFIG SET requirepass sudden").await;
    say("CLIENT KILL TYPE normal SKIPME yes").await;
    hand_in(&line, "q", 5..20, false).await;
    let mut status = line.seawall.connection().status();
    drop(
        status
            .wait_for(|status| status.trouble == Some(Trouble::Credentials))
            .await
            .unwrap(),
    );
    assert_eq!(line.seawall.health().spool.records, 15);
    // As `requirepass ""` in the configuration.
    say("ACL SETUSER default nopass").await;
    all_went(&line, &redis, "q", 20).await;
}

/// A missing permission is nobody's fault but the operator's: the lane is blocked, loudly, and keeps
/// what it has.
async fn a_missing_permission_blocks(taken: &str, given: &str) {
    for group in [false, true] {
        let redis = server().await;
        tell(&redis, "ACL SETUSER app on >pw ~* &* +@all").await;
        let url = format!("redis://app:pw@{}", redis.addr());
        let line = Line::to(&url).await.connected().await;
        hand_in(&line, "q", 0..5, group).await;
        tell(&redis, &format!("ACL SETUSER app {taken}")).await;
        hand_in(&line, "q", 5..20, group).await;
        line.comes_to_show("seawall_lanes{state=\"blocked\"} 1")
            .await;
        let health = line.seawall.health();
        assert_eq!(
            (health.spool.records, health.spool.parked),
            (15, 0),
            "{taken}"
        );
        assert_eq!(list(&redis, "q").await, numbers(0..5), "{taken}");
        tell(&redis, &format!("ACL SETUSER app {given}")).await;
        all_went(&line, &redis, "q", 20).await;
    }
}

#[tokio::test]
async fn a_lane_that_may_run_no_scripts_is_blocked_with_its_records_kept() {
    a_missing_permission_blocks("-@scripting", "+@scripting").await;
}

#[tokio::test]
async fn a_lane_that_may_not_push_is_blocked_with_its_records_kept() {
    a_missing_permission_blocks("-rpush", "+rpush").await;
}

#[tokio::test]
async fn a_lane_that_may_not_keep_its_number_is_blocked_and_pushes_nothing_twice() {
    a_missing_permission_blocks("-set", "+set").await;
}

/// What docs/operations.md tells to give to an ACL user.
#[tokio::test]
async fn a_user_needs_no_more_than_the_runbook_says() {
    let redis = server().await;
    tell(
        &redis,
        "ACL SETUSER app on >pw resetkeys ~q ~seawall:* nocommands \
         +evalsha +script|load +get +set +unlink +ping +role +rpush",
    )
    .await;
    let url = format!("redis://app:pw@{}", redis.addr());
    let line = Line::to(&url).await.connected().await;
    hand_in(&line, "q", 0..20, false).await;
    assert_eq!(line.seawall.health().spool.records, 0);
    let left = line.seawall.shutdown(PLENTY).await.unwrap();
    assert_eq!(left, 0);
    assert_eq!(list(&redis, "q").await, numbers(0..20));
    let keys: Vec<String> = redis.command(&cmd("KEYS seawall:*")).await.unwrap();
    assert!(keys.is_empty(), "the lane has not ended: {keys:?}");
}

#[tokio::test]
async fn a_blocked_lane_holds_up_no_other_queue() {
    let redis = server().await;
    tell(
        &redis,
        "ACL SETUSER app on >pw resetkeys ~open ~seawall:{open}:* &* +@all",
    )
    .await;
    let url = format!("redis://app:pw@{}", redis.addr());
    let line = Line::to(&url).await.connected().await;
    hand_in(&line, "shut", 0..20, false).await;
    for number in 0..20 {
        let receipt = line.seawall.enqueue(job("open", number, false)).await;
        assert!(receipt.unwrap().is_delivered());
    }
    line.comes_to_show("seawall_lanes{state=\"blocked\"} 1")
        .await;
    line.comes_to_show("seawall_lanes{state=\"direct\"} 1")
        .await;
    assert!(list(&redis, "shut").await.is_empty());
    tell(&redis, "ACL SETUSER app ~*").await;
    line.drained().await;
    assert_eq!(list(&redis, "shut").await, numbers(0..20));
    assert_eq!(list(&redis, "open").await, numbers(0..20));
}

#[tokio::test]
async fn jobs_wait_for_a_cluster_that_serves_no_slots() {
    let redis = server_with(&[("cluster-enabled", "yes")]).await;
    let line = Line::to(&redis.url()).await.connected().await;
    // A group's other key would be in another slot.
    hand_in(&line, "q", 0..20, false).await;
    assert_eq!(line.seawall.health().spool.records, 20);
    tell(&redis, "CLUSTER ADDSLOTSRANGE 0 16383").await;
    line.drained().await;
    assert_eq!(list(&redis, "q").await, numbers(0..20));
}

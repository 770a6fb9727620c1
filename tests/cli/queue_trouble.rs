//! queue: a Redis that is away, hangs, or does not let us in, and a user who may do what is documented.

use seawall::chaos::RedisServer;
use serde_json::Value;

use super::{queue::run, queues::Scene};

/// All that there is to ask.
const COMMANDS: [&[&str]; 8] = [
    &["stat"],
    &["stat", "emails"],
    &["jobs", "emails"],
    &["job", "emails", "019a0000-0000-7000-8000-000000000001"],
    &["dead", "list", "emails"],
    &["dead", "purge", "emails", "--all"],
    &["requeue", "emails", "--all"],
    &["workers", "emails"],
];

#[tokio::test]
async fn without_redis_it_says_so_and_no_password() {
    let away = "redis://app:hunter2@127.0.0.1:1";
    for command in COMMANDS {
        let arguments = [command, &["--redis", away, "--timeout", "200ms"]].concat();
        let said = run(&arguments).await.ends(6);
        assert!(
            said.err.contains("Redis is away") && said.err.contains("next: "),
            "{}",
            said.err
        );
        assert!(!said.all().contains("hunter2"), "{}", said.all());
        let said = run(&[&arguments[..], &["--json"]].concat()).await.ends(6);
        let error: Value = serde_json::from_str(&said.err).unwrap();
        assert_eq!(error["error"]["code"], 6);

        run(command).await.ends(2);
        for url in [
            "http://h",
            "redis://u:hunter2@[",
            "redis://u:hunter2@h/1?nonsense=1",
        ] {
            let wrong = run(&[command, &["--redis", url]].concat()).await.ends(2);
            assert!(!wrong.all().contains("hunter2"), "{}", wrong.all());
        }
    }
    let misplaced = run(&["stat", "redis://u:hunter2@h"]).await.ends(2);
    assert!(!misplaced.all().contains("hunter2"), "{}", misplaced.all());
}

#[tokio::test]
async fn a_wrong_password_and_a_user_who_may_not_are_told_apart() {
    let redis = RedisServer::builder()
        .password("right")
        .start()
        .await
        .unwrap();
    let wrong = format!("redis://:wr0ng@{}", redis.addr());
    // That does not get better, and is not waited for.
    let arguments = ["stat", "emails", "--redis", &wrong, "--timeout", "1h"];
    let said = run(&arguments).await.ends(6);
    assert!(
        said.err.contains("user and password") && !said.all().contains("wr0ng"),
        "{}",
        said.all()
    );

    let mut user = redis::Cmd::new();
    for word in "ACL SETUSER looker on >secret ~seawall:* +ping +info +role".split(' ') {
        user.arg(word);
    }
    redis.command::<()>(&user).await.unwrap();
    let url = format!("redis://looker:secret@{}", redis.addr());
    let said = run(&["stat", "emails", "--redis", &url, "--timeout", "60s"])
        .await
        .ends(1);
    assert!(
        said.err.contains("NOPERM") && said.err.contains("next: give the user"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn a_frozen_redis_is_given_up() {
    let redis = RedisServer::start().await.unwrap();
    redis.freeze().await.unwrap();
    for command in COMMANDS {
        let url = redis.url();
        let arguments = [command, &["--redis", &url, "--timeout", "100ms"]].concat();
        let said = run(&arguments).await.ends(6);
        assert!(said.err.contains("next: "), "{}", said.err);
    }
    redis.thaw().unwrap();
}

/// As docs/operations.md lists them.
#[tokio::test]
async fn the_commands_that_are_documented_are_enough() {
    let scene = Scene::new().await;
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, listed) = manual.split_once("- The ACL user needs `+evalsha").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let words = listed.split(|c: char| !c.is_alphanumeric() && !"+|".contains(c));
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("looker").arg("on").arg(">secret");
    user.arg("~seawall:*").arg("+evalsha");
    for word in words.filter(|word| word.starts_with('+')) {
        user.arg(word);
    }
    scene.redis.command::<()>(&user).await.unwrap();
    // Not one that an application has loaded.
    let url = format!("redis://looker:secret@{}", scene.redis.addr());
    for _ in 0..3 {
        scene.dead("timeout").await;
        scene.running().await;
    }
    let dead = scene.dead("timeout").await.to_string();
    let queued = scene.queued().await.to_string();
    for arguments in [
        ["stat"].as_slice(),
        &["stat", "emails"],
        &["jobs", "emails"],
        &["jobs", "emails", "--retriers"],
        &["job", "emails", &dead],
        &["workers", "emails"],
        &["requeue", "emails", &dead],
        &["requeue", "emails", "--all", "--error", "timeout"],
        &["dead", "purge", "emails", "--all"],
        &["delete", "emails", &queued],
    ] {
        let arguments = [arguments, &["--redis", &url, "--timeout", "60s"]].concat();
        run(&arguments).await.ends(0);
    }
}

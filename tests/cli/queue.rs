//! queue: what it says of the queues of workers, what it does about dead letters, and what it keeps to itself.

use std::{collections::BTreeSet, ffi::OsStr};

use seawall::{Job, chaos::RedisCluster, job::JobId, worker::JobState};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    queues::{Scene, TOKEN, in_an_hour},
    support::{Said, said},
};

/// `seawall queue <arguments>`.
fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command
        .arg("queue")
        .args(arguments)
        .env_remove("SEAWALL_SPOOL_DIR")
        .env_remove("SEAWALL_REDIS_URL")
        .env_remove("COLUMNS")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Said {
    said(command(arguments).spawn().unwrap()).await
}

/// With the application's own URL, from the environment.
async fn ask(scene: &Scene, arguments: &[&str]) -> Said {
    let url = format!("{}?spool_dir=/nowhere&spool_after=5ms", scene.redis.url());
    let mut command = command(arguments);
    // A busy machine is no failure.
    command.args(["--timeout", "60s"]);
    said(command.env("SEAWALL_REDIS_URL", url).spawn().unwrap()).await
}

fn rows(out: &str) -> Vec<Vec<&str>> {
    out.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[tokio::test]
async fn stat_counts_a_queue_and_all_queues() {
    let scene = Scene::new().await;
    assert_eq!(rows(&ask(&scene, &["stat"]).await.ends(0).out).len(), 1);
    for _ in 0..3 {
        scene.queued().await;
    }
    scene.scheduled().await;
    scene.running().await;
    scene.dead("timeout").await;
    scene
        .raw("HSET counters", &[b"succeeded", b"1234", b"dead", b"1"])
        .await;
    scene.add(Job::new("re\x1b[31mports", "x")).await;

    let stat = ask(&scene, &["stat", "emails", "--json"])
        .await
        .ends(0)
        .json();
    for (name, value) in [
        ("ready", 3),
        ("later", 1),
        ("running", 1),
        ("dead", 1),
        ("workers", 0),
    ] {
        assert_eq!(stat[name], value, "{name}");
    }
    assert_eq!(stat["counters"]["succeeded"], 1234);
    assert!(stat["oldest_ready_ms"].as_u64().unwrap() > 1_700_000_000_000);
    let said = ask(&scene, &["stat", "emails"]).await.ends(0).out;
    assert!(
        said.contains("ready      3, the first for ") && said.contains("1,234 succeeded"),
        "{said}"
    );

    let said = ask(&scene, &["stat"]).await.ends(0).out;
    let rows = rows(&said);
    assert_eq!(rows[0][..3], ["QUEUE", "READY", "LATER"]);
    assert_eq!(rows[1][..8], ["emails", "3", "1", "1", "0", "1", "0", "0"]);
    // What a queue is called is nothing for a terminal to obey.
    assert_eq!(rows[2][..2], ["re\\u{1b}[31mports", "1"]);
    let lines = ask(&scene, &["stat", "--json"]).await.ends(0).lines();
    assert_eq!(lines.len(), 2);
    let unknown = ask(&scene, &["stat", "nobodys", "--json"])
        .await
        .ends(0)
        .json();
    assert_eq!(
        (&unknown["ready"], &unknown["oldest_ready_ms"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn jobs_are_listed_by_state() {
    let scene = Scene::new().await;
    let ids = [
        (scene.queued().await, JobState::Queued),
        (scene.scheduled().await, JobState::Scheduled),
        (scene.running().await, JobState::Running),
        (scene.failed(2).await, JobState::Failed),
        (scene.dead("http_503").await, JobState::Dead),
        (scene.done('s').await, JobState::Succeeded),
    ];
    let said = ask(&scene, &["jobs", "emails"]).await.ends(0);
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    let rows = rows(&said.out);
    assert_eq!(
        rows[0],
        [
            "ID", "STATE", "ATTEMPTS", "ENQUEUED", "UNTIL", "BYTES", "ERROR"
        ]
    );
    for ((id, state), row) in ids.iter().zip(&rows[1..]) {
        assert_eq!(row[..2], [id.to_string(), state.to_string()]);
    }
    assert_eq!((rows[4][2], rows[4].last()), ("2", Some(&"timeout")));
    assert_eq!((rows[5][2], rows[5].last()), ("4", Some(&"http_503")));
    assert_eq!(rows.len(), 7);

    let some = [
        "jobs", "emails", "--json", "--state", "dead", "--state", "failed",
    ];
    let lines = ask(&scene, &some).await.ends(0).lines();
    let states: Vec<_> = lines.iter().map(|line| &line["state"]).collect();
    assert_eq!(states, ["dead", "failed"]);
    assert_eq!(lines[1]["error"]["error_type"], "timeout");
    assert_eq!(lines[1]["error"]["history"].as_array().unwrap().len(), 2);
    let one = ask(&scene, &["jobs", "emails", "--limit", "1"])
        .await
        .ends(0);
    assert_eq!(one.out.lines().count(), 2);
    ask(&scene, &["jobs", "emails", "--state", "lost"])
        .await
        .ends(2);

    scene.failed(7).await;
    let worst = ask(&scene, &["jobs", "emails", "--retriers", "--json"])
        .await
        .ends(0)
        .lines();
    let attempts: Vec<_> = worst.iter().map(|line| &line["attempts"]).collect();
    assert_eq!(attempts, [7, 2]);
}

#[tokio::test]
async fn long_lists_come_whole() {
    let scene = Scene::new().await;
    let jobs = (0..2_500).map(|at| Job::new("emails", format!("{at}")).for_worker());
    let jobs: Vec<_> = jobs.collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id().to_string()).collect();
    for receipt in scene.app.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    scene.app.flush().await;
    for (limit, there) in [("0", 2_500), ("1234", 1_234)] {
        let lines = ask(&scene, &["jobs", "emails", "--json", "--limit", limit])
            .await
            .ends(0)
            .lines();
        let found: Vec<_> = lines
            .iter()
            .map(|line| line["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, ids[..there]);
    }
}

#[tokio::test]
async fn a_job_is_shown_without_what_is_in_it_unless_that_is_asked_for() {
    let scene = Scene::new().await;
    let job = Job::new("emails", "s3cret").with_header("traceparent", "s3cret-too");
    let id = scene.add(job).await.to_string();
    let dead = scene.dead("http_503").await.to_string();
    let done = scene.done('s').await.to_string();

    let said = ask(&scene, &["job", "emails", &id]).await.ends(0);
    for part in [
        "state        queued",
        "attempts     0",
        "headers      traceparent",
        "payload      6 B",
    ] {
        assert!(said.out.contains(part), "{}", said.out);
    }
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    let said = ask(&scene, &["job", "emails", &id, "--payload"])
        .await
        .ends(0);
    assert!(
        said.out.contains("traceparent: s3cret-too") && said.out.contains("s3cret\n"),
        "{}",
        said.out
    );
    let found = ask(&scene, &["job", "emails", &id, "--json"])
        .await
        .ends(0)
        .json();
    assert_eq!(
        (&found["state"], &found["bytes"]),
        (&json!("queued"), &json!(6))
    );
    assert!(found.get("payload").is_none() && !found.to_string().contains("s3cret"));
    let found = ask(&scene, &["job", "emails", &id, "--json", "--payload"])
        .await
        .ends(0)
        .json();
    assert_eq!(found["payload"], json!({"text": "s3cret"}));

    let said = ask(&scene, &["dead", "show", "emails", &dead])
        .await
        .ends(0);
    assert!(
        said.out.contains("error        http_503: no answer"),
        "{}",
        said.out
    );
    assert_eq!(
        said.out.matches("http_503").count(),
        5,
        "with its history: {}",
        said.out
    );
    let found = ask(&scene, &["job", "emails", &done, "--json", "--payload"])
        .await
        .ends(0)
        .json();
    assert_eq!(found["result"], json!({"text": "the result"}));
    assert_eq!(found["attempts"], Value::Null);

    let unknown = JobId::from_bytes([7; 16]).to_string();
    for arguments in [
        ["job", "emails", &unknown].as_slice(),
        &["dead", "show", "emails", &unknown],
        &["dead", "show", "emails", &id],
    ] {
        let said = ask(&scene, arguments).await.ends(1);
        assert!(said.err.contains("next: "), "{}", said.err);
    }
    ask(&scene, &["job", "emails", "7"]).await.ends(2);
}

#[tokio::test]
async fn dead_letters_are_requeued_and_purged_and_it_says_how_many() {
    let scene = Scene::new().await;
    let mut timeouts = BTreeSet::new();
    for _ in 0..3 {
        timeouts.insert(scene.dead("timeout").await);
        scene.dead("http_503").await;
    }
    let one = timeouts.pop_first().unwrap().to_string();
    assert_eq!(
        ask(&scene, &["dead", "list", "emails", "--json"])
            .await
            .ends(0)
            .lines()
            .len(),
        6
    );

    let said = ask(&scene, &["requeue", "emails", &one]).await.ends(0);
    assert_eq!(said.out, "requeued 1 job\n");
    let again = ask(&scene, &["requeue", "emails", &one]).await.ends(1);
    assert!(
        again.err.contains("is not dead: it is queued"),
        "{}",
        again.err
    );
    let purged = ask(&scene, &["dead", "purge", "emails", &one])
        .await
        .ends(1);
    assert!(purged.err.contains("is not dead"), "{}", purged.err);

    let some = ["requeue", "emails", "--all", "--error", "timeout", "--json"];
    let said = ask(&scene, &some).await.ends(0).json();
    assert_eq!(
        said,
        json!({"queue": "emails", "fate": "requeued", "jobs": 2})
    );
    for id in timeouts {
        assert_eq!(scene.state(id).await, Some(JobState::Queued));
    }
    let none = ask(
        &scene,
        &["dead", "purge", "emails", "--all", "--error", "timeout"],
    )
    .await
    .ends(0);
    assert_eq!(none.out, "purged 0 jobs\n");
    let all = ask(&scene, &["dead", "purge", "emails", "--all"])
        .await
        .ends(0);
    assert_eq!(all.out, "purged 3 jobs\n");
    assert_eq!(scene.queue().stat().await.unwrap().dead, 0);

    // Which ones has to be said.
    for arguments in [
        ["requeue", "emails"].as_slice(),
        &["dead", "purge", "emails"],
        &["requeue", "emails", "--error", "timeout"],
        &["requeue", "emails", &one, "--all"],
        &["dead", "purge", "emails", &one, "--error", "timeout"],
    ] {
        ask(&scene, arguments).await.ends(2);
    }
    let deleted = ask(&scene, &["delete", "emails", &one]).await.ends(0);
    assert_eq!(deleted.out, "deleted 1 job\n");
    let running = scene.running().await.to_string();
    let refused = ask(&scene, &["delete", "emails", &running]).await.ends(1);
    assert!(refused.err.contains("it is running"), "{}", refused.err);
}

#[tokio::test]
async fn workers_are_listed_with_their_state() {
    let scene = Scene::new().await;
    let about =
        br#"{"host":"web-1","pid":4711,"queues":[{"name":"emails","weight":1}],"concurrency":16}"#;
    scene
        .raw(
            "ZADD workers",
            &[
                in_an_hour().as_bytes(),
                TOKEN.as_bytes(),
                b"1000",
                b"silent",
            ],
        )
        .await;
    scene.raw("HSET about", &[TOKEN.as_bytes(), about]).await;
    scene.running().await;
    let said = ask(&scene, &["workers", "emails"]).await.ends(0).out;
    let rows = rows(&said);
    assert_eq!(
        rows[1],
        [
            TOKEN, "alive", "web-1", "4711", "1", "16", "-", "-", "0", "emails"
        ]
    );
    assert_eq!(rows[2][..3], ["silent", "silent", "for"]);
    let lines = ask(&scene, &["workers", "emails", "--json"])
        .await
        .ends(0)
        .lines();
    assert_eq!(
        (&lines[0]["state"], &lines[0]["in_flight"]),
        (&json!("alive"), &json!(1))
    );
}

#[tokio::test]
async fn a_queue_whose_keys_are_spoilt_is_told_and_the_others_are_shown() {
    let scene = Scene::new().await;
    scene.queued().await;
    scene.add(Job::new("sms", "x")).await;
    scene.raw("DEL later", &[]).await;
    scene.raw("SET later", &[b"a string"]).await;
    let said = ask(&scene, &["stat"]).await.ends(1);
    assert_eq!(rows(&said.out)[1][..2], ["sms", "1"]);
    assert!(
        said.err.contains("emails: ") && said.err.contains(":later is a string"),
        "{}",
        said.err
    );
    assert!(said.err.contains("next: "), "{}", said.err);
    for arguments in [
        ["jobs", "emails"].as_slice(),
        &["dead", "list", "emails"],
        &["requeue", "emails", "--all"],
        &["dead", "purge", "emails", "--all"],
        &["workers", "emails"],
    ] {
        ask(&scene, arguments).await.ends(1);
    }
}

#[tokio::test]
async fn on_a_cluster_the_queue_has_to_be_named() {
    let cluster = RedisCluster::builder().start().await.unwrap();
    let url = cluster.url();
    let said = run(&["stat", "--redis", &url, "--timeout", "60s"])
        .await
        .ends(1);
    assert!(said.err.contains("next: name the queue"), "{}", said.err);
    run(&["stat", "emails", "--redis", &url, "--timeout", "60s"])
        .await
        .ends(0);
}

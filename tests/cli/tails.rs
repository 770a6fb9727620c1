//! What Redis has acknowledged and its replicas may lack: looked at, moved, and given back.

use std::{path::Path, time::Duration};

use seawall::{
    Job, Seawall,
    chaos::{RedisServer, SentinelSet},
    spool::{Ack, SpoolOptions},
};
use serde_json::{Value, json};

use super::support::{PLENTY, Scene, come_back, jobs, list, run};

/// No replica ever confirms anything, so that all of it stays on disk.
fn unconfirmed(options: SpoolOptions) -> SpoolOptions {
    options
        .with_spool_after(Duration::from_secs(5))
        .with_ack(Ack::Replicated {
            replicas: 1,
            timeout: Duration::from_millis(50),
        })
}

async fn open(dir: &Path, url: &str) -> Seawall {
    let app = Seawall::builder(url, dir).unwrap();
    let app = app.spool(unconfirmed).connect().await.unwrap();
    app.connection().wait_ready(PLENTY).await.unwrap();
    app
}

/// Leaves `numbers` of `queue` in Redis and in a tail on disk.
async fn keep(app: &Seawall, queue: &str, numbers: std::ops::Range<usize>) {
    let jobs = numbers.map(|number| Job::new(queue, format!("{queue}-{number}")));
    for receipt in app.enqueue_all(jobs).await {
        assert!(receipt.unwrap().is_spooled());
    }
}

/// The lane under which Redis knows what there is of a queue.
async fn lane_of(redis: &RedisServer, queue: &str) -> String {
    let pattern = format!("seawall:{{{queue}}}:lane:*");
    let keys = redis::cmd("KEYS").arg(pattern).to_owned();
    let keys: Vec<String> = redis.command(&keys).await.unwrap();
    assert_eq!(keys.len(), 1);
    keys[0].rsplit(':').next().unwrap().to_owned()
}

/// A tail of `emails` with five jobs.
async fn tail_of_five(scene: &Scene) -> RedisServer {
    let redis = RedisServer::start().await.unwrap();
    let app = open(&scene.path("spool"), &redis.url()).await;
    keep(&app, "emails", 0..5).await;
    assert_eq!(app.shutdown(PLENTY).await.unwrap(), 5);
    redis
}

async fn drain(dir: &str, url: &str) -> Value {
    let drained = run(&["drain", dir, "--to", url, "--json"]).await.ends(0);
    assert_eq!(drained.err, "");
    drained.json()
}

fn copy(scene: &Scene, from: &str, to: &str) {
    let copied = std::process::Command::new("cp")
        .args(["-r", &scene.at(from), &scene.at(to)])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_tail_is_counted_apart_and_shown_as_one_of_its_queue() {
    let scene = Scene::new();
    let redis = tail_of_five(&scene).await;
    let (dir, lane) = (scene.at("spool"), lane_of(&redis, "emails").await);

    let stat = run(&["stat", &dir]).await.ends(0);
    for line in ["records    0 (0 B)\n", "tail       5 (", "oldest     -\n"] {
        assert!(stat.out.contains(line), "{line}: {}", stat.out);
    }
    let stat = run(&["stat", "--json", &dir]).await.ends(0).json();
    for (name, value) in [("records", 0), ("bytes", 0), ("tail", 5), ("queues", 1)] {
        assert_eq!(stat[name], value, "{name}");
    }
    assert!(stat["tail_bytes"].as_u64().unwrap() > 0);

    let verify = run(&["verify", &dir]).await.ends(0);
    let read = "read 0 records, 0 parked, 5 of a tail\n";
    assert!(verify.out.starts_with(read), "{}", verify.out);

    let ls = run(&["ls", &dir]).await.ends(0);
    assert!(ls.out.contains("\ntail of emails  "), "{}", ls.out);
    let ls = run(&["ls", "--json", "--queue", "emails", &dir]).await;
    let ls = ls.ends(0).lines();
    assert_eq!(ls.len(), 1);
    assert_eq!(
        (&ls[0]["tail"], &ls[0]["records"]),
        (&json!(true), &json!(5))
    );
    let tail = ls[0]["lane"].as_str().unwrap();
    assert_ne!(tail, lane);

    let show = run(&["show", "--payload", &dir]).await.ends(0);
    let mut lines = show.out.lines();
    let heading = format!("tail of emails  lane {tail}  5 records");
    assert_eq!(lines.next(), Some(&*heading));
    let columns: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(columns[..4], ["NUMBER", "IN", "REDIS", "WRITTEN"]);
    for (line, number) in lines.zip(1..) {
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            cells[..2],
            [format!("{number}"), format!("{lane}/{number}")]
        );
        assert_eq!(cells[3..5], ["RPUSH", "emails"]);
        assert_eq!(cells.last(), Some(&&*format!("emails-{}", number - 1)));
    }
    let show = run(&["show", "--json", "--from", "4", &dir]).await.ends(0);
    let known_as = json!({"lane": lane, "number": 4});
    assert_eq!(show.lines()[0]["known_as"], known_as);

    for command in [
        &["stat"][..],
        &["ls"],
        &["ls", "--json"],
        &["show"],
        &["export"],
    ] {
        let said = run(&[command, &[&dir]].concat()).await.ends(0).all();
        let raw = ["\0", "\\0", "\\u{0}", "\\u0000"];
        assert!(!raw.iter().any(|raw| said.contains(raw)), "{said:?}");
    }
}

#[tokio::test]
async fn a_tail_that_is_exported_comes_back_as_one() {
    let scene = Scene::new();
    let redis = tail_of_five(&scene).await;
    let lane = lane_of(&redis, "emails").await;
    let (one, two, file) = (scene.at("spool"), scene.at("two"), scene.at("all"));
    let said = run(&["export", &one, "-o", &file]).await.ends(0);
    let counts = "exported 0 waiting records, 5 records of a tail and 0 parked records to";
    assert!(said.out.starts_with(counts), "{}", said.out);
    for restored in [5, 0] {
        let said = run(&["import", &two, "-i", &file, "--json"]).await.ends(0);
        assert_eq!(said.json()["restored"], restored);
    }
    for command in [&["export"][..], &["ls", "--json"], &["show", "--payload"]] {
        let of = async |dir| run(&[command, &[dir]].concat()).await.ends(0).out;
        assert_eq!(of(&one).await, of(&two).await, "{command:?}");
    }
    let lines = run(&["export", &two]).await.ends(0).lines();
    assert_eq!(
        (&lines[0]["state"], &lines[0]["queue"]),
        (&json!("tail"), &json!("emails"))
    );
    assert_eq!(lines[0]["known_as"], json!({"lane": lane, "number": 1}));
    assert_eq!(lines[0]["write"]["text"], "emails-0");

    // A line that does not say where Redis knows it could not be given back.
    for known_as in [
        Value::Null,
        json!({"lane": "x", "number": 1}),
        json!({"lane": lane, "number": 0}),
    ] {
        let mut wrong = lines[0].clone();
        wrong["known_as"] = known_as;
        std::fs::write(scene.path("wrong"), wrong.to_string()).unwrap();
        run(&["import", &scene.at("three"), "-i", &scene.at("wrong")])
            .await
            .ends(1);
    }
}

#[tokio::test]
async fn a_drain_gives_redis_what_it_has_lost_of_a_tail_and_nothing_that_it_has() {
    let scene = Scene::new();
    let mut redis = tail_of_five(&scene).await;
    for name in ["again", "late"] {
        copy(&scene, "spool", name);
    }
    // Redis has all of it.
    let drained = drain(&scene.at("spool"), &redis.url()).await;
    for (name, count) in [("sent", 0), ("repaired", 0), ("left", 0), ("left_tail", 0)] {
        assert_eq!(drained[name], count, "{name}");
    }
    assert_eq!(list(&redis, "emails").await, jobs("emails", 5));
    let stat = run(&["stat", "--json", &scene.at("spool")])
        .await
        .ends(0)
        .json();
    assert_eq!((&stat["tail"], &stat["lanes"]), (&json!(0), &json!(0)));

    // Redis has lost it; a second copy, and then the application, find it there again.
    redis.restart_empty().await.unwrap();
    let said = run(&["drain", &scene.at("again"), "--to", &redis.url()]).await;
    let said = said.ends(0);
    let repaired = "repaired           5  Redis had acknowledged them, and had lost them\n";
    assert!(said.out.contains(repaired), "{}", said.out);
    assert_eq!(list(&redis, "emails").await, jobs("emails", 5));
    assert_eq!(drain(&scene.at("again"), &redis.url()).await["repaired"], 0);
    assert_eq!(drain(&scene.at("late"), &redis.url()).await["repaired"], 0);
    come_back(&scene.path("again"), &redis).await;
    assert_eq!(list(&redis, "emails").await, jobs("emails", 5));
}

#[tokio::test]
async fn a_tail_that_redis_cannot_be_asked_for_stays() {
    let scene = Scene::new();
    let mut redis = tail_of_five(&scene).await;
    let dir = scene.at("spool");
    redis.kill().await.unwrap();
    // Longer than it would be kept for a Redis that has no replicas.
    let away = ["drain", &dir, "--to", &redis.url(), "--patience", "2s"];
    let stopped = run(&away).await.ends(5);
    assert!(
        stopped.err.contains(": 5 records stay in the spool"),
        "{}",
        stopped.err
    );
    redis.restart_empty().await.unwrap();
    assert_eq!(drain(&dir, &redis.url()).await["repaired"], 5);
    assert_eq!(list(&redis, "emails").await, jobs("emails", 5));
}

/// A tail, and behind it what came while Redis was out.
#[tokio::test]
async fn what_is_given_back_of_a_tail_goes_before_what_waits() {
    let scene = Scene::new();
    let mut redis = RedisServer::start().await.unwrap();
    let app = open(&scene.path("spool"), &redis.url()).await;
    keep(&app, "emails", 0..20).await;
    redis.kill().await.unwrap();
    keep(&app, "emails", 20..50).await;
    assert_eq!(app.shutdown(Duration::ZERO).await.unwrap(), 50);

    let stat = run(&["stat", "--json", &scene.at("spool")])
        .await
        .ends(0)
        .json();
    assert_eq!((&stat["records"], &stat["tail"]), (&json!(30), &json!(20)));
    run(&["export", &scene.at("spool"), "-o", &scene.at("all")])
        .await
        .ends(0);
    run(&["import", &scene.at("moved"), "-i", &scene.at("all")])
        .await
        .ends(0);
    redis.restart_empty().await.unwrap();
    let drained = drain(&scene.at("moved"), &redis.url()).await;
    assert_eq!(
        (&drained["repaired"], &drained["sent"]),
        (&json!(20), &json!(30))
    );
    assert_eq!(drained["lost_by_redis"], 0);
    assert_eq!(list(&redis, "emails").await, jobs("emails", 50));
    // The directory it was copied from.
    let drained = drain(&scene.at("spool"), &redis.url()).await;
    assert_eq!(
        (&drained["repaired"], &drained["suppressed"]),
        (&json!(0), &json!(30))
    );
    assert_eq!(list(&redis, "emails").await, jobs("emails", 50));
}

#[tokio::test]
async fn a_tail_stays_while_replicas_lack_it_and_leaves_when_they_have_it() {
    let scene = Scene::new();
    let set = SentinelSet::builder().proxied().replicas(1).start();
    let set = set.await.unwrap();
    let primary = set.primary().await.unwrap();
    set.cut_replication(primary);
    let app = open(&scene.path("spool"), &set.url()).await;
    keep(&app, "emails", 0..5).await;
    assert!(app.shutdown(PLENTY).await.unwrap() >= 5);

    let dir = scene.at("spool");
    let drain = ["drain", &dir, "--to", &set.url(), "--patience", "300ms"];
    let kept = run(&drain).await.ends(5);
    assert!(
        kept.out.contains("tail               5  kept until"),
        "{}",
        kept.out
    );
    let stays = "5 records that Redis has stay until its replicas have them";
    assert!(kept.err.contains(stays), "{}", kept.err);
    let stat = run(&["stat", "--json", &dir]).await.ends(0).json();
    assert_eq!((&stat["records"], &stat["tail"]), (&json!(0), &json!(5)));

    set.heal();
    set.wait_until_healthy().await.unwrap();
    set.wait_until_replicated().await.unwrap();
    run(&["drain", &dir, "--to", &set.url(), "--patience", "30s"])
        .await
        .ends(0);
    let primary = set.wait_for_primary().await.unwrap();
    assert_eq!(list(set.node(primary), "emails").await, jobs("emails", 5));
}

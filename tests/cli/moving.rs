//! export and import: what goes out comes back as it was, and once.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use seawall::{
    Seawall,
    chaos::RedisServer,
    spool::{SpoolDir, SpoolOptions},
};
use serde_json::{Value, json};

use super::support::{LANE, Scene, fixed, jobs, leave, list, run};

#[tokio::test]
async fn what_is_exported_comes_back_as_it_was() {
    let scene = Scene::new();
    let (one, two) = (scene.at("one"), scene.at("two"));
    fixed(&scene.path("one")).await;
    let file = scene.at("all.ndjson");
    let said = run(&["export", &one, "--output", &file]).await.ends(0);
    assert!(
        said.out
            .starts_with("exported 6 waiting records and 1 parked record to"),
        "{}",
        said.out
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is as secret as the spool");
    let said = run(&["import", &two, "--input", &file, "--json"])
        .await
        .ends(0);
    assert_eq!(said.json()["restored"], 7);

    assert_eq!(
        run(&["export", &one]).await.ends(0).out,
        run(&["export", &two]).await.ends(0).out
    );
    for command in [["ls", "--json"], ["show", "--payload"], ["parked", "ls"]] {
        let (one, two) = (
            run(&[&command[..], &[&one]].concat()).await.ends(0),
            run(&[&command[..], &[&two]].concat()).await.ends(0),
        );
        assert_eq!(one.out, two.out);
    }
}

#[tokio::test]
async fn a_line_has_all_that_it_takes() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let said = run(&["export", &scene.at("spool"), "--lane", LANE])
        .await
        .ends(0);
    let lines = said.lines();
    assert_eq!(lines[0]["state"], "parked");
    assert_eq!(lines[0]["reason"], "WRONGTYPE Operation against a key");
    assert_eq!(
        lines[1],
        json!({
            "v": 1, "state": "waiting", "queue": "emails", "lane": LANE, "number": 3,
            "acknowledged": 2, "written_ms": 1_750_000_000_123_u64,
            "record": "AQEAAAAAAAAAAHNlY3JldC0z",
            "write": {"kind": "RPUSH", "key": "emails", "text": "secret-3"},
        })
    );
    assert_eq!(lines.len(), 6);
    let parked = run(&["parked", "export", &scene.at("spool")])
        .await
        .ends(0)
        .lines();
    assert_eq!(parked, [lines[0].clone()]);
    let waiting = run(&["export", "--no-parked", "--lane", LANE, &scene.at("spool")])
        .await
        .ends(0);
    assert_eq!(waiting.lines(), lines[1..]);
}

#[tokio::test]
async fn importing_twice_doubles_nothing() {
    let scene = Scene::new();
    let (dir, file) = (scene.at("spool"), scene.at("all.ndjson"));
    leave(&scene.path("spool"), "many", 5_000).await;
    fixed(&scene.path("spool")).await;
    run(&["export", &dir, "-o", &file]).await.ends(0);
    let before = run(&["export", &dir]).await.ends(0).out;

    // What is still there, then into a new one in two halves that overlap, then all of it again.
    let said = run(&["import", &dir, "-i", &file, "--json"])
        .await
        .ends(0)
        .json();
    assert_eq!(
        (&said["restored"], &said["present"]),
        (&json!(0), &json!(5_007))
    );
    assert_eq!(run(&["export", &dir]).await.ends(0).out, before);

    let lines: Vec<&str> = before.lines().collect();
    let (tail, head) = (lines[1_500..].join("\n"), lines[..3_000].join("\n"));
    for (part, restored, present) in [
        (tail, 3_507, 0),
        (head, 1_500, 1_500),
        (before.clone(), 0, 5_007),
    ] {
        fs::write(scene.path("part"), part).unwrap();
        let said = run(&[
            "import",
            &scene.at("new"),
            "-i",
            &scene.at("part"),
            "--json",
        ])
        .await;
        let said = said.ends(0).json();
        assert_eq!(
            (&said["restored"], &said["present"]),
            (&json!(restored), &json!(present))
        );
    }
    assert_eq!(run(&["export", &scene.at("new")]).await.ends(0).out, before);
}

#[tokio::test]
async fn an_export_that_was_imported_elsewhere_is_delivered_once_and_in_order() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    let (dir, file) = (scene.at("spool"), scene.at("all.ndjson"));
    leave(&scene.path("spool"), "many", 2_000).await;
    run(&["export", &dir, "-o", &file]).await.ends(0);
    run(&["import", &scene.at("elsewhere"), "-i", &file])
        .await
        .ends(0);

    let drain = async |name: &str| {
        let said = run(&["drain", &scene.at(name), "--to", &redis.url(), "--json"]).await;
        said.ends(0).json()
    };
    assert_eq!(drain("elsewhere").await["sent"], 2_000);
    assert_eq!(list(&redis, "many").await, jobs("many", 2_000));
    // The ones they were copied from, and the copy once more.
    assert_eq!(drain("spool").await["suppressed"], 2_000);
    run(&["import", &scene.at("elsewhere"), "-i", &file])
        .await
        .ends(0);
    // The spool itself knows that it is done with them.
    assert_eq!(drain("elsewhere").await["sent"], 0);
    assert_eq!(list(&redis, "many").await, jobs("many", 2_000));
}

#[tokio::test]
async fn what_is_no_export_is_refused_by_its_line_and_not_quoted() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let good = run(&["export", &scene.at("spool")]).await.ends(0);
    let good = good.out.lines().next().unwrap();
    let with = |name: &str, value: Value| {
        let mut line: Value = serde_json::from_str(good).unwrap();
        line[name] = value;
        line.to_string()
    };
    let wrong = [
        "{\"queue\": \"secret\"}".to_owned(),
        "secret".to_owned(),
        with("v", json!(2)),
        with("lane", json!("secret")),
        with("number", json!("secret")),
        with("number", json!(0)),
        with("number", json!(u64::MAX)),
        with("record", json!("secret!")),
        with("queue", json!("q".repeat(2_000))),
        with("reason", json!("r".repeat(100_000))),
        with("written_ms", json!(-1)),
    ];
    for (at, wrong) in wrong.iter().enumerate() {
        fs::write(scene.path("import"), format!("{good}\n\n{wrong}\n")).unwrap();
        let said = run(&[
            "import",
            &scene.at(&format!("new-{at}")),
            "-i",
            &scene.at("import"),
        ])
        .await;
        let said = said.ends(1);
        assert!(!said.all().contains("secret"), "{}", said.all());
    }
    // A file of another kind leaves no directory behind.
    fs::write(scene.path("import"), [0xff; 1_000]).unwrap();
    run(&["import", &scene.at("none"), "-i", &scene.at("import")])
        .await
        .ends(1);
    assert!(!scene.path("none").exists());
    // And a lane has one queue.
    fs::write(scene.path("import"), with("queue", json!("other"))).unwrap();
    run(&["import", &scene.at("spool"), "-i", &scene.at("import")])
        .await
        .ends(1);
}

#[tokio::test]
async fn an_export_replaces_no_file() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    fs::write(scene.path("thesis"), "..").unwrap();
    run(&["export", &scene.at("spool"), "-o", &scene.at("thesis")])
        .await
        .ends(2);
    assert_eq!(fs::read_to_string(scene.path("thesis")).unwrap(), "..");
    run(&["export", &scene.at("spool"), "-o", &scene.at("no/such")])
        .await
        .ends(1);
}

#[tokio::test]
async fn what_is_put_into_a_slot_of_a_shared_directory_is_found_there() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 100).await;
    run(&["export", &scene.at("spool"), "-o", &scene.at("all")])
        .await
        .ends(0);
    // An application that shares the directory has ended with nothing left.
    let shared = || SpoolDir::shared(scene.path("shared"));
    let app = async |url: &str| {
        let app = Seawall::builder(url, scene.path("unused")).unwrap();
        let app = app.spool(|_| SpoolOptions::new(shared()));
        app.connect().await.unwrap()
    };
    let first = app("redis://127.0.0.1:1").await;
    first.shutdown(Duration::ZERO).await.unwrap();
    let whole = run(&["stat", &scene.at("shared")]).await.ends(1);
    assert!(whole.err.contains("give one of its slots"), "{}", whole.err);

    let slot = scene.at("shared/slot-1");
    run(&["import", &slot, "-i", &scene.at("all")])
        .await
        .ends(0);
    // Another takes that slot, and would take it over if it had another one.
    assert!(!scene.path("shared/slot-1.idle").exists());
    let next = app(&redis.url()).await;
    next.flush().await;
    next.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(list(&redis, "many").await, jobs("many", 100));
}

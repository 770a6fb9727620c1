//! stat, ls, show, verify, parked: what they say of a spool, and what they keep to themselves.

use seawall::{Job, Seawall, job::PROCEDURE, sequence::Write, spool::SpoolOptions};
use serde_json::{Value, json};

use super::support::{LANE, OTHER, Scene, fixed, leave, of, record, run};

/// The line that begins with `name`, without it.
fn field<'a>(out: &'a str, name: &str) -> &'a str {
    let line = out.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {out}")).trim()
}

#[tokio::test]
async fn stat_counts_what_is_there() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;

    let said = run(&["stat", &scene.at("spool")]).await.ends(0);
    assert!(
        field(&said.out, "records").starts_with("6 ("),
        "{}",
        said.out
    );
    assert!(field(&said.out, "parked").starts_with("1 ("));
    assert_eq!(field(&said.out, "queues"), "2");
    assert_eq!(field(&said.out, "lanes"), "2");
    assert!(field(&said.out, "oldest").starts_with("2025-06-15T15:06:40Z ("));

    let said = run(&["stat", "--json", "--dir", &scene.at("spool")])
        .await
        .ends(0);
    let stat = said.json();
    for (name, value) in [
        ("records", 6),
        ("parked", 1),
        ("queues", 2),
        ("lanes", 2),
        ("oldest_ms", 1_750_000_000_123_u64),
    ] {
        assert_eq!(stat[name], value, "{name}");
    }
    assert_eq!(stat["in_use"], false);
    assert!(stat["disk_bytes"].as_u64().unwrap() >= stat["bytes"].as_u64().unwrap());
    assert!(stat["free_disk_bytes"].as_u64().unwrap() > 0);
    assert!(stat["format"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn the_directory_may_come_from_the_environment() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let mut command = super::support::command(&["stat", "--json"]);
    let child = command
        .env("SEAWALL_SPOOL_DIR", scene.path("spool"))
        .spawn();
    let said = super::support::said(child.unwrap()).await.ends(0);
    assert_eq!(said.json()["records"], 6);
}

#[tokio::test]
async fn ls_has_a_row_for_each_lane() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let said = run(&["ls", &scene.at("spool")]).await.ends(0);
    let rows: Vec<Vec<&str>> = said
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "QUEUE",
            "LANE",
            "FIRST",
            "LAST",
            "RECORDS",
            "BYTES",
            "OLDEST",
            "ACKNOWLEDGED"
        ]
    );
    assert_eq!(rows[1][..5], ["emails", LANE, "3", "8", "5"]);
    assert_eq!(rows[1].last(), Some(&"2"));
    // What a queue is called is nothing for a terminal to obey.
    assert_eq!(rows[2][..5], ["re\\u{1b}[31mports", OTHER, "1", "1", "1"]);
    assert_eq!(rows.len(), 3);

    let said = run(&["ls", "--json", "--queue", "emails", &scene.at("spool")])
        .await
        .ends(0);
    let lanes = said.lines();
    assert_eq!(lanes.len(), 1);
    assert_eq!(lanes[0]["lane"], LANE);
    assert_eq!(
        (&lanes[0]["first"], &lanes[0]["last"]),
        (&json!(3), &json!(8))
    );
    assert_eq!(lanes[0]["acknowledged"], 2);
}

#[tokio::test]
async fn show_tells_what_each_record_does_and_not_what_is_in_it() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let said = run(&["show", &scene.at("spool")]).await.ends(0);
    assert_eq!(
        said.out,
        format!(
            "\
emails  lane {LANE}  5 records
  NUMBER  WRITTEN               KIND   KEY         BYTES  EXPIRES
       3  2025-06-15T15:06:40Z  RPUSH  emails       18 B  -
       4  2025-06-15T15:06:40Z  LPUSH  elsewhere    31 B  -
       5  2025-06-15T15:06:40Z  RPUSH  emails       18 B  3000-01-01T00:00:00Z
       7  2025-06-15T15:06:40Z  group  HSET RPUSH   90 B  -
       8  2025-06-15T15:06:40Z  RPUSH  emails       12 B  1970-01-01T00:00:01Z (past)

re\\u{{1b}}[31mports  lane {OTHER}  1 record
  NUMBER  WRITTEN               KIND   KEY                BYTES  EXPIRES
       1  2025-06-15T15:06:40Z  RPUSH  re\\u{{1b}}[31mports   18 B  -
"
        )
    );

    for arguments in [
        ["ls", "--json"],
        ["show", "--json"],
        ["parked", "ls"],
        ["parked", "show"],
        ["stat", "--json"],
        ["verify", "--json"],
    ] {
        let said = run(&[&arguments[..], &[&scene.at("spool")]].concat())
            .await
            .ends(0);
        assert!(
            !said.all().contains("secret"),
            "{arguments:?}: {}",
            said.all()
        );
    }
}

#[tokio::test]
async fn what_is_done_to_a_job_of_a_worker_is_shown_with_its_id() {
    let scene = Scene::new();
    let job = Job::new("emails", "secret").for_worker();
    let id = job.id();
    let add = job.into_write().unwrap();
    let lost = Write::procedure("emails", &PROCEDURE, "of a newer version");
    let records = [record(LANE, 3, &add), record(LANE, 4, &lost)];
    of(&scene.path("spool"), records.into()).await;
    let said = run(&["show", &scene.at("spool")]).await.ends(0);
    for shown in [format!("job   add {id}"), "job   queue".to_owned()] {
        assert!(said.out.contains(&shown), "{shown}: {}", said.out);
    }
    assert!(!said.all().contains("secret"));
    let said = run(&["show", "--payload", "--json", &scene.at("spool")])
        .await
        .ends(0);
    let records = said.lines();
    assert_eq!(records[0]["commands"], json!(["add", id.to_string()]));
    assert_eq!(
        records[1]["payload"],
        json!([{"text": "of a newer version"}])
    );
}

#[tokio::test]
async fn payloads_are_shown_when_asked_for() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let dir = scene.at("spool");
    let said = run(&["show", "--payload", "--lane", LANE, &dir])
        .await
        .ends(0);
    for shown in [
        "secret-3\n",
        "HSET job:7 state secret-state; RPUSH emails 7\n",
        "base64://4=\n",
    ] {
        assert!(said.out.contains(shown), "{shown}: {}", said.out);
    }
    let said = run(&["show", "--payload", "--json", "--lane", LANE, &dir])
        .await
        .ends(0);
    let records = said.lines();
    let payloads: Vec<&Value> = records.iter().map(|record| &record["payload"]).collect();
    assert_eq!(*payloads[0], json!([{"text": "secret-3"}]));
    assert_eq!(*payloads[4], json!([{"base64": "//4="}]));
    assert_eq!(
        payloads[3][1],
        json!({"command": [{"text": "RPUSH"}, {"text": "emails"}, {"text": "7"}]})
    );
}

#[tokio::test]
async fn show_begins_and_ends_where_it_is_told_to() {
    let scene = Scene::new();
    let dir = scene.at("spool");
    leave(&scene.path("spool"), "many", 3_000).await;
    let numbers = async |arguments: &[&str]| {
        let said = run(&[&["show", "--json", &dir], arguments].concat())
            .await
            .ends(0);
        let records = said.lines();
        let numbers = records
            .iter()
            .map(|record| record["number"].as_u64().unwrap());
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(
        numbers(&["--limit", "0"]).await,
        (1..=3_000).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&["--from", "2990"]).await,
        (2_990..=3_000).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&["--from", "1500", "--limit", "2"]).await,
        [1_500, 1_501]
    );
    assert_eq!(numbers(&["--queue", "none"]).await, [0_u64; 0]);
}

#[tokio::test]
async fn verify_says_that_a_sound_spool_is_sound() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    let said = run(&["verify", &scene.at("spool")]).await.ends(0);
    assert!(
        said.out.starts_with("read 6 records, 1 parked\n"),
        "{}",
        said.out
    );
    assert!(said.out.ends_with("sound\n"));
    let said = run(&["verify", "--json", &scene.at("spool")]).await.ends(0);
    assert_eq!(said.json()["lost"], json!(0));
}

#[tokio::test]
async fn parked_records_are_listed_with_their_reasons() {
    let scene = Scene::new();
    let dir = scene.at("spool");
    fixed(&scene.path("spool")).await;
    let said = run(&["parked", "ls", &dir]).await.ends(0);
    assert!(
        said.out.contains("WRONGTYPE Operation against a key"),
        "{}",
        said.out
    );
    let said = run(&["parked", "ls", "--json", &dir]).await.ends(0);
    let parked = said.lines();
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (&parked[0]["lane"], &parked[0]["number"]),
        (&json!(LANE), &json!(2))
    );

    let said = run(&[
        "parked",
        "show",
        "--payload",
        "--id",
        &format!("{LANE}/2"),
        &dir,
    ])
    .await
    .ends(0);
    assert_eq!(field(&said.out, "payload"), "secret-2");
    assert_eq!(field(&said.out, "key"), "emails");
    run(&["parked", "show", "--id", &format!("{LANE}/9"), &dir])
        .await
        .ends(1);
}

#[tokio::test]
async fn a_spool_in_use_is_left_alone_and_its_holder_is_named() {
    let scene = Scene::new();
    let dir = scene.at("spool");
    let app = Seawall::builder("redis://127.0.0.1:1", scene.path("spool")).unwrap();
    let app = app
        .spool(|options: SpoolOptions| options)
        .connect()
        .await
        .unwrap();
    let holder = std::process::id().to_string();
    for arguments in [
        vec!["ls", &dir],
        vec!["show", &dir],
        vec!["verify", &dir],
        vec!["export", &dir],
        vec!["parked", "ls", &dir],
        vec!["drain", &dir, "--to", "redis://127.0.0.1:1"],
    ] {
        let said = run(&arguments).await.ends(3);
        assert_eq!(said.out, "", "{arguments:?}");
        assert!(
            said.err.contains(&holder) && said.err.contains("next:"),
            "{}",
            said.err
        );
    }
    let said = run(&["stat", &dir]).await.ends(3);
    assert_eq!(field(&said.out, "in use by"), format!("process {holder}"));
    let said = run(&["stat", "--json", &dir]).await.ends(3);
    let stat = said.json();
    assert_eq!(stat["in_use_by"]["pid"].to_string(), holder);
    assert!(stat["disk_bytes"].as_u64().unwrap() > 0 && stat.get("records").is_none());
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["code"], 3);
    app.shutdown(std::time::Duration::ZERO).await.unwrap();
    run(&["stat", &dir]).await.ends(0);
}

#[tokio::test]
async fn the_manual_has_every_command_and_every_exit_code() {
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));
    let manual = manual.unwrap();
    let mut seen = 0;
    for group in [&[][..], &["parked"]] {
        let help = run(&[group, &["--help"]].concat()).await.ends(0).out;
        let (_, commands) = help.split_once("Commands:\n").unwrap();
        let (commands, rest) = commands.split_once("\n\n").unwrap();
        for line in commands.lines() {
            let name = line.split_whitespace().next().unwrap();
            if !["help", "parked", "show"].contains(&name) {
                let whole = [&["seawall", "spool"], group, &[name, "DIR"]].concat();
                assert!(manual.contains(&whole.join(" ")), "{whole:?}");
                seen += 1;
            }
        }
        let (_, codes) = rest.split_once("Exit codes:\n").unwrap();
        for line in codes.lines().take_while(|line| !line.is_empty()) {
            let code = line.split_whitespace().next().unwrap();
            assert!(manual.contains(&format!("\n| {code} | ")), "{code}");
            seen += 1;
        }
    }
    assert_eq!(seen, 6 + 4 + 2 * 7);
}

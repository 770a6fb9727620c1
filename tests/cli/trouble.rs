//! What is no spool, damaged, closed to us, or not listened to: a word, a code, and never a panic.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use super::support::{Scene, command, fixed, leave, run, said};

/// All that open a spool.
const COMMANDS: [&[&str]; 7] = [
    &["stat"],
    &["ls"],
    &["show"],
    &["verify"],
    &["export"],
    &["parked", "ls"],
    &["drain", "--to", "redis://127.0.0.1:1"],
];

#[tokio::test]
async fn nothing_is_made_where_there_is_no_spool() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    fs::create_dir(scene.path("theirs")).unwrap();
    fs::write(scene.path("theirs/thesis.tex"), "..").unwrap();
    fs::write(scene.path("file"), "..").unwrap();
    for command in COMMANDS {
        for name in ["missing", "empty", "theirs", "file"] {
            let said = run(&[command, &[&scene.at(name)]].concat()).await.ends(1);
            assert!(said.err.contains("next: "), "{}", said.err);
        }
        run(command).await.ends(2);
        run(&[command, &["redis://u:hunter2@h"]].concat())
            .await
            .ends(2);
    }
    assert!(!scene.path("missing").exists());
    assert_eq!(fs::read_dir(scene.path("empty")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(scene.path("theirs")).unwrap().count(), 1);
}

#[tokio::test]
async fn lost_records_have_an_exit_code_and_nothing_goes_on_without_being_told_to() {
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 2_000).await;
    let file = scene.path("spool/gen-1/db");
    let mut bytes = fs::read(&file).unwrap();
    // Every copy of it: the store moves what it holds about.
    let marker = b"many-777";
    let found = bytes.windows(marker.len()).enumerate();
    let places: Vec<_> = found.filter(|(_, window)| window == marker).collect();
    let places: Vec<_> = places.into_iter().map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&file, &bytes).unwrap();
    for command in COMMANDS {
        let said = run(&[command, &[&scene.at("spool")]].concat())
            .await
            .ends(4);
        assert!(said.err.contains("lost"), "{}", said.err);
    }
    assert!(fs::read(&file).unwrap() == bytes, "it was written to");
    let said = run(&["verify", "--json", &scene.at("spool")]).await.ends(4);
    let lost = said.json()["lost"].as_u64().unwrap();
    let export = ["export", "--damaged", &scene.at("spool")];
    let left = run(&export).await.ends(0).out.lines().count() as u64;
    assert!(lost > 0);
    assert_eq!(lost + left, 2_000);
    run(&["verify", &scene.at("spool")]).await.ends(0);
}

#[tokio::test]
async fn a_newer_spool_is_left_alone() {
    let scene = Scene::new();
    fixed(&scene.path("spool")).await;
    fs::write(scene.path("spool/FORMAT"), "seawall-spool 9999\n").unwrap();
    for command in COMMANDS {
        let said = run(&[command, &[&scene.at("spool")]].concat())
            .await
            .ends(1);
        assert!(said.err.contains("9999"), "{}", said.err);
    }
}

/// As root another user's directory could be opened, and would be closed to that user afterwards.
#[tokio::test]
async fn another_users_spool_is_not_touched() {
    let scene = Scene::new();
    let dir = scene.path("spool");
    fixed(&dir).await;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&dir, Some(12_345), None).unwrap();
    } else {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o0)).unwrap();
    }
    for command in COMMANDS {
        let said = run(&[command, &[&scene.at("spool")]].concat())
            .await
            .ends(1);
        assert!(said.err.contains("next: run this as"), "{}", said.err);
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_ends_it_quietly() {
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 5_000).await;
    for arguments in [
        &["export", &scene.at("spool")][..],
        &["show", "--limit", "0", &scene.at("spool")],
        &["ls", &scene.at("spool")],
        &["stat", "--json", &scene.at("spool")],
        &["--help"],
    ] {
        let mut child = command(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = child.stdout(Stdio::from(writer)).spawn().unwrap();
        let said = said(child).await.ends(0);
        assert_eq!(said.err, "", "{arguments:?}");
    }
    run(&["stat", &scene.at("spool")]).await.ends(0);
}

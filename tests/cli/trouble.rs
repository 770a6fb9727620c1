//! What is no spool, damaged, closed to us, or not listened to: a word, a code, and never a panic.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

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
async fn damage_has_an_exit_code_of_its_own() {
    let scene = Scene::new();
    let dir = scene.path("spool");
    leave(&dir, "many", 2_000).await;
    fs::write(dir.join("FORMAT"), "garbage").unwrap();
    for command in COMMANDS {
        let said = run(&[command, &[&scene.at("spool")]].concat()).await;
        said.ends(4);
    }
}

#[tokio::test]
#[ignore = "the store's own recovery takes what it cannot read for nothing: for the audit to find"]
async fn flipped_bytes_are_found() {
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 20_000).await;
    let file = largest(&scene.path("spool"));
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes
        .windows(8)
        .position(|window| window == b"many-777")
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    run(&["verify", &scene.at("spool")]).await.ends(4);
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

fn largest(dir: &Path) -> std::path::PathBuf {
    let (mut folders, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((fs::metadata(&path).unwrap().len(), path));
            }
        }
    }
    files.into_iter().max().unwrap().1
}

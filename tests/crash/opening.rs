//! Killed while it opens, and directories that cannot be opened.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use rand::Rng as _;
use seawall::{
    sequence::Write,
    spool::{OpenError, Spool, SpoolOptions},
};

use super::{
    app::Line,
    dice,
    scene::{Scene, durable},
    seeds,
};

#[tokio::test]
async fn an_app_killed_again_and_again_as_it_opens_loses_nothing() {
    let mut redis = durable().await;
    for seed in seeds(3) {
        let mut dice = dice(seed);
        let mut scene = Scene::new(&mut redis, seed).await;
        // With seed 0 the very first opening, of a directory that is not there yet, is cut short too.
        if seed > 0 {
            scene.leave(dice.random_range(1..300)).await;
        } else {
            scene.redis.kill().await.unwrap();
        }
        for _ in 0..20 {
            let orders = scene.orders(5);
            let mut app = scene.start(&orders);
            app.says(Line::Opening).await;
            // Not to wait for anything: the moment of death is the dice's.
            tokio::time::sleep(Duration::from_micros(dice.random_range(0..40_000))).await;
            app.kill().await;
        }
        scene.settle(seed).await;
    }
}

async fn refusal(path: &Path) -> (OpenError, String) {
    let error = Spool::<Write>::open(SpoolOptions::new(path))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&*path.to_string_lossy()),
        "names the place: {text}"
    );
    (error, text)
}

#[tokio::test]
async fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for path in [file.clone(), file.join("spool")] {
        let (error, text) = refusal(&path).await;
        assert!(matches!(error, OpenError::Io { .. }), "{text}");
        assert!(text.contains("file in the way"), "{text}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");

    let dangling = dir.path().join("link");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    let (_, text) = refusal(&dangling).await;
    assert!(text.contains("file in the way"), "{text}");
}

#[tokio::test]
async fn somebody_elses_directory_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "..").unwrap();
    let (error, text) = refusal(dir.path()).await;
    assert!(matches!(error, OpenError::NotASpool { .. }), "{text}");
    assert!(
        text.contains("not a spool's") && text.contains("empty directory"),
        "{text}"
    );
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["thesis.tex"]);
}

/// Permission bits do not bind root, so what can't be opened here is of the wrong kind.
#[tokio::test]
async fn a_spool_whose_files_cannot_be_opened_says_which() {
    for (name, said) in [("LOCK", "cannot create"), ("FORMAT", "cannot read")] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        let (error, text) = refusal(dir.path()).await;
        assert!(matches!(error, OpenError::Io { .. }), "{text}");
        assert!(text.contains(said) && text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_generation_that_cannot_be_opened_is_set_aside_whole_unless_the_spool_is_strict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let spool = Spool::<Write>::open(SpoolOptions::new(&path))
        .await
        .unwrap();
    spool.shutdown(Duration::ZERO).await.unwrap();
    let store = path.join("gen-7");
    fs::write(&store, "a file where a directory should be").unwrap();

    let strict = SpoolOptions::new(&path).with_strict(true);
    let refused = Spool::<Write>::open(strict).await.unwrap_err();
    assert!(refused.to_string().contains("gen-7"), "{refused}");
    assert!(store.is_file());

    let spool = Spool::<Write>::open(SpoolOptions::new(&path))
        .await
        .unwrap();
    assert_eq!(spool.recovery().set_aside, 1);
    let kept: Vec<_> = fs::read_dir(path.join("quarantine"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept, ["a file where a directory should be"]);
}

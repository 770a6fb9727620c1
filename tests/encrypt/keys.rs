//! Keys that are there, are not, are others, and are replaced.

use std::{
    error::Error as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use seawall::spool::{KeyProblem, Keys, OpenError, Spool, SpoolOptions};

use crate::support::*;

/// Refused for this reason, with every byte on disk as it was. `LOCK` says who tried.
async fn is_refused(dir: &Path, options: SpoolOptions, id: u32, why: KeyProblem) -> OpenError {
    let snapshot = || {
        let mut files = files(dir);
        files.remove(&dir.join("LOCK"));
        files
    };
    let before = snapshot();
    let refusal = Spool::<Note>::open(options).await.unwrap_err();
    let OpenError::Key { key, problem, .. } = &refusal else {
        panic!("{refusal}");
    };
    assert_eq!((*key, *problem), (id, why), "{refusal}");
    assert!(snapshot() == before, "something was changed on disk");
    refusal
}

#[tokio::test]
async fn without_the_right_key_nothing_is_touched_and_with_it_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..10).await;
    let with = |keys| options(path).with_keys(keys);
    is_refused(path, options(path), 1, KeyProblem::NotGiven).await;
    is_refused(path, with(Keys::single(2, key(2))), 1, KeyProblem::Unknown).await;
    is_refused(path, with(Keys::single(1, key(2))), 1, KeyProblem::Wrong).await;
    is_refused(
        path,
        with(Keys::new(3, [(1, key(1))])),
        3,
        KeyProblem::Unknown,
    )
    .await;
    let strict = with(Keys::single(1, key(2))).with_strict(true);
    is_refused(path, strict, 1, KeyProblem::Wrong).await;
    let away = Keys::from_fn(2, |id| match id {
        1 => Err("the key service is out".into()),
        _ => Ok(Some(key(2))),
    });
    let refusal = is_refused(path, with(away), 1, KeyProblem::Failed).await;
    assert_eq!(
        refusal.source().unwrap().to_string(),
        "the key service is out"
    );
    let panics = Keys::from_fn(2, |id| {
        if id == 1 {
            panic!("told to")
        } else {
            Ok(Some(key(2)))
        }
    });
    is_refused(path, with(panics), 1, KeyProblem::Failed).await;
    assert_eq!(deliver(encrypted(path)).await, notes(0..10));
}

/// After a kill, too, when there is something to put right.
#[tokio::test]
async fn without_the_right_key_a_killed_spool_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::new(encrypted(dir.path()), Far::Out).await.unwrap();
    open.spool(notes(0..10)).await;
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    is_refused(
        killed.path(),
        options(killed.path()),
        1,
        KeyProblem::NotGiven,
    )
    .await;
    let wrong = options(killed.path()).with_keys(Keys::single(1, key(9)));
    is_refused(killed.path(), wrong, 1, KeyProblem::Wrong).await;
    assert_eq!(deliver(encrypted(killed.path())).await.len(), 10);
}

#[tokio::test]
async fn a_spool_is_not_made_without_the_key_for_new_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let keys = Keys::new(2, [(1, key(1))]);
    is_refused(
        &path,
        options(&path).with_keys(keys),
        2,
        KeyProblem::Unknown,
    )
    .await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_key_is_replaced_and_then_not_needed_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..5).await;
    let both = || options(path).with_keys(Keys::new(2, [(1, key(1)), (2, key(2))]));
    let new = || options(path).with_keys(Keys::single(2, key(2)));
    leave(both(), 5..10).await;
    is_refused(path, new(), 1, KeyProblem::Unknown).await;
    is_refused(path, encrypted(path), 2, KeyProblem::Unknown).await;

    let far = Far::takes();
    let open = Open::new(both(), far.clone()).await.unwrap();
    open.drained().await;
    assert_eq!(far.taken(), notes(0..10));
    open.close().await;
    let open = Open::new(both(), Far::Out).await.unwrap();
    assert_eq!(open.spool.keys_in_use().await.unwrap(), [2]);
    open.close().await;
    leave(new(), 10..15).await;
    assert_eq!(deliver(new()).await, notes(10..15));
}

#[tokio::test]
async fn the_keys_in_use_are_those_on_disk_and_the_current_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let open = Open::new(options(path), Far::Out).await.unwrap();
    assert!(open.spool.keys_in_use().await.unwrap().is_empty());
    open.close().await;
    leave(encrypted(path), 0..5).await;
    let both = options(path).with_keys(Keys::new(2, [(1, key(1)), (2, key(2))]));
    let open = Open::new(both, Far::Out).await.unwrap();
    assert_eq!(open.spool.keys_in_use().await.unwrap(), [1, 2]);
    open.close().await;
}

#[tokio::test]
async fn a_spool_in_clear_goes_over_to_encryption_and_not_back_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(options(path), 0..5).await;
    leave(encrypted(path), 5..10).await;
    is_refused(path, options(path), 1, KeyProblem::NotGiven).await;
    assert_eq!(deliver(encrypted(path)).await, notes(0..10));
    // Nothing that waits needs a key any more.
    leave(options(path), 10..15).await;
    assert_eq!(deliver(options(path)).await, notes(10..15));
}

#[tokio::test]
async fn each_key_is_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..5).await;
    let asked = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
    let counts = asked.clone();
    let keys = Keys::from_fn(2, move |id| {
        counts[id as usize].fetch_add(1, Relaxed);
        Ok(Some(key(id as u8)))
    });
    leave(options(path).with_keys(keys), 5..10).await;
    assert_eq!(
        [0, 1, 2].map(|id: usize| asked[id].load(Relaxed)),
        [0, 1, 1]
    );
}

#[tokio::test]
async fn neither_errors_nor_debug_show_a_key_or_a_payload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    leave(encrypted(path), 0..3).await;
    let text = "5a".repeat(32);
    let options = options(path).with_keys(Keys::single(1, text.parse().unwrap()));
    let shown = format!("{options:?}");
    let refusal = is_refused(path, options, 1, KeyProblem::Wrong).await;
    let shown = format!("{shown} {refusal} {refusal:?}");
    assert!(shown.contains("current: 1"), "{shown}");
    for secret in [&text, "ZZZZ", "90, 90", "p4yl0ad"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

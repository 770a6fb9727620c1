//! A directory that is taken away from under a running spool, or may not be written to any more.

use std::{fs, path::Path, time::Duration};

use seawall::{chaos::wait_until, error::ErrorKind, spool::OpenError};
use tower::Service as _;

use crate::{
    PLENTY, bounded,
    far::Far,
    mounted::{Disk, alone, remount},
    record::Record,
    template::{hand_in, open, options},
    worker::chain,
};

#[test]
fn a_directory_deleted_under_a_running_spool_is_an_error_and_no_hang() {
    bounded("deleted", async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let far = Far::out();
        let (spool, mut line) = open(options(&path), &far).await.unwrap();
        hand_in(&mut line, vec![Record::new("queue", 1, true, 100)]).await;
        fs::remove_dir_all(&path).unwrap();
        // Its files are gone from sight and there as long as they are open: sooner or later it needs a new one.
        let mut refused = None;
        for id in 2..20_000 {
            let answer =
                tokio::time::timeout(PLENTY, line.call(Record::new("queue", id, true, 8000))).await;
            if let Err(error) = answer.expect("a caller hangs") {
                assert!(
                    matches!(error.kind(), ErrorKind::Spool | ErrorKind::SpoolFull),
                    "{error:?}"
                );
                refused = Some(chain(&error));
                break;
            }
        }
        println!(
            "deleted: refused with: {}",
            refused.expect("it goes on writing into nothing")
        );
        let _ = tokio::time::timeout(PLENTY, spool.shutdown(Duration::from_secs(1)))
            .await
            .expect("the end hangs");
    });
}

#[test]
fn a_read_only_disk_is_refused_with_a_word_and_opens_when_it_is_put_right() {
    alone(
        "taken_away::a_read_only_disk_is_refused_with_a_word_and_opens_when_it_is_put_right",
        || {
            let mounted = Disk::Ext4(24).mount();
            let disk = mounted.path();
            bounded("read-only", async move { read_only(&disk).await });
        },
    );
}

async fn read_only(disk: &Path) {
    let path = disk.join("spool");
    let far = Far::out();
    let (spool, mut line) = open(options(&path), &far).await.unwrap();
    hand_in(
        &mut line,
        (1..=10)
            .map(|id| Record::new("queue", id, true, 100))
            .collect(),
    )
    .await;
    spool.shutdown(Duration::ZERO).await.unwrap();
    drop((spool, line));
    remount(disk, "ro");
    let refused = open(options(&path), &far).await.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
    println!("read-only: refused with: {}", chain(&refused));
    remount(disk, "rw");
    let (spool, _line) = open(options(&path), &far).await.unwrap();
    far.take(u64::MAX);
    wait_until("an empty spool", PLENTY, || async {
        spool.stats().records == 0
    })
    .await
    .unwrap();
    assert_eq!(far.delivered().remove("queue"), Some((1..=10).collect()));
}

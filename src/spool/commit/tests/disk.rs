//! sled and a directory.

use std::{fs, process::Command as Process};

use super::*;

fn open(scratch: &Scratch) -> (Disk, Left) {
    Disk::open(&options(scratch.path())).unwrap()
}

#[tokio::test]
async fn what_one_run_leaves_the_next_one_finds() {
    let scratch = Scratch::new();
    let (disk, left) = open(&scratch);
    assert_eq!(left, Left::default());
    let (old, new) = (LaneId::fresh(), LaneId::fresh());
    let long = vec![9; 200 * 1024];
    disk.append(chunks(new, 5, &[b"five"])).await.unwrap();
    disk.append(chunks(old, 1, &[b"one", b"two"]))
        .await
        .unwrap();
    disk.append(chunks(old, 3, &[&long])).await.unwrap();
    disk.park(vec![parked(old, 4)], Vec::new()).await.unwrap();
    disk.close().await.unwrap();

    let (disk, left) = open(&scratch);
    let lanes: Vec<_> = left.lanes.iter().map(|lane| lane.lane).collect();
    assert_eq!(lanes, [old, new]);
    let lane = &left.lanes[0];
    assert_eq!(
        (lane.first, lane.last, lane.records, lane.oldest_ms),
        (1, 3, 3, 1001)
    );
    assert_eq!(lane.queue, "emails");
    assert!(lane.bytes > 200 * 1024);
    assert_eq!(left.parked, 1);
    let held = disk.read(old, 1, 100, usize::MAX).await.unwrap();
    assert_eq!(held.iter().map(|held| held.bytes).sum::<u64>(), lane.bytes);
    assert_eq!(held[1].records, [long]);
    assert_eq!(
        disk.parked(None, 9, usize::MAX).await.unwrap(),
        [parked(old, 4)]
    );
}

#[tokio::test]
async fn a_second_handle_in_this_process_is_refused() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let refused = Disk::open(&options(scratch.path())).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains(&format!("this process ({})", std::process::id())),
        "{text}"
    );
    disk.close().await.unwrap();
    open(&scratch);
}

#[tokio::test]
async fn a_second_process_is_refused_with_our_number() {
    let scratch = Scratch::new();
    let (_disk, _) = open(&scratch);
    let child = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "spool::commit::tests::disk::second_process",
            "--nocapture",
        ])
        .env(SECOND, scratch.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        text.contains(&format!("in use by process {}", std::process::id())),
        "{text}"
    );
}

/// Not a promise: what the test above runs in another process.
#[test]
fn second_process() {
    use std::io::Write;

    if let Some(path) = std::env::var_os(SECOND) {
        let refused = Disk::open(&options(path)).unwrap_err();
        writeln!(std::io::stdout(), "{refused}").unwrap();
    }
}

const SECOND: &str = "SEAWALL_TEST_SECOND";

#[tokio::test]
async fn the_lock_is_given_back_with_the_last_handle() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    drop(disk);
    // The thread ends on its own time, and nobody waits for it.
    loop {
        match Disk::open(&options(scratch.path())) {
            Ok(_) => break,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_a_kill_inside_open_leaves_does_not_stop_the_next() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    disk.close().await.unwrap();
    let half = scratch
        .path()
        .join("gen-1/snap.FFFFFFFFFFFFFFF0.generating");
    fs::write(&half, "half a snapshot").unwrap();

    let (disk, _) = open(&scratch);
    assert!(!half.exists());
    assert_eq!(disk.read(lane, 1, 1, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_kill_inside_the_first_open_leaves_does_not_stop_the_next() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    disk.close().await.unwrap();
    let generation = scratch.path().join("gen-1");
    let conf = fs::read(generation.join("conf")).unwrap();
    for (kept, db) in [(0, false), (conf.len() / 2, false), (conf.len() - 4, true)] {
        fs::remove_dir_all(&generation).unwrap();
        fs::create_dir_all(generation.join("blobs")).unwrap();
        fs::write(generation.join("conf"), &conf[..kept]).unwrap();
        if db {
            fs::write(generation.join("db"), "").unwrap();
        }
        let (disk, _) = open(&scratch);
        disk.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_is_not_one_is_damage_and_no_panic() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    disk.close().await.unwrap();
    fs::write(scratch.path().join("gen-1/conf"), [0; 64]).unwrap();
    let refused = Disk::open(&options(scratch.path())).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

/// sled would put a page of 2 MiB into a file there, and never sync it.
#[tokio::test]
async fn the_largest_chunks_stay_out_of_blobs() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let lane = LaneId::fresh();
    let record = vec![3; 31 * 1024];
    let records = vec![&*record; 16];
    for batch in 0..30 {
        let written = chunks(lane, 1 + batch * 16, &records);
        assert_eq!(written.len(), 16);
        disk.append(written).await.unwrap();
        let held = disk.read(lane, 1, usize::MAX, 230 * 1024).await.unwrap();
        disk.remove(held.into_iter().flat_map(|held| held.keys).collect());
    }
    let long = vec![4; 5 << 20];
    disk.append(chunks(lane, 1000, &[&long])).await.unwrap();
    disk.park(
        vec![Parked {
            record: long.into(),
            ..parked(lane, 1)
        }],
        Vec::new(),
    )
    .await
    .unwrap();
    disk.close().await.unwrap();
    let (disk, _) = open(&scratch);
    disk.sync().await.unwrap();
    let blobs = fs::read_dir(scratch.path().join("gen-1/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

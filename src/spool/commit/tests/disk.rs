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
    disk.park(vec![parked(old, 4)], done(old, 0, 0))
        .await
        .unwrap();
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
async fn what_sled_keeps_beside_its_log_is_not_needed() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a"])).await.unwrap();
    disk.close().await.unwrap();
    let generation = scratch.path().join("gen-1");
    fs::write(generation.join("conf"), [0; 64]).unwrap();
    fs::write(generation.join("snap.FFFFFFFFFFFFFFF0"), "half a snapshot").unwrap();

    let (disk, _) = open(&scratch);
    assert_eq!(disk.read(lane, 1, 1, 1).await.unwrap().len(), 1);
    assert!(!disk.recovery().has_loss());
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
        disk.done(done(lane, batch * 8, 8 * u64::from(batch > 0)));
    }
    let long = vec![4; 5 << 20];
    disk.append(chunks(lane, 1000, &[&long])).await.unwrap();
    let parked = Parked {
        record: long.into(),
        ..parked(lane, 1)
    };
    disk.park(vec![parked], done(lane, 1, 0)).await.unwrap();
    disk.close().await.unwrap();
    let blobs = fs::read_dir(scratch.path().join("gen-1/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[tokio::test]
async fn nothing_is_lost_with_the_small_files() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let lane = LaneId::fresh();
    disk.append(chunks(lane, 1, &[b"a", b"b"])).await.unwrap();
    disk.done(done(lane, 1, 1));
    disk.close().await.unwrap();
    for name in ["FORMAT", "CLEAN"] {
        let path = scratch.path().join(name);
        let format = fs::read(scratch.path().join("FORMAT")).unwrap();
        let length = fs::metadata(&path).unwrap().len() as usize;
        for at in (0..=length).step_by(if name == "FORMAT" { 1 } else { 5 }) {
            for spoil in [true, false] {
                if !spoil && at % 10 > 0 {
                    continue;
                }
                let mut bytes = fs::read(&path).unwrap();
                if spoil && at < bytes.len() {
                    bytes[at] ^= 1 << (at % 7);
                } else {
                    bytes.truncate(at);
                }
                fs::write(&path, bytes).unwrap();
                let (disk, left) = open(&scratch);
                let what = format!("{name} {at} {spoil}");
                assert!(!disk.recovery().has_loss(), "{what}");
                assert_eq!(
                    (left.lanes[0].first, left.lanes[0].records),
                    (2, 1),
                    "{what}"
                );
                let held = disk.read(lane, 2, 9, 9999).await.unwrap();
                assert_eq!(held[0].records, ["a", "b"], "{what}");
                disk.close().await.unwrap();
                // The case of a checksum, and what ends its line, are not looked at.
                let now = fs::read(scratch.path().join("FORMAT")).unwrap();
                let bare = |text: &[u8]| text.to_ascii_lowercase().trim_ascii_end().to_owned();
                let end = |text: &[u8]| text.strip_suffix(b"\x0b").unwrap_or(text).to_owned();
                assert_eq!(end(&bare(&now)), bare(&format), "{what}");
            }
        }
        fs::remove_file(&path).unwrap();
        let (disk, left) = open(&scratch);
        assert_eq!(left.lanes[0].records, 1, "without {name}");
        disk.close().await.unwrap();
        assert_eq!(fs::read(scratch.path().join("FORMAT")).unwrap(), format);
    }
}

#[tokio::test]
async fn parked_records_give_their_room_back_when_they_are_deleted() {
    let scratch = Scratch::new();
    let (disk, _) = open(&scratch);
    let lane = LaneId::fresh();
    disk.park(vec![parked(lane, 1)], done(lane, 0, 0))
        .await
        .unwrap();
    disk.close().await.unwrap();
    let (disk, _) = open(&scratch);
    let generation = scratch.path().join("gen-1");
    assert!(generation.exists());
    disk.unpark(vec![ParkedId::new(lane, 1)], Vec::new())
        .await
        .unwrap();
    assert!(!generation.exists());
}

/// A new generation may have taken the room that was set aside.
#[tokio::test]
async fn with_each_generation_it_is_seen_to_that_room_is_set_aside() {
    let scratch = Scratch::new();
    let options = DiskOptions {
        generation_bytes: 1,
        ..options(scratch.path())
    };
    let (disk, _) = Disk::open(&options).unwrap();
    let ballast = scratch.path().join("BALLAST");
    fs::remove_file(&ballast).unwrap();
    disk.append(chunks(LaneId::fresh(), 1, &[b"a"]))
        .await
        .unwrap();
    assert!(ballast.exists());
}

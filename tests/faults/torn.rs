//! A process that ends in the middle of a write: the last chunk is there up to some byte, any byte.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::Rng as _;
use seawall::chaos::wait_until;
use tokio::time::Instant;

use crate::{
    PLENTY, bounded,
    carver::{Chunk, chunks},
    copied, dice,
    far::Far,
    record::Record,
    seeds,
    template::{self, hand_in, options},
};

/// The directory of a spool that is at work, as a crash would leave it, and the last chunk in it.
struct Tail {
    dir: tempfile::TempDir,
    records: u64,
    file: PathBuf,
    chunk: Chunk,
}

/// Some records, and one at the end with so many bytes of padding.
async fn tail(padding: usize) -> Tail {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let (spool, mut line) = template::open(options(&path), &Far::out()).await.unwrap();
    let mut records: Vec<_> = (1..=20)
        .map(|id| Record::new("queue", id, true, 100))
        .collect();
    let later = records.split_off(10);
    hand_in(&mut line, records).await;
    hand_in(&mut line, later).await;
    hand_in(&mut line, vec![Record::new("queue", 21, true, padding)]).await;
    copied::copy(&path, &dir.path().join("crashed"));
    drop((spool, line));
    let file = dir.path().join("crashed/gen-1/db");
    let all = chunks(&fs::read(&file).unwrap());
    let chunk = all
        .iter()
        .max_by_key(|chunk| (chunk.commit, chunk.begin))
        .unwrap();
    Tail {
        records: 20,
        chunk: chunk.clone(),
        file,
        dir,
    }
}

#[derive(Clone, Copy, Debug)]
enum Tear {
    /// The file ends there.
    Cut,
    /// Nothing but zeros from there on.
    Zeros,
    /// What was on the disk before.
    Garbage,
}

async fn tear_and_open(tail: &Tail, at: usize, tear: Tear) {
    let path = tail.dir.path().join(format!("torn-{at}-{tear:?}"));
    copied::copy(&tail.dir.path().join("crashed"), &path);
    let file = path.join(
        tail.file
            .strip_prefix(tail.dir.path().join("crashed"))
            .unwrap(),
    );
    hurt(&file, at, tear);
    let is_whole = chunks(&fs::read(&file).unwrap())
        .iter()
        .any(|chunk| chunk.begin == tail.chunk.begin);
    let far = Far::out();
    let (spool, line) = match template::open(options(&path).with_strict(true), &far).await {
        Ok(opened) => opened,
        Err(error) => panic!("{tear:?} at {at}: {error}"),
    };
    let recovery = spool.recovery();
    assert!(
        !recovery.has_loss() && !recovery.clean,
        "{tear:?} at {at}: {recovery:?}"
    );
    far.take(u64::MAX);
    wait_until("an empty spool", PLENTY, || async {
        spool.stats().records == 0
    })
    .await
    .unwrap();
    let mut expected: Vec<u64> = (1..=20).collect();
    expected.extend(is_whole.then_some(21));
    assert_eq!(expected.len() as u64, tail.records + u64::from(is_whole));
    assert_eq!(
        far.delivered().remove("queue"),
        Some(expected),
        "{tear:?} at {at}"
    );
    assert_eq!(far.damaged(), 0);
    let _ = spool.shutdown(Duration::ZERO).await.unwrap();
    drop(line);
    fs::remove_dir_all(path).unwrap();
}

fn hurt(file: &Path, at: usize, tear: Tear) {
    let open = OpenOptions::new().write(true).open(file).unwrap();
    let size = open.metadata().unwrap().len();
    let behind = size as usize - at;
    match tear {
        Tear::Cut => open.set_len(at as u64).unwrap(),
        Tear::Zeros => open.write_all_at(&vec![0; behind], at as u64).unwrap(),
        Tear::Garbage => {
            let garbage: Vec<u8> = (0..behind).map(|at| (at * 37 + 11) as u8).collect();
            open.write_all_at(&garbage, at as u64).unwrap();
        }
    }
}

#[test]
fn a_torn_tail_at_any_byte_costs_the_last_write_alone() {
    let begun = Instant::now();
    let opened = bounded("torn tails", async {
        let mut opened = 0;
        let tail = tail(40).await;
        // One in eight of them in the short run.
        let step = if seeds(1).end > 1 { 1 } else { 8 };
        for at in (tail.chunk.begin..=tail.chunk.end).step_by(step) {
            for tear in [Tear::Cut, Tear::Zeros, Tear::Garbage] {
                tear_and_open(&tail, at, tear).await;
                opened += 1;
            }
        }
        opened
    });
    println!(
        "torn tails: {opened} spools opened, none has lost more than its last write, in {:?}",
        begun.elapsed()
    );
}

/// It has eleven parts; the whole of it is one commit.
#[test]
fn a_torn_tail_in_any_part_of_a_long_record_costs_that_record_alone() {
    let begun = Instant::now();
    let opened = bounded("torn long tails", async {
        let tail = tail(350_000).await;
        let all = chunks(&fs::read(&tail.file).unwrap());
        let parts = all.iter().filter(|chunk| chunk.commit == tail.chunk.commit);
        let begin = parts.clone().map(|part| part.begin).min().unwrap();
        let mut opened = 0;
        for seed in seeds(20) {
            let mut dice = dice(seed);
            let at = dice.random_range(begin..tail.chunk.end);
            let tear = [Tear::Cut, Tear::Zeros, Tear::Garbage][dice.random_range(0..3)];
            tear_and_open(&tail, at, tear).await;
            opened += 1;
        }
        opened
    });
    println!(
        "torn long tails: {opened} spools opened, none has lost more than its last write, in {:?}",
        begun.elapsed()
    );
}

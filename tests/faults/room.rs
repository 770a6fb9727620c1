//! Disks that are full: filled by the spool, by others, to the last byte. Intake ends with a word, what is
//! there gets out though the disk stays full, and intake goes on by itself when there is room.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    panic::catch_unwind,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use rand::{Rng as _, rngs::SmallRng};
use rustix::fs::{FlockOperation, flock};
use seawall::{
    chaos::wait_until,
    error::ErrorKind,
    spool::{Spool, SpoolOptions},
};
use tokio::time::Instant;
use tower::Service as _;

use crate::{
    PLENTY, bounded, copied, dice,
    far::Far,
    mounted::{Disk, alone},
    record::Record,
    seeds,
    template::{self, Line, open},
};

/// Fills a disk to the last byte, and takes what is given back too.
struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    fn new(disk: &Path) -> Self {
        let path = disk.join("filler");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        Self { path, file }
    }

    fn fill(&mut self) {
        for size in [1 << 20, 4096, 1] {
            while self.file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        let _ = self.file.sync_all();
    }

    fn clear(self) {
        drop(self.file);
        std::fs::remove_file(self.path).unwrap();
    }
}

/// What a full disk has seen.
#[derive(Debug, Default)]
struct Books {
    id: u64,
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
}

impl Books {
    /// Hands records in, some at a time, until none of them is taken.
    async fn until_refused(&mut self, line: &mut Line, dice: &mut SmallRng) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PLENTY * 4, "it is never full");
            if self.hand_in(line, 32, dice).await == 0 {
                return;
            }
        }
    }

    /// Says how many have been taken.
    async fn hand_in(&mut self, line: &mut Line, count: u64, dice: &mut SmallRng) -> usize {
        let receipts: Vec<_> = (0..count)
            .map(|_| {
                self.id += 1;
                let padding = dice.random_range(100..8000);
                (
                    self.id,
                    line.call(Record::new("queue", self.id, true, padding)),
                )
            })
            .collect();
        let before = self.acknowledged.len();
        let receipts = receipts.into_iter().map(|(id, receipt)| async move {
            (
                id,
                tokio::time::timeout(PLENTY, receipt)
                    .await
                    .expect("a caller hangs"),
            )
        });
        for (id, receipt) in join_all(receipts).await {
            match receipt {
                Ok(_) => self.acknowledged.push(id),
                Err(error) => {
                    let full = matches!(error.kind(), ErrorKind::SpoolFull | ErrorKind::Spool);
                    assert!(full, "{error:?}");
                    if !error.may_have_landed() {
                        self.refused.push(id);
                    }
                }
            }
        }
        self.acknowledged.len() - before
    }

    /// All that was acknowledged is there, once, in order; nothing that was refused is.
    fn balance(&self, far: &Far) {
        let delivered = far.delivered().remove("queue").unwrap_or_default();
        assert!(
            delivered.is_sorted_by(|a, b| a < b),
            "out of order or twice"
        );
        let lost = self
            .acknowledged
            .iter()
            .filter(|id| delivered.binary_search(id).is_err());
        assert_eq!(lost.count(), 0, "acknowledged and lost");
        let landed = self
            .refused
            .iter()
            .filter(|id| delivered.binary_search(id).is_ok());
        assert_eq!(landed.count(), 0, "refused and delivered");
        assert_eq!(far.damaged(), 0);
    }
}

async fn drained(spool: &Spool<Record>, far: &Far) {
    far.take(u64::MAX);
    if wait_until("an empty spool", PLENTY, || async {
        spool.stats().records == 0
    })
    .await
    .is_err()
    {
        panic!("does not drain: {:?}", spool.stats());
    }
    far.take(0);
}

async fn takes_again(books: &mut Books, line: &mut Line, dice: &mut SmallRng) {
    let begun = Instant::now();
    while books.hand_in(line, 1, dice).await == 0 {
        assert!(
            begun.elapsed() < PLENTY * 2,
            "takes nothing although there is room"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn options(path: &Path, min_free: Option<u64>) -> SpoolOptions {
    let options = template::options(path);
    match min_free {
        Some(bytes) => options.with_min_free_disk(bytes),
        None => options,
    }
}

/// How the spool is opened again in the middle, while the disk is full.
#[derive(Clone, Copy, Debug)]
enum Again {
    No,
    InOrder,
    /// As after a kill: what is on disk is all there is.
    Killed,
}

async fn a_life(disk: PathBuf, min_free: Option<u64>, again: Again, seed: u64) -> Books {
    let mut dice = dice(seed);
    let path = disk.join("spool");
    let copy = tempfile::tempdir().unwrap();
    let far = Far::out();
    let mut books = Books::default();
    let (mut spool, mut line) = open(options(&path, min_free), &far).await.unwrap();
    books.until_refused(&mut line, &mut dice).await;
    let mut filler = Filler::new(&disk);
    // With no room asked for, the spool has filled the disk itself, and has given up its ballast for that.
    let others = min_free != Some(0);
    if others {
        filler.fill();
    }
    if others {
        let taken = books.hand_in(&mut line, 4, &mut dice).await;
        assert_eq!(taken, 0, "taken by a disk that is full");
    }
    match again {
        Again::No => {}
        Again::InOrder => {
            // That it cannot say how it was closed is no loss.
            let _ = spool.shutdown(Duration::ZERO).await;
        }
        Again::Killed => copied::copy(&path, copy.path()),
    }
    if !matches!(again, Again::No) {
        drop((spool, line));
        if matches!(again, Again::Killed) {
            filler.clear();
            put_back(copy.path(), &path).await;
            filler = Filler::new(&disk);
        }
        if others {
            filler.fill();
        }
        let opening = Instant::now();
        (spool, line) = loop {
            match open(options(&path, min_free).with_strict(true), &far).await {
                Ok(opened) => break opened,
                Err(error) => {
                    assert!(
                        opening.elapsed() < PLENTY,
                        "a full disk does not open: {}",
                        crate::worker::chain(&error)
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
    }
    assert!(
        spool.stats().records >= books.acknowledged.len() as u64,
        "{:?}",
        spool.stats()
    );
    drained(&spool, &far).await;
    books.balance(&far);
    filler.clear();
    takes_again(&mut books, &mut line, &mut dice).await;
    books.until_refused(&mut line, &mut dice).await;
    drained(&spool, &far).await;
    // Where it has no room to say how it was closed, it says that.
    match spool.shutdown(PLENTY).await {
        Ok(left) => assert_eq!(left, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Spool, "{error:?}"),
    }
    drop((spool, line));
    let (spool, _line) = open(options(&path, min_free).with_strict(true), &far)
        .await
        .unwrap();
    drained(&spool, &far).await;
    books.balance(&far);
    books
}

/// What was there before the last word of whoever had it open.
async fn put_back(copy: &Path, path: &Path) {
    wait_until("the lock", PLENTY, || async {
        let lock = File::open(path.join("LOCK")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
    .await
    .unwrap();
    std::fs::remove_dir_all(path).unwrap();
    copied::copy(copy, path);
    // Its copy may have holes.
    let ballast = path.join("BALLAST");
    if let Ok(file) = ballast.metadata() {
        std::fs::write(ballast, vec![0; file.len() as usize]).unwrap();
    }
}

/// All of the lives on all of the disks; a third of them in the short run.
fn full(name: &str, disks: &'static [Disk]) {
    alone(name, || {
        let begun = Instant::now();
        let mut lives = Vec::new();
        for disk in disks {
            for min_free in [Some(0), None, Some(1 << 20)] {
                for again in [Again::No, Again::InOrder, Again::Killed] {
                    lives.push((*disk, min_free, again));
                }
            }
        }
        if seeds(1).end == 1 {
            // Of each free room another one, and of each size.
            let short = lives.into_iter().enumerate();
            let short = short.filter(|(at, _)| (at + at / 3 + at / 9) % 3 == 1);
            lives = short.map(|(_, life)| life).collect();
        }
        let mut bad = Vec::new();
        let (mut acknowledged, mut refused, count) = (0, 0, lives.len());
        for (seed, (disk, min_free, again)) in lives.into_iter().enumerate() {
            let what = format!("{disk:?}, {min_free:?} free, {again:?}");
            let mounted = disk.mount();
            let at = mounted.path();
            let life = catch_unwind(|| {
                bounded(&what, async move {
                    a_life(at, min_free, again, seed as u64).await
                })
            });
            match life {
                Ok(books) => {
                    acknowledged += books.acknowledged.len();
                    refused += books.refused.len();
                }
                Err(_) => bad.push(what),
            }
        }
        println!(
            "full disks: {count} of {disks:?}: {acknowledged} acknowledged and delivered, {refused} \
             refused, in {:?}",
            begun.elapsed()
        );
        assert!(bad.is_empty(), "{bad:#?}");
    });
}

#[test]
fn a_tmpfs_that_is_full_refuses_drains_opens_and_resumes() {
    full(
        "room::a_tmpfs_that_is_full_refuses_drains_opens_and_resumes",
        &[Disk::Memory(6), Disk::Memory(16), Disk::Memory(64)],
    );
}

#[test]
fn an_ext4_that_is_full_refuses_drains_opens_and_resumes() {
    full(
        "room::an_ext4_that_is_full_refuses_drains_opens_and_resumes",
        &[Disk::Ext4(24)],
    );
}

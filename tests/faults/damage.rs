//! Damage to a spool that was closed: bits, blocks, ends and whole files. What is left comes out, once and in
//! order, what is lost is counted to the record, and the spool goes on.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng as _, RngCore as _, rngs::SmallRng};
use seawall::{chaos::wait_until, spool::OpenError};
use tokio::time::Instant;

use crate::{
    PLENTY, bounded, carver, copied, dice,
    far::Far,
    record::Record,
    seeds,
    template::{self, Template, contents, hand_in, options},
};

/// What was done to a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Flip,
    Cut,
    Zeros,
    Garbage,
    Deleted,
    Swapped,
    GenerationDeleted,
}

/// What one case has shown.
#[derive(Debug, Default)]
struct Figures {
    cases: u64,
    by_damage: BTreeMap<Damage, u64>,
    with_loss: u64,
    lost: u64,
    lost_parked: u64,
    delivered: u64,
    /// The counts were damaged as well.
    inexact: u64,
}

#[test]
fn whatever_is_damaged_the_rest_comes_out_once_in_order_and_the_loss_is_known_to_the_record() {
    let begun = Instant::now();
    let mut figures = Figures::default();
    let panics = panics();
    let mut bad = Vec::new();
    for seed in seeds(10) {
        let template = Arc::new(bounded("a template", Template::make(seed)));
        for case in 0..CASES {
            let mut dice = dice(seed * CASES + case);
            let what = format!("seed {seed} case {case}");
            let template = template.clone();
            let more = catch_unwind(AssertUnwindSafe(|| {
                bounded(&what.clone(), async move {
                    one(&template, &mut dice, &what).await
                })
            }));
            match more {
                Ok(more) => figures.add(&more),
                Err(_) => bad.push((seed, case)),
            }
        }
    }
    assert!(
        bad.is_empty(),
        "{} of {} cases: {bad:?}",
        bad.len(),
        figures.cases
    );
    assert_eq!(panics.load(Relaxed), 0, "a thread of the spool panicked");
    println!(
        "damage: {} cases {:?}; {} with loss: {} records and {} parked ones lost, all reported{}; \
         {} delivered, 0 damaged, 0 twice, in {:?}",
        figures.cases,
        figures.by_damage,
        figures.with_loss,
        figures.lost,
        figures.lost_parked,
        if figures.inexact == 0 {
            String::new()
        } else {
            format!(" ({} where the counts were gone too)", figures.inexact)
        },
        figures.delivered,
        begun.elapsed(),
    );
}

/// To each of the spools.
const CASES: u64 = 10;

/// How often a thread that seawall or sled has made has panicked from now on.
fn panics() -> &'static AtomicU64 {
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Relaxed);
        before(panic);
    }));
    &PANICS
}

async fn one(template: &Template, dice: &mut SmallRng, what: &str) -> Figures {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("spool");
    let far = template.copy_to(&path);
    let mut done = Vec::new();
    let mut names = Vec::new();
    for _ in 0..[1, 1, 1, 1, 2, 3][dice.random_range(0..6)] {
        let (damage, name) = hurt(&path, dice);
        done.push(damage);
        names.push(name);
    }
    let what = format!("{what}: {done:?} {names:?}");
    let whole = carver::carve(&path);
    let truth = &template.truth;
    let expected: BTreeMap<_, _> = truth
        .waiting
        .iter()
        .filter(|(place, _)| whole.records.contains(place))
        .collect();
    let real = (truth.waiting.len() - expected.len()) as u64;
    let real_parked = truth.parked.difference(&whole.parked).count() as u64;
    // What there must be is known from CLEAN, or else from the newest stamp.
    let counts_are_there = !names.iter().any(|name| name.contains("CLEAN"))
        || (real == 0 && real_parked == 0 && done.len() == 1);

    refused_if_strict(
        &path,
        &far,
        real + real_parked > 0 && counts_are_there,
        counts_are_there,
        &what,
    )
    .await;

    let before = far.delivered();
    let (spool, mut line) = match template::open(options(&path), &far).await {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let recovery = spool.recovery();
    if counts_are_there {
        assert_eq!(recovery.lost, real, "{what}: {recovery:?}");
        assert_eq!(recovery.lost_parked, real_parked, "{what}: {recovery:?}");
    }
    assert_eq!(spool.stats().lost, recovery.lost, "{what}");
    if recovery.has_loss() && recovery.damaged_chunks > 0 {
        let kept = fs::read_dir(path.join("quarantine")).unwrap().count() as u64;
        assert!(
            kept >= recovery.damaged_chunks,
            "{what}: {kept} in quarantine, {recovery:?}"
        );
    }
    far.take(u64::MAX / 2);
    if wait_until("an empty spool", PLENTY, || async {
        spool.stats().records == 0
    })
    .await
    .is_err()
    {
        panic!("{what}: does not drain: {:?}", spool.stats());
    }
    let parked = spool.parked(usize::MAX).await.unwrap();
    for parked in &parked {
        let place = (parked.lane(), parked.number());
        // One that was parked and is lost as such is met again where it waited.
        let is_there = whole.parked.contains(&place) || whole.records.contains(&place);
        assert!(is_there, "{what}: {parked:?}");
    }
    let still = truth.parked.intersection(&whole.parked);
    for place in still {
        let mut there = parked.iter().map(|parked| (parked.lane(), parked.number()));
        assert!(
            there.any(|other| other == *place),
            "{what}: {place:?} was parked"
        );
    }
    let delivered = check_delivered(&far, &before, &expected, &parked_ids(&parked), &what);
    far.take(0);
    let new = Record::new("queue-0", u64::MAX, true, 10);
    hand_in(&mut line, vec![new]).await;
    crashed_and_opened(&path, &scratch.path().join("crashed"), &far.copy(), &what).await;
    let _ = spool.shutdown(Duration::ZERO).await.unwrap();
    drop((spool, line));
    far.take(1);
    let (spool, _line) = template::open(options(&path).with_strict(true), &far)
        .await
        .unwrap();
    let again = spool.recovery();
    assert!(
        !again.has_loss() && again.clean,
        "{what}: reported twice: {again:?}"
    );
    assert_eq!(again.parked, parked.len() as u64, "{what}");
    wait_until("the last record", PLENTY, || async {
        spool.stats().records == 0
    })
    .await
    .unwrap();
    assert_eq!(far.damaged(), 0, "{what}");
    Figures {
        cases: 1,
        by_damage: done.into_iter().map(|damage| (damage, 1)).collect(),
        with_loss: u64::from(real + real_parked > 0),
        lost: real,
        lost_parked: real_parked,
        delivered,
        inexact: u64::from(!counts_are_there),
    }
}

fn parked_ids(parked: &[seawall::spool::Parked]) -> Vec<u64> {
    parked
        .iter()
        .map(|parked| u64::from_be_bytes(*parked.record().first_chunk().unwrap()))
        .collect()
}

/// All that was expected and is not parked now has come, after what had come before, in order.
fn check_delivered(
    far: &Far,
    before: &BTreeMap<String, Vec<u64>>,
    expected: &BTreeMap<&(seawall::spool::LaneId, u64), &(String, u64)>,
    parked: &[u64],
    what: &str,
) -> u64 {
    let mut wanted: BTreeMap<String, Vec<u64>> = before.clone();
    let mut new: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (queue, id) in expected.values() {
        if !parked.contains(id) {
            new.entry(queue).or_default().push(*id);
        }
    }
    let mut count = 0;
    for (queue, mut ids) in new {
        ids.sort_unstable();
        count += ids.len() as u64;
        wanted.entry(queue.to_owned()).or_default().extend(ids);
    }
    assert_eq!(far.delivered(), wanted, "{what}");
    count
}

/// A strict spool says what is lost and leaves everything as it is, or opens.
async fn refused_if_strict(path: &Path, far: &Far, has_loss: bool, is_sure: bool, what: &str) {
    let before = contents(path);
    let opened = template::open(options(path).with_strict(true), &far.copy()).await;
    match opened {
        Err(OpenError::Loss { .. }) => {
            assert!(has_loss || !is_sure, "{what}: refused for no loss");
            let mut after = contents(path);
            // Whose turn it is may be said.
            let mut before = before;
            for all in [&mut before, &mut after] {
                all.remove(&path.join("LOCK"));
            }
            let changed: Vec<&PathBuf> = before
                .iter()
                .filter(|(name, bytes)| after.get(*name) != Some(bytes))
                .map(|(name, _)| name)
                .chain(after.keys().filter(|name| !before.contains_key(*name)))
                .collect();
            assert!(
                changed.is_empty(),
                "{what}: refused, and changed {changed:?}"
            );
        }
        Err(error) => panic!("{what}: {error}"),
        Ok((spool, line)) => {
            assert!(!has_loss || !is_sure, "{what}: a strict spool opens");
            drop((spool, line));
            // Put back what was there.
            wait_until("the lock", PLENTY, || async { restore(path, &before) })
                .await
                .unwrap();
        }
    }
}

/// Once nobody has it open any more.
fn restore(path: &Path, before: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> bool {
    let lock = OpenOptions::new()
        .write(true)
        .open(path.join("LOCK"))
        .unwrap();
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    fs::remove_dir_all(path).unwrap();
    fs::create_dir(path).unwrap();
    for (name, bytes) in before {
        match bytes {
            None => fs::create_dir_all(name).unwrap(),
            Some(bytes) => {
                fs::create_dir_all(name.parent().unwrap()).unwrap();
                fs::write(name, bytes).unwrap();
            }
        }
    }
    true
}

/// The loss has been reported, and a crash does not bring it up again.
async fn crashed_and_opened(path: &Path, copy: &Path, far: &Far, what: &str) {
    copied::copy(path, copy);
    let (spool, line) = template::open(options(copy), far).await.unwrap();
    let recovery = spool.recovery();
    assert!(
        !recovery.has_loss() && !recovery.clean,
        "{what}: after a crash: {recovery:?}"
    );
    assert_eq!(recovery.records, 1, "{what}: {recovery:?}");
    drop((spool, line));
}

// ===== what is done =====

fn hurt(path: &Path, dice: &mut SmallRng) -> (Damage, String) {
    let mut files: Vec<PathBuf> = contents(path)
        .into_iter()
        .filter(|(_, bytes)| bytes.is_some())
        .map(|(name, _)| name)
        .collect();
    // Most of it is where the records are.
    let stores: Vec<_> = files
        .iter()
        .filter(|name| name.ends_with("db"))
        .cloned()
        .collect();
    for _ in 0..4 {
        files.extend_from_slice(&stores);
    }
    let file = files[dice.random_range(0..files.len())].clone();
    let size = fs::metadata(&file).unwrap().len();
    let name = |file: &Path| file.strip_prefix(path).unwrap().display().to_string();
    let damage = match dice.random_range(0..16) {
        0..4 if size > 0 => {
            for _ in 0..dice.random_range(1..20) {
                let at = dice.random_range(0..size);
                let byte = fs::read(&file).unwrap()[at as usize] ^ (1 << dice.random_range(0..8));
                write(&file, &[byte], at);
            }
            Damage::Flip
        }
        4..7 if size > 0 => {
            let file = OpenOptions::new().write(true).open(&file).unwrap();
            file.set_len(dice.random_range(0..size)).unwrap();
            Damage::Cut
        }
        7..10 if size > 0 => {
            for at in blocks(size, dice) {
                let length = (size - at).min(4096);
                write(&file, &vec![0; length as usize], at);
            }
            Damage::Zeros
        }
        10..13 if size > 0 => {
            for at in blocks(size, dice) {
                let mut garbage = vec![0; (size - at).min(4096) as usize];
                dice.fill_bytes(&mut garbage);
                write(&file, &garbage, at);
            }
            Damage::Garbage
        }
        13 => {
            let other = files[dice.random_range(0..files.len())].clone();
            let aside = path.join("aside");
            fs::rename(&file, &aside).unwrap();
            if other != file {
                fs::rename(&other, &file).unwrap();
            }
            fs::rename(&aside, &other).unwrap();
            return (
                Damage::Swapped,
                format!("{} with {}", name(&file), name(&other)),
            );
        }
        14 => {
            let generation = stores[dice.random_range(0..stores.len())].parent().unwrap();
            fs::remove_dir_all(generation).unwrap();
            return (Damage::GenerationDeleted, name(generation));
        }
        _ => {
            fs::remove_file(&file).unwrap();
            Damage::Deleted
        }
    };
    (damage, name(&file))
}

fn write(file: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Where some of its blocks begin.
fn blocks(size: u64, dice: &mut SmallRng) -> Vec<u64> {
    let all = size.div_ceil(4096);
    (0..dice.random_range(1..4))
        .map(|_| dice.random_range(0..all) * 4096)
        .collect()
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        for (damage, count) in &other.by_damage {
            *self.by_damage.entry(*damage).or_default() += count;
        }
        self.with_loss += other.with_loss;
        self.lost += other.lost;
        self.lost_parked += other.lost_parked;
        self.delivered += other.delivered;
        self.inexact += other.inexact;
    }
}

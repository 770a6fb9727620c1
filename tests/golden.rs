//! Spools that were written by this version of the format, and that every later seawall has to open.
//!
//! `tests/fixtures/spool-v1/` was made by `cargo test --all-features --test golden -- --ignored`. When the format gets a new
//! version, spools of that are added beside these, which stay as they are.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

#[path = "shared/copied.rs"]
mod copied;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use seawall::{
    Error,
    classify::{Class, Landed, Verdict},
    error::ErrorKind,
    spool::{
        Ack, Applied, Asks, Batch, KeyProblem, OpenError, Place, Replay, Spool, SpoolLayer,
        SpoolOptions, Spoolable, Undecodable,
    },
};
use tower::{Layer as _, Service as _, service_fn};

use self::copied::copy;

#[tokio::test]
async fn a_spool_of_version_1_that_was_closed_is_opened_with_all_it_holds() {
    let spool = open("closed").await;
    assert!(spool.0.recovery().clean);
    holds_all(spool).await;
}

#[tokio::test]
async fn a_spool_of_version_1_whose_process_was_killed_is_opened_with_all_it_holds() {
    let spool = open("killed").await;
    assert!(!spool.0.recovery().clean && !spool.0.recovery().torn);
    holds_all(spool).await;
}

/// The last commit, with the record `after`, is there only in part.
#[tokio::test]
async fn a_spool_of_version_1_with_a_torn_end_is_opened_with_all_that_was_acknowledged() {
    holds_all(open("torn").await).await;
}

/// What a far end had acknowledged in an earlier run, and no longer has, is sent again under the numbers it had.
#[tokio::test]
async fn a_tail_of_version_1_is_given_back_under_the_numbers_it_had() {
    let (spool, _dir) = open("tail").await;
    assert!(spool.recovery().clean);
    assert_eq!((spool.stats().records, spool.stats().tail), (1, 3));
    let seen = Seen::default();
    drop(line(&spool, &seen, Far::HasOneEmail));
    spool.flush().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(numbers(&seen, "emails"), [2, 3, 4]);
    assert_eq!(seen["emails"][0].1, long());
    assert_eq!(seen["emails"][2].1, "four");
}

#[cfg(feature = "encrypt")]
#[tokio::test]
async fn an_encrypted_spool_of_version_1_is_opened_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("encrypted"), dir.path());
    let spool = Spool::open(encrypted(dir.path())).await.unwrap();
    let seen = Seen::default();
    drop(line(&spool, &seen, Far::Takes));
    spool.flush().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(numbers(&seen, "emails"), [1, 2]);
    assert_eq!(seen["emails"][1].1, long());
}

/// Whether this seawall could decrypt it or not.
#[tokio::test]
async fn an_encrypted_spool_is_refused_without_keys_and_says_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("encrypted"), dir.path());
    let refusal = Spool::<Note>::open(options(dir.path())).await.unwrap_err();
    let problem = if cfg!(feature = "encrypt") {
        KeyProblem::NotGiven
    } else {
        KeyProblem::NotSupported
    };
    assert!(
        matches!(refusal, OpenError::Key { key: 7, problem: found, .. } if found == problem),
        "{refusal}"
    );
}

async fn holds_all((spool, _dir): (Spool<Note>, tempfile::TempDir)) {
    assert!(!spool.recovery().has_loss(), "{:?}", spool.recovery());
    assert_eq!(spool.stats().records, 5);
    let parked = spool.parked(9).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].queue(), parked[0].number()), ("bad", 1));
    assert_eq!(&parked[0].record()[..], b"refuse me");
    assert_eq!(parked[0].attempts(), 1);
    assert!(parked[0].reason().contains("no such thing"));

    let seen = Seen::default();
    drop(line(&spool, &seen, Far::Takes));
    spool.flush().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(numbers(&seen, "emails"), [1, 2, 3]);
    assert_eq!(
        numbers(&seen, "orders"),
        [3, 4],
        "two were delivered before"
    );
    assert_eq!(seen["emails"][1].1, long(), "one in several parts");
    assert_eq!(seen["emails"][2].1, "third");
}

fn numbers(seen: &BTreeMap<String, Vec<(u64, Bytes)>>, queue: &str) -> Vec<u64> {
    seen[queue].iter().map(|(number, _)| *number).collect()
}

/// A copy: a spool that is opened is written to.
async fn open(name: &str) -> (Spool<Note>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(name), dir.path());
    let spool = Spool::open(options(dir.path())).await.unwrap();
    (spool, dir)
}

// ===== how they were made =====

#[tokio::test]
#[ignore = "makes the fixtures anew"]
async fn write_the_fixtures() {
    let dir = tempfile::tempdir().unwrap();
    let spool: Spool<Note> = Spool::open(options(dir.path())).await.unwrap();
    let mut line = line(&spool, &Seen::default(), Far::TakesTwoOrders);
    let mut put = async |queue, body: Bytes| {
        let receipt = line.call(Note { queue, body }).await.unwrap();
        assert_eq!(receipt.place(), Place::Spooled);
    };
    for order in ["one", "two", "three", "four"] {
        put("orders", order.into()).await;
    }
    put("emails", "first".into()).await;
    put("emails", long()).await;
    put("emails", "third".into()).await;
    put("bad", "refuse me".into()).await;
    while spool.stats().parked == 0 || spool.stats().records != 5 {
        tokio::task::yield_now().await;
    }
    let settled = tempfile::tempdir().unwrap();
    copy(dir.path(), settled.path());
    // What was delivered last is noted a little later.
    while noted(dir.path()) == noted(settled.path()) {
        tokio::task::yield_now().await;
    }
    keep(dir.path(), "killed");
    put("emails", "after".into()).await;
    keep(dir.path(), "torn");
    let db = fs::OpenOptions::new()
        .write(true)
        .open(fixture("torn").join("gen-1/db"))
        .unwrap();
    let length = db.metadata().unwrap().len();
    db.set_len(length - 20).unwrap();
    drop(line);

    let clean = tempfile::tempdir().unwrap();
    copy(&fixture("killed"), clean.path());
    let again: Spool<Note> = Spool::open(options(clean.path())).await.unwrap();
    again.shutdown(std::time::Duration::ZERO).await.unwrap();
    keep(clean.path(), "closed");
}

/// The far end takes three emails, which no replica has, and is away when the fourth comes.
#[tokio::test]
#[ignore = "makes the fixture anew"]
async fn write_the_fixture_with_a_tail() {
    let dir = tempfile::tempdir().unwrap();
    let ack = Ack::Replicated {
        replicas: 1,
        timeout: std::time::Duration::from_millis(1),
    };
    let spool: Spool<Note> = Spool::open(options(dir.path()).with_ack(ack))
        .await
        .unwrap();
    let mut line = line(&spool, &Seen::default(), Far::TakesThreeEmails);
    for body in ["one".into(), long(), "three".into(), "four".into()] {
        let queue = "emails";
        let receipt = line.call(Note { queue, body }).await.unwrap();
        assert_eq!(receipt.place(), Place::Spooled);
    }
    spool.shutdown(std::time::Duration::ZERO).await.unwrap();
    keep(dir.path(), "tail");
}

#[cfg(feature = "encrypt")]
#[tokio::test]
#[ignore = "makes the fixture anew"]
async fn write_the_encrypted_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let spool: Spool<Note> = Spool::open(encrypted(dir.path())).await.unwrap();
    let mut line = line(&spool, &Seen::default(), Far::TakesTwoOrders);
    for body in ["first".into(), long()] {
        let queue = "emails";
        let receipt = line.call(Note { queue, body }).await.unwrap();
        assert_eq!(receipt.place(), Place::Spooled);
    }
    spool.shutdown(std::time::Duration::ZERO).await.unwrap();
    keep(dir.path(), "encrypted");
}

#[cfg(feature = "encrypt")]
fn encrypted(path: &Path) -> SpoolOptions {
    use seawall::spool::{Key, Keys};
    options(path).with_keys(Keys::single(7, Key::from_bytes([7; Key::LEN])))
}

fn noted(path: &Path) -> u64 {
    fs::metadata(path.join("gen-1/db")).unwrap().len()
}

fn keep(path: &Path, name: &str) {
    let to = fixture(name);
    let _ = fs::remove_dir_all(&to);
    copy(path, &to);
    // Four megabytes of nothing.
    let _ = fs::remove_file(to.join("BALLAST"));
    let _ = fs::remove_file(to.join("LOCK"));
}

fn options(path: &Path) -> SpoolOptions {
    SpoolOptions::new(path)
        .with_ack(Ack::Spooled)
        .with_replay(Replay::unpaced())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/spool-v1")
        .join(name)
}

/// More than one chunk holds.
fn long() -> Bytes {
    (0..40_000_u32).map(|at| (at % 251) as u8).collect()
}

#[derive(Clone, Debug)]
struct Note {
    queue: &'static str,
    body: Bytes,
}

impl Spoolable for Note {
    fn queue(&self) -> &str {
        self.queue
    }

    fn size(&self) -> usize {
        self.body.len()
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.body);
    }

    fn decode(queue: &Arc<str>, body: Bytes) -> Result<Self, Undecodable> {
        let queue = ["emails", "orders", "bad"]
            .into_iter()
            .find(|known| *known == &**queue)
            .ok_or(Undecodable::new("of another queue"))?;
        Ok(Self { queue, body })
    }
}

type Seen = Arc<Mutex<BTreeMap<String, Vec<(u64, Bytes)>>>>;

#[derive(Clone, Copy)]
enum Far {
    Takes,
    /// And refuses what is bad, and nothing else.
    TakesTwoOrders,
    /// And has no replicas.
    TakesThreeEmails,
    /// It has lost what came after, and takes that again.
    HasOneEmail,
}

fn line(
    spool: &Spool<Note>,
    seen: &Seen,
    far: Far,
) -> impl tower::Service<Note, Response = seawall::spool::Receipt, Error = Error> + use<> {
    let seen = seen.clone();
    SpoolLayer::new(spool).layer(service_fn(move |batch: Batch<Note>| {
        let answer = match (far, batch.queue()) {
            (Far::TakesThreeEmails, _) => match batch.asks() {
                Asks::Apply if batch.first() <= 3 => Ok(Applied::all()),
                Asks::Confirm { .. } => Ok(Applied::confirmed(3, 0)),
                _ => Err(away()),
            },
            (Far::HasOneEmail, _) if batch.asks() == Asks::Reached => Ok(Applied::reached(1)),
            (Far::TakesTwoOrders, "orders") if batch.first() > 2 => Err(away()),
            (Far::TakesTwoOrders, "orders") => Ok(Applied::stopped(2.min(batch.last()), away())),
            (Far::TakesTwoOrders, "bad") => Ok(Applied::refused(
                0,
                1,
                Error::foreign(
                    Verdict::new(Class::Permanent, Landed::No),
                    "there is no such thing",
                ),
            )),
            (Far::TakesTwoOrders, _) => Err(away()),
            (Far::Takes | Far::HasOneEmail, queue) => {
                let mut seen = seen.lock();
                let queue = seen.entry(queue.to_owned()).or_default();
                let has = u64::from(matches!(far, Far::HasOneEmail));
                let records = batch.iter().filter(|(number, _)| *number > has);
                queue.extend(
                    records.filter_map(|(number, note)| Some((number, note?.body.clone()))),
                );
                Ok(Applied::all())
            }
        };
        async { answer }
    }))
}

fn away() -> Error {
    let error = Error::foreign(Verdict::new(Class::Outage, Landed::No), "away");
    assert_eq!(error.kind(), ErrorKind::Foreign);
    error
}

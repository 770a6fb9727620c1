//! Records, a far end, and a spool's directory to look at.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use seawall::{
    Error,
    classify::{Class, Landed, Verdict},
    spool::{
        Applied, Batch, Key, Keys, OpenError, Spool, SpoolLayer, SpoolOptions, Spoolable, Spooling,
        Undecodable,
    },
};
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};

/// In every record's bytes.
pub(crate) const PAYLOAD: &[u8] = b"p4yl0ad-of-a-record";
/// In every reason.
pub(crate) const REASON: &str = "r3ason-to-be-kept";
pub(crate) const QUEUE: &str = "the-queues-name";

/// Ends a test that would hang.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note(pub(crate) Vec<u8>);

impl Note {
    pub(crate) fn new(number: u64) -> Self {
        Self::of_size(number, 0)
    }

    pub(crate) fn of_size(number: u64, more: usize) -> Self {
        let mut bytes = [PAYLOAD, &number.to_le_bytes()].concat();
        bytes.extend((0..more).map(|at| at as u8));
        Self(bytes)
    }
}

impl Spoolable for Note {
    fn queue(&self) -> &str {
        QUEUE
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0);
    }

    fn decode(_: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        Ok(Self(bytes.into()))
    }
}

/// What the far end does.
#[derive(Clone, Default)]
pub(crate) enum Far {
    #[default]
    Out,
    Refuses,
    Takes(Arc<Mutex<Vec<Note>>>),
}

impl Far {
    pub(crate) fn takes() -> Self {
        Self::Takes(Arc::default())
    }

    pub(crate) fn taken(&self) -> Vec<Note> {
        match self {
            Self::Takes(taken) => taken.lock().clone(),
            _ => Vec::new(),
        }
    }

    async fn answer(self, batch: Batch<Note>) -> Result<Applied, Error> {
        match self {
            Self::Out => Err(Error::foreign(
                Verdict::new(Class::Outage, Landed::No),
                "out",
            )),
            Self::Refuses => Ok(Applied::refused(
                batch.first() - 1,
                batch.len() as u64,
                Error::foreign(Verdict::new(Class::Permanent, Landed::No), REASON),
            )),
            Self::Takes(taken) => {
                taken
                    .lock()
                    .extend(batch.iter().filter_map(|(_, note)| note.cloned()));
                Ok(Applied::all())
            }
        }
    }
}

type Line = Spooling<Note>;

/// An open spool with a far end.
pub(crate) struct Open {
    pub(crate) spool: Spool<Note>,
    line: Line,
}

impl Open {
    pub(crate) async fn new(options: SpoolOptions, far: Far) -> Result<Self, OpenError> {
        let spool = Spool::open(options).await?;
        let service = tower::service_fn(move |batch| far.clone().answer(batch));
        let line = SpoolLayer::new(&spool).layer(BoxCloneSyncService::new(service));
        Ok(Self { spool, line })
    }

    /// All of them on disk.
    pub(crate) async fn spool(&self, notes: impl IntoIterator<Item = Note>) {
        let calls: Vec<_> = notes
            .into_iter()
            .map(|note| tokio::spawn(self.line.clone().oneshot(note)))
            .collect();
        for call in calls {
            assert!(call.await.unwrap().unwrap().is_spooled());
        }
    }

    pub(crate) async fn drained(&self) {
        tokio::time::timeout(PLENTY, self.spool.flush())
            .await
            .expect("it drains");
    }

    pub(crate) async fn close(self) -> u64 {
        self.spool.shutdown(Duration::ZERO).await.unwrap()
    }
}

pub(crate) fn key(seed: u8) -> Key {
    Key::from_bytes([seed; 32])
}

pub(crate) fn keys() -> Keys {
    Keys::single(1, key(1))
}

/// Everything is spooled at once, and goes on at once.
pub(crate) fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions::new(dir)
        .with_spool_after(Duration::from_millis(1))
        .with_replay(seawall::spool::Replay::unpaced())
}

pub(crate) fn encrypted(dir: &Path) -> SpoolOptions {
    options(dir).with_keys(keys())
}

/// Writes `count` notes and closes.
pub(crate) async fn leave(options: SpoolOptions, numbers: std::ops::Range<u64>) {
    let open = Open::new(options, Far::Out).await.unwrap();
    let before = open.spool.stats().records;
    let count = numbers.end - numbers.start;
    // One after the other, so that their order is known and they are in chunks of their own.
    for number in numbers {
        open.spool([Note::new(number)]).await;
    }
    assert_eq!(open.close().await, before + count);
}

pub(crate) async fn deliver(options: SpoolOptions) -> Vec<Note> {
    let far = Far::takes();
    let open = Open::new(options, far.clone()).await.unwrap();
    open.drained().await;
    assert_eq!(open.close().await, 0);
    far.taken()
}

pub(crate) fn notes(numbers: impl IntoIterator<Item = u64>) -> Vec<Note> {
    numbers.into_iter().map(Note::new).collect()
}

// ===== the directory =====

/// Every file, by its path.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// In which files it stands.
pub(crate) fn files_with(dir: &Path, what: &[u8]) -> Vec<PathBuf> {
    let mut found = files(dir);
    found.retain(|_, bytes| bytes.windows(what.len()).any(|window| window == what));
    found.into_keys().collect()
}

/// The same files under `to`, as a kill at this moment would leave them.
pub(crate) fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

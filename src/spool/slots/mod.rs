//! One directory for many processes: each takes a slot of it, and the slots of those that have ended are
//! delivered by the others.
//!
//! A slot is a spool of its own, with its own lock: who holds that has the slot, and the system takes it
//! back when the process ends in whatever way. `slot-3.idle` beside `slot-3/` says that no record waits in
//! it, so that nobody opens it to see. It is written by who leaves the slot, before the lock is given back,
//! and removed by who takes it, before anything is kept there.

mod adopt;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(super) use self::adopt::Adoption;
use super::{
    Recovery, SpoolOptions,
    commit::{Disk, DiskOptions, Left},
    crypt::{Keys, Ring},
    dir::failed,
    error::OpenError,
    options::DAY,
};

/// Where a spool is: a directory for one process alone, or one that many share.
///
/// A path is the directory of one process: `SpoolOptions::new("/var/lib/app/spool")`.
///
/// # Shared
///
/// Each process takes the first free slot, a directory `slot-1`, `slot-2` and so on in it, and has a spool
/// of its own there. What a process leaves behind that has ended, in whatever way, is delivered by the
/// others while they run, or by the next one that takes its slot: for servers of many processes, rolling
/// deployments and pods on one volume. The lanes keep their numbers, so each record is delivered once and
/// in order, whoever does it.
///
/// All of them must use the same Redis. The directory must be on a local file system of the machine on
/// which all of them run: locks of network file systems are not to be trusted.
///
/// Records that Redis refused for good stay parked in the slot they are in: they are seen by
/// [`Spool::parked`](super::Spool::parked) in the process that has the slot.
///
/// ```no_run
/// use std::time::Duration;
/// use seawall::spool::{SpoolDir, SpoolOptions};
///
/// let dir = SpoolDir::shared("/var/lib/app/spool")
///     .with_max_slots(16)
///     .with_adoption_interval(Duration::from_secs(1));
/// let options = SpoolOptions::new(dir);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SpoolDir {
    path: PathBuf,
    sharing: Option<Sharing>,
}

#[derive(Clone, Copy, Debug)]
struct Sharing {
    max_slots: u32,
    interval: Duration,
    patience: Duration,
}

impl SpoolDir {
    /// The directory `path` for one process at a time. It is made if it is missing.
    pub fn alone(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            sharing: None,
        }
    }

    /// The directory `path` for many processes. It is made if it is missing.
    ///
    /// # Default
    ///
    /// - slots: 64
    /// - looks for slots to take over: at the start, and every 5 s
    /// - gives such a slot back after 30 s in which none of its records could be delivered
    pub fn shared(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            sharing: Some(Sharing {
                max_slots: 64,
                interval: Duration::from_secs(5),
                patience: Duration::from_secs(30),
            }),
        }
    }

    /// How many slots there may be: from 1 to 1,024. More than processes, since one that is being delivered
    /// by another process is not free either. Of a directory that is not shared it changes nothing.
    pub fn with_max_slots(self, slots: u32) -> Self {
        self.with(|sharing| sharing.max_slots = slots.clamp(1, 1024))
    }

    /// How long to wait, give or take half of it, before looking for slots to take over again. From 10 ms to
    /// a day.
    pub fn with_adoption_interval(self, interval: Duration) -> Self {
        let interval = interval.clamp(Duration::from_millis(10), DAY);
        self.with(|sharing| sharing.interval = interval)
    }

    /// How long a slot that was taken over is kept without any of its records being delivered. Then it is
    /// given back, for a process that can, and tried again after a while that doubles up to 5 minutes; at
    /// once when [Redis is back](SpoolOptions::with_recoveries). From 10 ms to a day.
    pub fn with_adoption_patience(self, patience: Duration) -> Self {
        let patience = patience.clamp(Duration::from_millis(10), DAY);
        self.with(|sharing| sharing.patience = patience)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is for many processes.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    /// The directory `name` in it, shared as it is.
    pub(crate) fn join(&self, name: &str) -> Self {
        Self {
            path: self.path.join(name),
            sharing: self.sharing,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Sharing)) -> Self {
        self.sharing.as_mut().map(change);
        self
    }
}

impl<P: AsRef<Path>> From<P> for SpoolDir {
    fn from(path: P) -> Self {
        Self::alone(path)
    }
}

/// What has been opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) left: Left,
    pub(super) place: Place,
}

/// Where an open spool is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Alone(PathBuf),
    Slot(Slot),
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Alone(path) => path.clone(),
            Self::Slot(slot) => slot.path(),
        }
    }

    pub(super) const fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Alone(_) => None,
            Self::Slot(slot) => Some(slot),
        }
    }
}

/// Opens the directory, or a free slot of it.
pub(super) async fn open(options: &SpoolOptions) -> Result<Opened, OpenError> {
    let Some(sharing) = options.dir.sharing else {
        let place = Place::Alone(options.dir.path.clone());
        let opening = Opening::new(options);
        return blocking(place.path(), move || opening.open(place)).await;
    };
    let base = options.dir.path.clone();
    let (opening, at) = (Opening::new(options), base.clone());
    blocking(base, move || {
        prepare(&at)?;
        opening.first_free(&at, sharing.max_slots)
    })
    .await
}

/// What opening the spool would find: see [`Disk::verify`].
pub(super) async fn verify(options: &SpoolOptions) -> Result<Recovery, OpenError> {
    let path = options.dir.path().to_owned();
    let opening = Opening::new(options);
    blocking(path.clone(), move || Disk::verify(&opening.at(path, true)?)).await
}

/// Runs what takes its time, in a thread for that.
async fn blocking<V: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<V, OpenError> + Send + 'static,
) -> Result<V, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(interrupted) => Err(failed("open", &path)(io::Error::other(interrupted))),
    }
}

/// How a spool is opened, wherever it is.
struct Opening {
    disk: DiskOptions,
    keys: Option<Keys>,
}

impl Opening {
    fn new(options: &SpoolOptions) -> Self {
        Self {
            disk: DiskOptions {
                path: PathBuf::new(),
                durability: options.durability,
                strict: options.strict,
                network: options.network,
                generation_bytes: options.generation_bytes,
                min_free: options.min_free_disk,
                stalled_after: options.stalled_after,
                ring: Arc::default(),
                metrics: options.metrics.clone(),
            },
            keys: options.keys.clone(),
        }
    }

    /// With the keys that it takes. Those that have been altered are looked for at once in all chunks, or
    /// where they are read.
    fn at(&self, path: PathBuf, all: bool) -> Result<DiskOptions, OpenError> {
        let ring = Ring::new(self.keys.clone(), all);
        let ring = ring.map_err(|trouble| OpenError::key(&path, trouble))?;
        Ok(DiskOptions {
            path,
            ring: Arc::new(ring),
            ..self.disk.clone()
        })
    }

    fn open(&self, place: Place) -> Result<Opened, OpenError> {
        let options = self.at(place.path(), self.disk.strict)?;
        let (disk, left) = Disk::open(&options)?;
        // Also for who opens a slot by its path, as a tool does, and may leave records there.
        let slot = place.slot().cloned().or_else(|| Slot::at(&options.path));
        if let Some(slot) = slot {
            slot.take_down_mark()?;
        }
        Ok(Opened { disk, left, place })
    }

    /// The lock of each decides who has it, so any number of processes may look at once.
    fn first_free(&self, base: &Path, max_slots: u32) -> Result<Opened, OpenError> {
        let mut unusable = None;
        for number in 1..=max_slots {
            let slot = Slot::new(base, number);
            match self.open(Place::Slot(slot.clone())) {
                Err(error) if slot.is_anothers(&error) => {}
                Err(
                    error @ (OpenError::Version { .. }
                    | OpenError::Damaged { .. }
                    | OpenError::Owner { .. }),
                ) => {
                    tracing::warn!(slot = number, %error, "slot of the spool cannot be opened");
                    unusable.get_or_insert(error);
                }
                opened => return opened,
            }
        }
        Err(unusable.unwrap_or_else(|| OpenError::NoSlot {
            path: base.to_owned(),
            slots: max_slots,
        }))
    }
}

/// One of the slots of a shared directory.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    base: PathBuf,
    number: u32,
}

impl Slot {
    fn new(base: &Path, number: u32) -> Self {
        let base = base.to_owned();
        Self { base, number }
    }

    /// The slot that has this path, if one can have it.
    fn at(path: &Path) -> Option<Self> {
        let number = path.file_name()?.to_str()?.strip_prefix("slot-")?;
        Some(Self::new(path.parent()?, number.parse().ok()?))
    }

    fn path(&self) -> PathBuf {
        self.base.join(format!("slot-{}", self.number))
    }

    fn mark(&self) -> PathBuf {
        self.base.join(format!("slot-{}.idle", self.number))
    }

    /// Whether something may wait in it.
    fn may_hold_records(&self) -> bool {
        self.path().is_dir() && !self.mark().exists()
    }

    /// Nothing waits in it any more. Only while it is locked.
    ///
    /// A mark that a power cut takes back costs somebody a look, and no more.
    pub(super) fn put_up_mark(&self) -> io::Result<()> {
        File::create(self.mark()).map(drop)
    }

    /// Synced, or a power cut could put it up again over records.
    fn take_down_mark(&self) -> Result<(), OpenError> {
        let mark = self.mark();
        match fs::remove_file(&mark) {
            Ok(()) => File::open(&self.base)
                .and_then(|base| base.sync_all())
                .map_err(failed("sync", &self.base)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &mark)(error)),
        }
    }

    /// Another process has it, or is just making it.
    fn is_anothers(&self, error: &OpenError) -> bool {
        match error {
            OpenError::Locked { .. } => true,
            OpenError::NotASpool { .. } => self.path().join("FORMAT").exists(),
            _ => false,
        }
    }
}

/// Makes the directory that the slots are in.
fn prepare(base: &Path) -> Result<(), OpenError> {
    if base.join("FORMAT").exists() {
        return Err(OpenError::NotShared { path: base.into() });
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(base);
    made.map_err(failed("create the directory", base))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::spool::{Spool, Spoolable, Undecodable, dir::tests::Scratch};

    /// A record that no test here hands in.
    struct Note;

    impl Spoolable for Note {
        fn queue(&self) -> &str {
            "notes"
        }

        fn size(&self) -> usize {
            0
        }

        fn encode(&self, _: &mut Vec<u8>) {}

        fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
            Ok(Self)
        }
    }

    async fn spool(dir: impl Into<SpoolDir>) -> Result<Spool<Note>, OpenError> {
        Spool::open(SpoolOptions::new(dir)).await
    }

    #[tokio::test]
    async fn each_takes_the_first_free_slot_and_the_bound_is_said() {
        let scratch = Scratch::new();
        let dir = || SpoolDir::shared(scratch.path()).with_max_slots(2);
        let first = spool(dir()).await.unwrap();
        let second = spool(dir()).await.unwrap();
        assert!(first.path().ends_with("slot-1") && second.path().ends_with("slot-2"));
        let refusal = spool(dir()).await.unwrap_err();
        assert!(
            matches!(refusal, OpenError::NoSlot { slots: 2, .. }),
            "{refusal}"
        );
        let left = first.shutdown(Duration::ZERO).await.unwrap();
        assert_eq!(left, 0);
        assert!(Slot::new(scratch.path(), 1).mark().exists());
        let third = spool(dir()).await.unwrap();
        assert!(third.path().ends_with("slot-1"));
        assert!(!Slot::new(scratch.path(), 1).mark().exists());
    }

    #[tokio::test]
    async fn a_directory_is_shared_or_not() {
        let scratch = Scratch::new();
        drop(spool(scratch.path()).await.unwrap());
        let refusal = spool(SpoolDir::shared(scratch.path())).await.unwrap_err();
        assert!(matches!(refusal, OpenError::NotShared { .. }), "{refusal}");

        let scratch = Scratch::new();
        drop(spool(SpoolDir::shared(scratch.path())).await.unwrap());
        let refusal = spool(scratch.path()).await.unwrap_err();
        assert!(matches!(refusal, OpenError::NotASpool { .. }), "{refusal}");
    }

    #[tokio::test]
    async fn a_slot_of_a_newer_version_is_passed_over() {
        let scratch = Scratch::new();
        let newer = scratch.path().join("slot-1");
        fs::create_dir_all(&newer).unwrap();
        fs::write(newer.join("FORMAT"), "seawall-spool 99\n").unwrap();
        let spool = spool(SpoolDir::shared(scratch.path())).await.unwrap();
        assert!(spool.path().ends_with("slot-2"));
    }
}

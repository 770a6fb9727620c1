//! A spool that no process has open: looked through, copied out, and put back.
//!
//! For tools and tests; the command `seawall` (feature `cli`) is made of it. An application opens a
//! [`Spool`](super::Spool), which delivers what is there.
//!
//! Besides what waits for Redis there may be *tails*: what Redis has acknowledged, and its replicas may lack. They
//! are lanes as any other here, and each record of theirs says where Redis [knows](KnownAs) it.
//!
//! While a [`Stopped`] is there nobody else can open the directory, and an application that starts just
//! then is refused. [`look`] touches nothing and can be asked about a spool in use, too.
//!
//! # Default
//!
//! ```no_run
//! use seawall::spool::stopped::Stopped;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let spool = Stopped::open("/var/lib/app/spool").await?;
//! for lane in spool.lanes() {
//!     println!("{}: {} records since {:?}", lane.queue, lane.records, lane.oldest);
//! }
//! spool.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! All that waits, copied into another directory. Its lanes and numbers stay the same, so that nothing is
//! delivered twice, whichever of the two is drained:
//!
//! ```no_run
//! use seawall::spool::stopped::Stopped;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let from = Stopped::open("/var/lib/app/spool").await?;
//! let mut to = Stopped::create("/mnt/rescue/spool").await?;
//! for lane in from.lanes() {
//!     let mut next = lane.first;
//!     loop {
//!         let page = from.read(lane.id, next).await?;
//!         let Some(last) = page.last() else { break };
//!         next = last.number + 1;
//!         to.restore(page).await?;
//!     }
//! }
//! to.close().await?;
//! from.close().await?;
//! # Ok(())
//! # }
//! ```

mod look;
mod restore;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use self::restore::Index;
pub use self::{
    look::{Look, look},
    restore::{Restored, Unrestorable},
};
use super::{
    LaneId, OpenError, Parked, ParkedId, Recovery, SpoolOptions,
    chunk::Damaged,
    commit::{Disk, Left, LeftLane},
    dir::{FORMAT, failed},
    disk_failed,
    error::StoreError,
    slots::{self, Opened},
    tail::{Piece, queue_of},
};
use crate::error::Error;

/// Reads all of the spool in `path`, and says what opening it would find. Writes to none of its files.
///
/// # Errors
///
/// [`OpenError`], as with [`Stopped::open`]; what can't be read is an error, too.
///
/// # Cancel safety
///
/// Dropped, it goes on reading to the end, and has no effect.
pub async fn verify(path: impl AsRef<Path>) -> Result<Recovery, OpenError> {
    let options = SpoolOptions::new(path.as_ref());
    slots::verify(&options).await
}

/// A spool's directory, held open by a tool instead of an application.
///
/// [`close`](Self::close) is the orderly end; dropped without it, the directory is given back a moment
/// later.
#[derive(Debug)]
pub struct Stopped {
    path: PathBuf,
    disk: Disk,
    lanes: Vec<Lane>,
    contents: Contents,
    /// How far each lane is done with.
    done: BTreeMap<LaneId, u64>,
    index: Index,
}

impl Stopped {
    /// Opens the spool in `path`, all of which is checked.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as with [`Spool::open`](super::Spool::open), with
    /// [`Loss`](OpenError::Loss) if records are missing that must be there:
    /// [`open_damaged`](Self::open_damaged) goes on with what is left. And
    /// [`Io`](OpenError::Io) with [`NotFound`](io::ErrorKind::NotFound) if there is none: nothing is made
    /// where nothing was.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is closed again as soon as it has been opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // A directory that cannot be told from a missing one is left to the opening.
        let missing = |at: &Path| matches!(at.try_exists(), Ok(false));
        if missing(path) || missing(&path.join(FORMAT)) && is_empty(path) {
            let nothing = io::Error::from(io::ErrorKind::NotFound);
            return Err(failed("find a spool in", path)(nothing));
        }
        Self::with(SpoolOptions::new(path).with_strict(true)).await
    }

    /// Opens the spool in `path`, also if records are missing in it: the [`Recovery`] says how many. The next
    /// one to open it is not told again.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as with [`Spool::open`](super::Spool::open).
    ///
    /// # Cancel safety
    ///
    /// As with [`open`](Self::open).
    pub async fn open_damaged(path: impl AsRef<Path>) -> Result<(Self, Recovery), OpenError> {
        let opened = Self::create(path).await?;
        let recovery = opened.disk.recovery();
        Ok((opened, recovery))
    }

    /// Opens the spool in `path`, or makes one.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as with [`Spool::open`](super::Spool::open).
    ///
    /// # Cancel safety
    ///
    /// As with [`open`](Self::open).
    pub async fn create(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::with(SpoolOptions::new(path.as_ref())).await
    }

    async fn with(options: SpoolOptions) -> Result<Self, OpenError> {
        let path = options.dir.path().to_owned();
        let Opened { disk, left, .. } = slots::open(&options).await?;
        let contents = Contents::of(&left);
        Ok(Self {
            path,
            disk,
            lanes: left.lanes.iter().map(Lane::of).collect(),
            contents,
            done: left.done,
            index: Index::default(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lanes with records, tails included, the oldest first, as they were at opening.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// How much there is, as it was at opening.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// The records of `lane` from number `from` on, in order: some thousand of them, or a megabyte, and one at
    /// least. Empty if there is none.
    ///
    /// # Errors
    ///
    /// The disk failed, or what is on it is damaged.
    pub async fn read(&self, lane: LaneId, from: u64) -> Result<Vec<Record>, Error> {
        let of = self.lanes.iter().find(|known| known.id == lane);
        let acknowledged = of.map_or(0, |lane| lane.acknowledged);
        let chunks = self.disk.read(lane, from, PAGE_RECORDS, PAGE_BYTES).await;
        let chunks = chunks.map_err(|error| disk_failed(&error))?;
        let mut page = Vec::new();
        for chunk in chunks {
            let tail_of = queue_of(&chunk.queue);
            let queue = tail_of.unwrap_or(&chunk.queue);
            let numbered = (chunk.first..).zip(chunk.records);
            for (number, bytes) in numbered.filter(|(number, _)| *number >= from) {
                let (known_as, bytes) = match tail_of {
                    None => (None, bytes),
                    Some(_) => KnownAs::read(bytes)?,
                };
                page.push(Record {
                    lane,
                    queue: queue.to_owned(),
                    number,
                    acknowledged,
                    written: time(chunk.written_ms),
                    refusal: None,
                    known_as,
                    bytes,
                });
            }
        }
        Ok(page)
    }

    /// The records that Redis will never take, by lane and number: those that follow `after`, some thousand
    /// of them, or some megabytes, and one at least. Empty if there is none.
    ///
    /// [`Spool::unpark`](super::Spool::unpark) and [`Spool::delete_parked`](super::Spool::delete_parked) take
    /// them out, also of a spool that has no way to Redis.
    ///
    /// # Errors
    ///
    /// The disk failed, or what is on it is damaged.
    pub async fn parked(&self, after: Option<ParkedId>) -> Result<Vec<Parked>, Error> {
        let page = self.disk.parked(after, PAGE_RECORDS, PAGE_BYTES).await;
        page.map_err(|error| disk_failed(&error))
    }

    /// Puts records back, under the lanes and numbers they had, unless they are there already.
    ///
    /// On return they are durable. It can be repeated at will, also with records that have been delivered
    /// meanwhile: those that this spool is done with are skipped here, and others by Redis, for as long as
    /// that remembers their lane ([`lane_lifetime`](super::SpoolOptions::with_lane_lifetime)).
    ///
    /// # Errors
    ///
    /// [`Unrestorable`] names the record that can't be; of those it was handed over with, none is written.
    ///
    /// # Cancel safety
    ///
    /// Dropped, some of them may be written. Repeating it is safe.
    pub async fn restore(&mut self, records: Vec<Record>) -> Result<Restored, Unrestorable> {
        let Self { index, disk, .. } = self;
        index.restore(disk, &self.lanes, &self.done, records).await
    }

    /// Makes everything durable and gives the directory back.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn close(self) -> Result<(), Error> {
        let closed = self.disk.close().await;
        closed.map_err(|error| disk_failed(&error))
    }
}

/// The records of one lane that wait, or of a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lane {
    /// Its id, which Redis knows it by.
    pub id: LaneId,
    /// The queue it belongs to.
    pub queue: String,
    /// Whether it is the queue's tail: Redis has acknowledged all of it, and replicas may lack it.
    pub tail: bool,
    /// The number of the first record.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// How many there are: fewer than from `first` to `last` if some were refused in between.
    pub records: u64,
    /// What they cost on disk, in bytes.
    pub bytes: u64,
    /// The last number that Redis had acknowledged by the time they were written, or 0.
    pub acknowledged: u64,
    /// When the oldest of them was written.
    pub oldest: SystemTime,
}

impl Lane {
    fn of(left: &LeftLane) -> Self {
        let tail_of = queue_of(&left.queue);
        Self {
            id: left.lane,
            tail: tail_of.is_some(),
            queue: tail_of.unwrap_or(&left.queue).to_owned(),
            first: left.first,
            last: left.last,
            records: left.records,
            bytes: left.bytes,
            acknowledged: left.acknowledged,
            oldest: time(left.oldest_ms),
        }
    }
}

/// How much there is in a [`Stopped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// Records that wait for Redis.
    pub records: u64,
    /// What they cost on disk, in bytes.
    pub bytes: u64,
    /// Records of tails.
    pub tail: u64,
    /// What those cost on disk, in bytes.
    pub tail_bytes: u64,
    /// Records that Redis will never take.
    pub parked: u64,
    /// What those cost on disk, in bytes.
    pub parked_bytes: u64,
    /// When the record that waits longest was written.
    pub oldest: Option<SystemTime>,
}

impl Contents {
    fn of(left: &Left) -> Self {
        let (tails, waiting): (Vec<_>, Vec<_>) = left
            .lanes
            .iter()
            .partition(|lane| queue_of(&lane.queue).is_some());
        let records = |lanes: &[&LeftLane]| lanes.iter().map(|lane| lane.records).sum();
        let bytes = |lanes: &[&LeftLane]| lanes.iter().map(|lane| lane.bytes).sum();
        Self {
            records: records(&waiting),
            bytes: bytes(&waiting),
            tail: records(&tails),
            tail_bytes: bytes(&tails),
            parked: left.parked,
            parked_bytes: left.parked_bytes,
            oldest: waiting.iter().map(|lane| time(lane.oldest_ms)).min(),
        }
    }
}

/// One record, with all that it takes to put it back: see [`Stopped::restore`].
#[derive(Clone, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "whoever restores has to make one, and what it is on disk is fixed by the format"
)]
pub struct Record {
    /// The lane it is in.
    pub lane: LaneId,
    /// Its queue. At most 1,024 bytes.
    pub queue: String,
    /// Its number in the lane, from 1.
    pub number: u64,
    /// The last number of the lane that Redis had acknowledged, or 0.
    pub acknowledged: u64,
    /// When it was written, or parked; to the millisecond.
    pub written: SystemTime,
    /// Why Redis will never take it, if it is parked.
    pub refusal: Option<Refusal>,
    /// Where Redis knows it, if it is of a tail.
    pub known_as: Option<KnownAs>,
    /// What was spooled, for [`Spoolable::decode`](super::Spoolable::decode).
    pub bytes: Bytes,
}

/// Why a record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "whoever restores has to make one, and what it is on disk is fixed by the format"
)]
pub struct Refusal {
    /// What Redis said, without any key or payload.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Under which lane and number Redis has acknowledged a record of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "whoever restores has to make one, and what it is on disk is fixed by the format"
)]
pub struct KnownAs {
    /// The lane.
    pub lane: LaneId,
    /// The number in that.
    pub number: u64,
}

impl KnownAs {
    /// Takes what a tail puts before a record off it.
    fn read(bytes: Bytes) -> Result<(Option<Self>, Bytes), Error> {
        let Some(Piece {
            lane,
            number,
            record,
        }) = Piece::read(bytes)
        else {
            let damaged = Damaged("a record of a tail is too short to be one");
            return Err(disk_failed(&StoreError::Damaged(damaged)));
        };
        Ok((Some(Self { lane, number }), record))
    }
}

impl From<Parked> for Record {
    fn from(parked: Parked) -> Self {
        Self {
            lane: parked.lane,
            number: parked.number,
            acknowledged: 0,
            written: parked.parked_at(),
            queue: parked.queue,
            refusal: Some(Refusal {
                reason: parked.reason,
                attempts: parked.attempts,
            }),
            known_as: None,
            bytes: parked.record,
        }
    }
}

/// Shows everything but what was spooled.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("lane", &self.lane)
            .field("queue", &self.queue)
            .field("number", &self.number)
            .field("acknowledged", &self.acknowledged)
            .field("written", &self.written)
            .field("refusal", &self.refusal)
            .field("known_as", &self.known_as)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

const PAGE_RECORDS: usize = 1024;
const PAGE_BYTES: usize = 1 << 20;

fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests;

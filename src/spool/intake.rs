//! Where the records of one queue gather while a batch is on its way.

use std::{
    mem::{replace, take},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{Receipt, Spoolable};
use crate::error::Error;

/// Somebody who waits for a receipt.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) receipt: oneshot::Sender<Result<Receipt, Error>>,
    pub(super) since: Instant,
    /// Units of memory that the record holds until the waiter has its answer.
    pub(super) memory: u32,
}

/// Many push, one takes.
#[derive(Debug)]
pub(super) struct Intake<T> {
    gathered: Mutex<Gathered<T>>,
    /// Set when the first record arrives; cleared when the taker has heard.
    arrived: AtomicBool,
    taker: AtomicWaker,
    expected: AtomicUsize,
    wants_calls: AtomicBool,
    outside: InLine,
}

/// A record that waits for memory outside the intake, as long as this is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct InLine(Arc<()>);

/// The records and their waiters, place by place.
#[derive(Debug)]
struct Gathered<T> {
    records: Vec<T>,
    waiters: Vec<Waiter>,
    bytes: usize,
    /// Units of memory of all waiters that have no answer yet, here or taken.
    memory: usize,
    closed: bool,
}

impl<T: Spoolable> Intake<T> {
    pub(super) fn new() -> Self {
        Self {
            gathered: Mutex::new(Gathered {
                records: Vec::new(),
                waiters: Vec::new(),
                bytes: 0,
                memory: 0,
                closed: false,
            }),
            arrived: AtomicBool::new(false),
            taker: AtomicWaker::new(),
            expected: AtomicUsize::new(0),
            wants_calls: AtomicBool::new(true),
            outside: InLine::default(),
        }
    }

    /// Stands in line for memory: no record that comes later may pass this one.
    pub(super) fn line_up(&self) -> InLine {
        self.outside.clone()
    }

    /// Whether a record is in line for memory.
    pub(super) fn has_line(&self) -> bool {
        Arc::strong_count(&self.outside.0) > 1
    }

    /// Adds a record, or gives its waiter back if the intake is closed. Says whether it is the first that
    /// gathers: then the taker must be [called](Self::call), unless it is given its turn at once.
    pub(super) fn push(&self, record: T, waiter: Waiter) -> Result<bool, Waiter> {
        let size = record.size();
        let mut gathered = self.gathered.lock();
        if gathered.closed {
            return Err(waiter);
        }
        let first = gathered.records.is_empty();
        gathered.records.push(record);
        gathered.memory += waiter.memory as usize;
        gathered.waiters.push(waiter);
        gathered.bytes += size;
        drop(gathered);
        Ok(first)
    }

    /// Tells the taker that a record has arrived.
    pub(super) fn call(&self) {
        self.arrived.store(true, Release);
        self.taker.wake();
    }

    /// Whether the taker wants to be called. It says so before it looks at what has gathered, so nothing
    /// that it has not seen goes uncalled.
    pub(super) fn wants_calls(&self) -> bool {
        self.wants_calls.load(Acquire)
    }

    pub(super) fn want_calls(&self, want: bool) {
        self.wants_calls.store(want, Release);
    }

    /// How many may come together the next time: those who have just been answered, and those who wait.
    pub(super) fn expected(&self) -> usize {
        self.expected.load(Relaxed)
    }

    /// Notes how many may come together.
    pub(super) fn expect(&self, callers: usize) {
        self.expected.store(callers, Relaxed);
    }

    /// Takes the first ones, up to `most` records and about `bytes` bytes, but at least one if there
    /// is any.
    pub(super) fn take(&self, most: usize, bytes: usize) -> (Vec<T>, Vec<Waiter>) {
        let mut gathered = self.gathered.lock();
        let Gathered {
            records,
            waiters,
            bytes: held,
            ..
        } = &mut *gathered;
        let count = if records.len() <= most && *held <= bytes {
            records.len()
        } else {
            let mut room = bytes;
            let fit = records.iter().take(most).take_while(|record| {
                let fits = record.size() <= room;
                room = room.saturating_sub(record.size());
                fits
            });
            fit.count().max(1).min(records.len())
        };
        if count == records.len() {
            *held = 0;
            // The next batch is likely to be as large as this one.
            let records = replace(records, Vec::with_capacity(count));
            let waiters = replace(waiters, Vec::with_capacity(count));
            (records, waiters)
        } else {
            let rest = records.split_off(count);
            let taken = replace(records, rest);
            *held -= taken.iter().map(Spoolable::size).sum::<usize>();
            let rest = waiters.split_off(count);
            (taken, replace(waiters, rest))
        }
    }

    /// How many have gathered, and since when the first one waits.
    pub(super) fn gathered(&self) -> Option<(usize, Instant)> {
        let gathered = self.gathered.lock();
        gathered
            .waiters
            .first()
            .map(|first| (gathered.records.len(), first.since))
    }

    /// Ready once for each time that the first record of many has arrived.
    pub(super) fn poll_arrival(&self, cx: &Context<'_>) -> Poll<()> {
        self.taker.register(cx.waker());
        if self.arrived.swap(false, AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes no more. What has gathered can still be taken.
    pub(super) fn close(&self) {
        self.gathered.lock().closed = true;
    }
}

impl<T> Intake<T> {
    /// Notes that waiters with so many units of memory have their answers.
    pub(super) fn answered(&self, memory: usize) {
        self.gathered.lock().memory -= memory;
    }

    /// Takes no more, and lets go of those who wait. Says how many units of memory are free by that,
    /// those of waiters included that a panic has let go of.
    pub(super) fn abandon(&self) -> usize {
        let mut gathered = self.gathered.lock();
        gathered.closed = true;
        let (records, waiters) = (take(&mut gathered.records), take(&mut gathered.waiters));
        let memory = take(&mut gathered.memory);
        drop(gathered);
        drop((records, waiters));
        memory
    }
}

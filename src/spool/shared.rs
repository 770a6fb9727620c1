//! What the handles and the tasks of one spool have in common, and the table of its queues.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock, atomic::AtomicUsize},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use super::{
    Applied, Batch, SpoolOptions, Spoolable,
    commit::{Disk, LeftLane},
    queue::{Control, Handle, Queue},
    replay::Older,
    slots::{Opened, Place},
    tail::queue_of,
    usage::Usage,
};
use crate::error::{Error, ErrorKind, NOT_DONE};

/// Where batches go. The service's own type ends here, so that nothing above is generic over it.
pub(super) type WayOut<T> = BoxCloneSyncService<Batch<T>, Applied, Error>;

pub(super) struct Shared<T> {
    pub(super) options: SpoolOptions,
    pub(super) disk: Disk,
    pub(super) place: Place,
    pub(super) usage: Usage,
    /// Units of [`MEMORY_UNIT`] bytes.
    pub(super) memory: Semaphore,
    /// Bytes in memory that Redis has acknowledged and its replicas may lack, of all queues.
    pub(super) tail_bytes: Arc<AtomicUsize>,
    way_out: OnceLock<WayOut<T>>,
    /// Where records go instead, if anywhere.
    detour: ArcSwapOption<WayOut<T>>,
    queues: ArcSwap<HashMap<Arc<str>, Arc<Handle<T>>>>,
    /// Held while a queue is added, never over an await.
    adding: Mutex<Adding>,
    oldest: Mutex<HashMap<Arc<str>, u64>>,
    /// One of those at a time who send parked records again or delete them.
    pub(super) unparking: Semaphore,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
}

struct Adding {
    closed: bool,
    /// What waits on disk for its queue's task to start: the queue's name, and a lane of it.
    left: Vec<(Arc<str>, Older)>,
    /// What Redis had acknowledged of a queue, and its replicas may have lacked.
    tails: Vec<(Arc<str>, Older)>,
}

/// Records are counted against the memory bound in these.
pub(super) const MEMORY_UNIT: usize = 256;

impl<T: Spoolable> Shared<T> {
    /// Ends with `stop`.
    pub(super) fn new(options: SpoolOptions, opened: Opened, stop: CancellationToken) -> Self {
        let Opened { disk, left, place } = opened;
        let usage = Usage::new(&options);
        usage.measured(disk.bytes());
        usage.adopt(left.parked, left.parked_bytes, left.parked);
        for lane in &left.lanes {
            usage.adopt(lane.records, lane.bytes, 0);
        }
        let limit_parked = options.max_parked.try_into().unwrap_or(i64::MAX);
        options.metrics.limit_parked.set(limit_parked);
        let memory = Semaphore::new(options.max_memory / MEMORY_UNIT);
        let (mut tails, mut waiting) = (Vec::new(), Vec::new());
        for (name, lane) in left.lanes.into_iter().map(older) {
            match queue_of(&name) {
                Some(queue) => {
                    usage.note_tail(lane.records);
                    tails.push((queue.into(), lane));
                }
                None => waiting.push((name, lane)),
            }
        }
        let left = waiting;
        Self {
            options,
            disk,
            place,
            usage,
            memory,
            tail_bytes: Arc::default(),
            way_out: OnceLock::new(),
            detour: ArcSwapOption::empty(),
            queues: ArcSwap::default(),
            adding: Mutex::new(Adding {
                closed: false,
                left,
                tails,
            }),
            oldest: Mutex::default(),
            unparking: Semaphore::new(1),
            runtime: tokio::runtime::Handle::current(),
            stop,
        }
    }

    /// Sets the way out and starts on what an earlier run left, unless there is one. Says whether it did.
    pub(super) fn set_way_out(self: &Arc<Self>, way_out: WayOut<T>) -> bool {
        if self.way_out.set(way_out).is_err() {
            return false;
        }
        let left = |adding: &Adding| {
            let lanes = adding.left.iter().chain(&adding.tails);
            lanes.map(|(queue, _)| queue.clone()).collect()
        };
        let names: Vec<Arc<str>> = left(&self.adding.lock());
        for name in names {
            // More queues than allowed may have been left: they are replayed all the same.
            let _ = self.add(&name, usize::MAX);
        }
        true
    }

    pub(super) fn way_out(&self) -> WayOut<T> {
        self.way_out
            .get()
            .expect("queues are added only once there is a way out")
            .clone()
    }

    pub(super) fn detour(&self) -> Option<WayOut<T>> {
        self.detour.load().as_deref().cloned()
    }

    pub(super) fn set_detour(&self, detour: Option<WayOut<T>>) {
        self.detour.store(detour.map(Arc::new));
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(super) fn queue(self: &Arc<Self>, name: &str) -> Result<Arc<Handle<T>>, Error> {
        match self.queues.load().get(name) {
            Some(queue) => Ok(queue.clone()),
            None => self.add(name, self.options.max_queues),
        }
    }

    fn add(self: &Arc<Self>, name: &str, most: usize) -> Result<Arc<Handle<T>>, Error> {
        let mut adding = self.adding.lock();
        let queues = self.queues.load_full();
        if let Some(queue) = queues.get(name) {
            return Ok(queue.clone());
        }
        if adding.closed {
            return Err(closed());
        }
        if queue_of(name).is_some() {
            return Err(Error::new(ErrorKind::Invalid, NOT_DONE)
                .with_cause("a queue's name can't begin as that of a tail on disk does"));
        }
        if queues.len() >= most {
            return Err(Error::new(ErrorKind::Invalid, NOT_DONE).with_cause(format!(
                "there are {most} queues already; raise SpoolOptions::with_max_queues if that is meant"
            )));
        }
        let left = take_of(&mut adding.left, name);
        let tails = take_of(&mut adding.tails, name);
        let name: Arc<str> = name.into();
        // A queue has a timer, and whoever calls may be outside the runtime.
        let runtime = self.runtime.enter();
        let handle = Arc::new(Queue::open(self.clone(), name.clone(), left, tails));
        drop(runtime);
        let mut queues = (*queues).clone();
        queues.insert(name, handle.clone());
        self.queues.store(Arc::new(queues));
        let (task, stopped) = (handle.driver.task(), self.stop.clone().cancelled_owned());
        self.runtime.spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = task => {}
            }
        });
        Ok(handle)
    }

    /// Has a lane of `queue` that is on disk sent: by its task if it has one, else by the one it gets now, or
    /// once there is a way out.
    pub(super) async fn adopt(self: &Arc<Self>, queue: &str, lane: Older) {
        let handle = {
            let mut adding = self.adding.lock();
            let handle = self.queues.load().get(queue).cloned();
            match handle {
                Some(handle) => Ok((handle, lane)),
                None => {
                    adding.left.push((queue.into(), lane));
                    Err(())
                }
            }
        };
        match handle {
            // A queue that has ended leaves it to the next run.
            Ok((handle, lane)) => drop(handle.control.send(Control::Adopt(lane)).await),
            Err(()) if self.way_out.get().is_some() => drop(self.add(queue, usize::MAX)),
            Err(()) => {}
        }
    }

    /// Keeps an eye on the disk: it may fail or shrink while no queue has anything to do with it.
    pub(super) fn watch_disk(self: &Arc<Self>) {
        let (shared, stopped) = (self.clone(), self.stop.clone().cancelled_owned());
        let mut changes = self.disk.watch_condition();
        self.runtime.spawn(async move {
            let watching = async {
                while changes.changed().await.is_ok() {
                    shared.usage.measured(shared.disk.bytes());
                    shared.usage.observe((&shared.disk.condition()).into());
                }
            };
            tokio::select! {
                () = stopped => {}
                () = watching => {}
            }
        });
    }

    /// All queues; from here on there will be no others.
    pub(super) fn close(&self) -> Vec<Arc<Handle<T>>> {
        self.adding.lock().closed = true;
        self.usage.close();
        self.handles()
    }

    /// The queue, if there is one yet.
    pub(super) fn known(&self, name: &str) -> Option<Arc<Handle<T>>> {
        self.queues.load().get(name).cloned()
    }

    pub(super) fn handles(&self) -> Vec<Arc<Handle<T>>> {
        self.queues.load().values().cloned().collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.adding.lock().closed
    }
}

impl<T> Shared<T> {
    /// Cancelled when all tasks are to end.
    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends all tasks at their next await.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Notes since when the front of `queue` waits, in milliseconds since 1970.
    pub(super) fn show_oldest(&self, queue: &Arc<str>, since_ms: Option<u64>) {
        let mut oldest = self.oldest.lock();
        match since_ms {
            Some(since) => oldest.insert(queue.clone(), since),
            None => oldest.remove(queue),
        };
        let first = oldest.values().min().copied();
        drop(oldest);
        self.options
            .metrics
            .oldest
            .set(first.map_or(0.0, |ms| ms as f64 / 1000.0));
    }

    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.oldest.lock().values().min().copied()
    }
}

/// Shut down, or about to be; nothing was sent.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, NOT_DONE)
}

/// Takes the lanes of `queue` out, in order.
fn take_of(lanes: &mut Vec<(Arc<str>, Older)>, queue: &str) -> VecDeque<Older> {
    let all = std::mem::take(lanes).into_iter();
    let (of_queue, others): (Vec<_>, Vec<_>) = all.partition(|(name, _)| &**name == queue);
    *lanes = others;
    of_queue.into_iter().map(|(_, lane)| lane).collect()
}

fn older(left: LeftLane) -> (Arc<str>, Older) {
    let older = Older {
        lane: left.lane,
        front: left.first,
        last: left.last,
        // What is on disk from there on is sent again by itself, whatever Redis has of it.
        acknowledged: left.acknowledged.min(left.first.saturating_sub(1)),
        refused: left.refused,
        records: left.records,
        bytes: left.bytes,
    };
    (left.queue.into(), older)
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

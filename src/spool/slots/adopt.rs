//! Takes over what processes that have ended left in their slots, one slot at a time.
//!
//! A slot that was taken over is a second spool beside the process's own, with lanes, bounds and a disk of
//! its own; only the way out is the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Opened, Opening, Place, Sharing, Slot, blocking};
use crate::{
    metrics::SpoolMetrics,
    spool::{SpoolOptions, Spoolable, shared::Shared},
};

/// The task that does it. It ends with the spool.
#[derive(Debug, Default)]
pub(in crate::spool) struct Adoption {
    task: TaskTracker,
    ending: CancellationToken,
}

impl Adoption {
    /// Begins, if the directory of `shared`, which has a way out now, is one of many processes.
    pub(in crate::spool) fn start<T: Spoolable>(&self, shared: &Arc<Shared<T>>) {
        let (Some(sharing), Some(own)) = (shared.options.dir.sharing, shared.place.slot()) else {
            return;
        };
        let adopter = Adopter {
            own: own.clone(),
            shared: shared.clone(),
            sharing,
            ending: self.ending.clone(),
            resting: HashMap::new(),
        };
        let stopped = shared.stopped().clone().cancelled_owned();
        let work = async move {
            tokio::select! {
                () = stopped => {}
                () = adopter.run() => {}
            }
        };
        self.task.spawn_on(work, shared.runtime());
    }

    /// Gives back what has been taken over, and comes back when that is done.
    pub(in crate::spool) async fn end(&self) {
        self.ending.cancel();
        self.task.close();
        self.task.wait().await;
    }
}

struct Adopter<T> {
    own: Slot,
    shared: Arc<Shared<T>>,
    sharing: Sharing,
    ending: CancellationToken,
    /// Slots with which nothing could be done, by their number.
    resting: HashMap<u32, Rest>,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

/// What became of a slot.
enum Fate {
    /// Another process has it, or nothing waits in it any more.
    Settled,
    /// Something waits in it that cannot be delivered now.
    Left,
}

impl<T: Spoolable> Adopter<T> {
    async fn run(mut self) {
        let mut recoveries = self.shared.options.recoveries.clone();
        loop {
            self.look_around().await;
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = sleep(jittered(self.sharing.interval)) => {}
                () = changed(&mut recoveries) => self.resting.clear(),
            }
        }
    }

    /// Does what can be done with each slot.
    async fn look_around(&mut self) {
        // Each process begins elsewhere, so that they do not go from slot to slot behind each other.
        let (slots, first) = (self.sharing.max_slots, rand::random::<u32>());
        for number in (0..slots).map(|step| (first % slots + step) % slots + 1) {
            let rests = self.resting.get(&number);
            let slot = Slot::new(&self.own.base, number);
            if number == self.own.number
                || rests.is_some_and(|rest| rest.until > Instant::now())
                || !slot.may_hold_records()
            {
                continue;
            }
            match self.take_over(slot).await {
                Fate::Settled => drop(self.resting.remove(&number)),
                Fate::Left => self.rest(number),
            }
            if self.ending.is_cancelled() {
                return;
            }
        }
    }

    fn rest(&mut self, number: u32) {
        let before = self.resting.get(&number).map(|rest| rest.length * 2);
        let least = self.sharing.interval;
        let length = before.unwrap_or(least).min(LONGEST_REST.max(least));
        let until = Instant::now() + jittered(length);
        self.resting.insert(number, Rest { until, length });
    }

    async fn take_over(&self, slot: Slot) -> Fate {
        let (number, path) = (slot.number, slot.path());
        let mut options = self.shared.options.clone();
        options.metrics = options.metrics.without_gauges();
        let (opening, place) = (Opening::new(&options), Place::Slot(slot.clone()));
        match blocking(path, move || opening.open(place)).await {
            Ok(opened) => self.deliver(number, options, opened).await,
            Err(error) if slot.is_anothers(&error) => Fate::Settled,
            Err(error) => {
                tracing::warn!(slot = number, %error, "slot of the spool cannot be opened");
                Fate::Left
            }
        }
    }

    async fn deliver(&self, number: u32, options: SpoolOptions, opened: Opened) -> Fate {
        let metrics = self.shared.options.metrics.clone();
        let holds_some = !opened.left.lanes.is_empty();
        let stop = self.shared.stopped().child_token();
        let slot = Arc::new(Shared::<T>::new(options, opened, stop));
        let records = slot.usage.left();
        if holds_some {
            metrics.adopted_slots.inc();
            metrics.adopting.set(gauged(records));
            tracing::info!(
                slot = number,
                records,
                "took over the slot of a process that has ended"
            );
        }
        let mut progress = Progress {
            metrics,
            left: records,
        };
        slot.set_way_out(self.shared.way_out());
        let is_flushed = self.drain(&slot, &mut progress).await;
        // What came from disk just now may be on its way to the replicas.
        let grace = if is_flushed {
            FOR_REPLICAS
        } else {
            Duration::ZERO
        };
        slot.end_queues(Instant::now() + grace).await;
        progress.note(slot.usage.left());
        drop(progress);
        let closed = slot.close_disk(Instant::now()).await;
        match closed {
            Ok(0) => {
                let parked = slot.usage.parked();
                if holds_some {
                    tracing::info!(
                        slot = number,
                        records,
                        parked,
                        "slot delivered and given back"
                    );
                }
                Fate::Settled
            }
            Ok(left) => {
                tracing::warn!(slot = number, left, "slot given back with records left");
                Fate::Left
            }
            Err(error) => {
                let reason = error.reason();
                tracing::warn!(slot = number, reason, "slot of the spool cannot be closed");
                Fate::Left
            }
        }
    }

    /// Waits until nothing is left in it, or nothing moves, or the spool is to end. Says whether Redis has
    /// all of it.
    async fn drain(&self, slot: &Arc<Shared<T>>, progress: &mut Progress) -> bool {
        let mut freed = slot.usage.freed();
        let mut flushed = std::pin::pin!(slot.flush());
        let (mut moved, mut is_flushed) = (Instant::now(), false);
        loop {
            progress.note(slot.usage.left());
            // Its replicas are to have it as well.
            if is_flushed && slot.usage.left() == 0 {
                return true;
            }
            tokio::select! {
                () = self.ending.cancelled() => return false,
                () = &mut flushed, if !is_flushed => is_flushed = true,
                Ok(()) = freed.changed() => moved = Instant::now(),
                () = sleep_until(moved + self.sharing.patience) => return is_flushed,
            }
        }
    }
}

/// Counts what leaves a slot, and shows what waits in it for as long as it is held.
struct Progress {
    metrics: SpoolMetrics,
    left: u64,
}

impl Progress {
    fn note(&mut self, left: u64) {
        let gone = self.left.saturating_sub(left);
        self.metrics.adopted_records.inc_by(gone);
        self.metrics.adopting.set(gauged(left));
        self.left = left;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.metrics.adopting.set(0);
    }
}

fn gauged(records: u64) -> i64 {
    records.try_into().unwrap_or(i64::MAX)
}

fn jittered(length: Duration) -> Duration {
    length.mul_f64(0.5 + rand::random::<f64>())
}

/// Ready when Redis is back; never if nobody says so.
async fn changed(recoveries: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = recoveries {
        if receiver.changed().await.is_ok() {
            return;
        }
        *recoveries = None;
    }
    std::future::pending().await
}

/// As long as a queue waits for its replicas at its end.
const FOR_REPLICAS: Duration = Duration::from_secs(1);

const LONGEST_REST: Duration = Duration::from_secs(300);

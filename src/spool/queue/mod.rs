//! One queue at work: numbers, sends, writes and replays.
//!
//! [`Lane`] decides what may move; this module moves it. A turn is: start whatever may be started, see
//! what has happened, take note of it. [`Driver`] gives it its turns. What goes to Redis is in
//! `sending`, what goes to disk in `appending`, what the callers and the operators hear in `answers`.

mod answers;
mod appending;
mod changed;
mod confirming;
mod keeping;
mod losses;
mod repairing;
mod sending;
mod spilling;
#[cfg(test)]
mod tests;
mod timing;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep},
};

use self::{
    changed::Changed,
    confirming::Confirming,
    keeping::{AsOf, Keeping},
    losses::Losses,
};
use super::{
    Applied, Asks, Batch, LaneId, Spoolable,
    chunk::Held,
    driver::Driver,
    error::StoreError,
    intake::{Intake, Waiter},
    lane::{Lane, Span},
    limits::Limits,
    options::Ack,
    pace::Pace,
    replay::{Older, Replay, Sent},
    shared::Shared,
    usage::Slot,
};
use crate::{error::Error, metrics::QueueMetrics};

/// What others ask of a queue's task.
#[derive(Debug)]
pub(super) enum Control {
    /// Send another lane's records, which are on disk, before your own.
    Adopt(Older),
    /// Answer when nothing is left in memory or on disk.
    Flush(oneshot::Sender<()>),
    /// Deliver what you can until `deadline`, write down the rest, and end.
    Shutdown {
        deadline: Instant,
        done: oneshot::Sender<()>,
    },
}

/// What the others hold of a queue.
#[derive(Debug)]
pub(super) struct Handle<T> {
    pub(super) intake: Arc<Intake<T>>,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) metrics: QueueMetrics,
    pub(super) driver: Driver<T>,
    pub(super) limits: Limits,
    pub(super) slot: Slot,
}

pub(super) struct Queue<T> {
    shared: Arc<Shared<T>>,
    name: Arc<str>,
    limits: Limits,
    slot: Slot,
    metrics: QueueMetrics,
    intake: Arc<Intake<T>>,
    control: mpsc::Receiver<Control>,
    id: LaneId,
    lane: Lane,
    /// An earlier try of this lane may still be carried out by Redis at any time.
    ambiguous: bool,
    last_applied: Instant,
    sending: Option<Sending<T>>,
    /// Batches that go to disk next, in the order of [`Lane`]'s returned spans.
    returned: VecDeque<Outgoing<T>>,
    appending: Option<Appending>,
    replay: Replay<T>,
    pace: Pace,
    /// Redis refuses this lane as a whole.
    blocked: bool,
    /// What waits on disk could not be read the last time.
    unreadable: bool,
    state: Option<&'static str>,
    timer: Pin<Box<Sleep>>,
    freed: Changed<()>,
    recovered: Option<Changed<u64>>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Until when, and who waits for it.
    closing: Option<(Instant, Vec<oneshot::Sender<()>>)>,
    /// The deadline of the shutdown has passed: nothing is sent any more.
    hard: bool,
    /// How often others have been let go first since the last batch.
    waits: u8,
    losses: Losses,
    keeping: Keeping<T>,
    confirming: Confirming<T>,
    /// The room of dropped records is kept for the first that returned.
    holds: bool,
}

/// A batch in memory, and those who wait for it.
struct Outgoing<T> {
    batch: Batch<T>,
    waiters: VecDeque<Waiter>,
    /// Why it is not in Redis, if it has been tried.
    failure: Option<Error>,
}

struct Sending<T> {
    batch: Batch<T>,
    from: From,
    keeper: Keeper,
    sent: AsOf,
    /// The service has let the batch's deadline pass by far, and is not waited for any longer.
    give_up: Instant,
    answer: BoxFuture<'static, Result<Applied, Error>>,
}

/// Who has records once they are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeper {
    FarEnd,
    /// They have gone by a [detour](super::Spool::detour), and the far end is not to be asked for them.
    SomebodyElse,
}

enum From {
    Memory(VecDeque<Waiter>),
    Disk(Sent),
    /// It is a step of a pass over the tail.
    Tail,
}

struct Appending {
    span: Span,
    waiters: VecDeque<Waiter>,
    failure: Option<Error>,
    bytes: u64,
    give_up: Instant,
    answer: BoxFuture<'static, Result<(), StoreError>>,
}

enum Event {
    Sent(Result<Applied, Error>),
    Appended(Result<(), StoreError>),
    Spilled(Result<(), StoreError>),
    TailRead(Result<Vec<Held>, StoreError>),
    Confirmed(Result<Applied, Error>),
    Replicas,
    Replay,
    Arrived,
    Freed,
    Recovered,
    Control(Option<Control>),
    Time,
}

impl<T: Spoolable> Queue<T> {
    /// A queue in its driver, waiting for its task to be started.
    pub(super) fn open(
        shared: Arc<Shared<T>>,
        name: Arc<str>,
        older: VecDeque<Older>,
        tails: VecDeque<Older>,
    ) -> Handle<T> {
        let options = &shared.options;
        let home = shared.runtime().clone();
        let metrics = options.metrics.queue(&name);
        let intake = Arc::new(Intake::new());
        let (sender, control) = mpsc::channel(16);
        // The next run goes by the ids, if both are left to it.
        let id = LaneId::fresh_after(older.iter().map(|older| older.lane));
        let limits = options.limits_of(&name);
        let slot = shared.usage.open(&name, &limits);
        let left = || older.iter().chain(&tails);
        let records = left().map(|older| older.records).sum();
        let bytes = left().map(|older| older.bytes).sum();
        shared.usage.assign(slot, records, bytes);
        let queue = Self {
            limits,
            slot,
            metrics: metrics.clone(),
            intake: intake.clone(),
            control,
            id,
            lane: Lane::new(options.ack == Ack::Spooled, !older.is_empty()),
            ambiguous: false,
            last_applied: Instant::now(),
            sending: None,
            returned: VecDeque::new(),
            appending: None,
            replay: Replay::new(name.clone(), id, slot, older),
            pace: Pace::new(options.replay),
            blocked: false,
            unreadable: false,
            state: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            freed: Changed::new(shared.usage.freed()),
            recovered: options.recoveries.clone().map(Changed::new),
            flushes: Vec::new(),
            closing: None,
            hard: false,
            waits: 0,
            losses: Losses::default(),
            keeping: Keeping::new(&shared, tails),
            confirming: Confirming::new(options.ack.confirmation()),
            holds: false,
            name,
            shared,
        };
        Handle {
            intake,
            control: sender,
            metrics,
            driver: Driver::new(queue, home),
            limits,
            slot,
        }
    }

    /// Does whatever can be done now. Ready once the queue is over and only [`end`](Self::end) is left.
    ///
    /// `cx` wakes the queue's task, whoever calls this.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.intake.want_calls(true);
        loop {
            self.start(Instant::now(), cx);
            self.show_state();
            if self.is_flushed() {
                for flush in self.flushes.drain(..) {
                    let _ = flush.send(());
                }
            }
            if self.is_over() {
                return Poll::Ready(());
            }
            let Poll::Ready(event) = self.poll_event(cx) else {
                self.intake.want_calls(!self.needs_no_calls());
                return Poll::Pending;
            };
            self.handle(event, Instant::now());
        }
    }

    /// Whether what arrives from here on can wait for the answer that is on its way, or for the timer.
    fn needs_no_calls(&self) -> bool {
        self.sending.is_some() && self.lane.is_direct() && self.closing.is_none()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Nothing in memory, nothing on disk.
    fn is_settled(&self) -> bool {
        self.is_empty() && self.keeping.is_through()
    }

    /// Nothing waits. On a [detour](super::Spool::detour) what the far end lacks is none of its business.
    fn is_flushed(&self) -> bool {
        self.is_settled() || (self.is_empty() && self.shared.detour().is_some())
    }

    fn is_empty(&self) -> bool {
        self.lane.is_idle()
            && self.confirming.is_idle()
            && !self.replay.is_parking()
            && self.intake.gathered().is_none()
    }

    fn is_over(&self) -> bool {
        let nothing_in_memory = self.intake.gathered().is_none()
            && self.sending.is_none()
            && self.returned.is_empty()
            && self.appending.is_none()
            && self.keeping.spilling.is_none()
            && self.confirming.is_idle()
            && !self.replay.is_parking();
        self.closing.is_some() && (self.is_settled() || (self.hard && nothing_in_memory))
    }

    /// The last word to Redis.
    pub(super) async fn end(mut self) {
        let deadline = self.closing.as_ref().map(|(deadline, _)| *deadline);
        self.end_tail(deadline.unwrap_or_else(Instant::now)).await;
        // The next run asks for a lane of which it finds a tail.
        let leaves_tail = self.keeping.spills() && !self.keeping.tail.is_empty();
        if self.is_settled()
            && self.lane.acknowledged() > 0
            && !self.ambiguous
            && !leaves_tail
            && self.is_off_the_disk().await
        {
            // Nothing can come late any more, so Redis may forget the lane.
            let end = Batch::question(self.id, self.name.clone(), Asks::End);
            let _ = tokio::time::timeout(
                self.shared.options.spool_after,
                self.send(end, self.shared.way_out()),
            )
            .await;
        }
        self.move_state(None);
        for done in self.closing.take().into_iter().flat_map(|(_, done)| done) {
            let _ = done.send(());
        }
    }

    /// Removals gather before they are made. A crash that undid one would have the next run deliver
    /// again what only the lane's number in Redis can hold back.
    fn is_off_the_disk(&self) -> impl Future<Output = bool> + use<T> {
        let (disk, within) = (self.shared.disk.clone(), self.shared.options.disk_timeout);
        async move { matches!(tokio::time::timeout(within, disk.sync()).await, Ok(Ok(()))) }
    }

    // ===== starting =====

    /// All of it goes by one `now`: a moment that passed between acting on it and setting the timer to it
    /// would pass unnoticed.
    fn start(&mut self, now: Instant, cx: &Context<'_>) {
        self.on_time(now);
        self.release_overdue(now);
        self.keep(now);
        self.refuse_overdue(now);
        self.start_confirm(now);
        if self.replay.promote() {
            self.lane.adopted();
        }
        self.look_for_old(now);
        self.start_append(now);
        self.start_send(now, cx);
        if !self.unreadable || self.pace.wait_until(now).is_none() {
            self.replay.start_read(&self.shared, &self.lane);
        }
        self.arm(now);
    }

    // ===== waiting =====

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(answer) = sending.answer.as_mut().poll(cx)
        {
            return Poll::Ready(Event::Sent(answer));
        }
        if let Some(appending) = &mut self.appending
            && let Poll::Ready(answer) = appending.answer.as_mut().poll(cx)
        {
            return Poll::Ready(Event::Appended(answer));
        }
        if let Some(event) = self.poll_tail(cx) {
            return Poll::Ready(event);
        }
        if self.replay.poll(cx).is_ready() {
            return Poll::Ready(Event::Replay);
        }
        if self.intake.poll_arrival(cx).is_ready() {
            return Poll::Ready(Event::Arrived);
        }
        if !self.returned.is_empty() && self.freed.poll(cx).is_ready() {
            return Poll::Ready(Event::Freed);
        }
        if let Some(recovered) = &mut self.recovered
            && recovered.poll(cx).is_ready()
        {
            return Poll::Ready(Event::Recovered);
        }
        if let Poll::Ready(control) = self.control.poll_recv(cx) {
            return Poll::Ready(Event::Control(control));
        }
        self.timer.as_mut().poll(cx).map(|()| Event::Time)
    }

    fn poll_tail(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        if let Some(spilling) = &mut self.keeping.spilling
            && let Poll::Ready(answer) = spilling.poll(cx)
        {
            return Some(Event::Spilled(answer));
        }
        if let Some(reading) = &mut self.keeping.reading
            && let Poll::Ready(read) = reading.as_mut().poll(cx)
        {
            return Some(Event::TailRead(read));
        }
        if let Poll::Ready(answer) = self.confirming.poll(cx) {
            return Some(Event::Confirmed(answer));
        }
        let changed = self.keeping.poll_changed(cx);
        changed.is_ready().then_some(Event::Replicas)
    }

    // ===== taking note =====

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Sent(answer) => self.on_sent(answer, now),
            Event::Appended(answer) => self.on_appended(answer, now),
            Event::Spilled(answer) => self.on_spilled(&answer, now),
            Event::TailRead(read) => self.on_tail_read(read, now),
            Event::Confirmed(answer) => self.on_confirmed(answer, now),
            Event::Replicas => self.on_replicas(),
            Event::Replay => self.on_replay(now),
            Event::Arrived | Event::Freed => {}
            Event::Recovered => {
                self.pace.recovered(now, rand::random());
                self.keeping.pace.recovered(now, rand::random());
                self.keeping.recovered();
            }
            Event::Control(Some(Control::Adopt(lane))) => {
                let usage = &self.shared.usage;
                usage.assign(self.slot, lane.records, lane.bytes);
                self.replay.adopt(lane);
            }
            Event::Control(Some(Control::Flush(done))) => self.flushes.push(done),
            Event::Control(Some(Control::Shutdown { deadline, done })) => {
                self.intake.close();
                // Who asks again may be in more of a hurry, and ends the waiting of nobody else.
                let (until, waiting) = self.closing.get_or_insert((deadline, Vec::new()));
                *until = deadline.min(*until);
                waiting.push(done);
            }
            // Every handle is gone, and the task is about to be cancelled.
            Event::Control(None) => {
                self.intake.close();
                self.closing = Some((now, Vec::new()));
                self.control.close();
            }
            // The next start looks at the time.
            Event::Time => {}
        }
    }

    fn on_replay(&mut self, now: Instant) {
        match self.replay.settle(&self.shared, &mut self.lane) {
            Ok(parked) => {
                self.unreadable = false;
                self.metrics.parked.inc_by(parked);
            }
            Err(error) => self.on_unreadable(&error, now),
        }
    }

    fn on_unreadable(&mut self, error: &Error, now: Instant) {
        self.unreadable = true;
        self.block(error);
        self.pace.failed(None, now, rand::random());
    }
}

/// However the task ends, nobody waits for it any longer.
impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.losses.tell(&self.name, None);
        self.shared.memory.add_permits(self.intake.abandon());
    }
}

pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

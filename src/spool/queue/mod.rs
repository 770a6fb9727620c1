//! One queue at work: numbers, sends, writes and replays.
//!
//! [`Lane`] decides what may move; this module moves it. A turn is: start whatever may be started, see
//! what has happened, take note of it. [`Driver`] gives it its turns. What goes to Redis is in
//! `sending`, what goes to disk in `appending`, what the callers and the operators hear in `answers`.

mod answers;
mod appending;
mod changed;
mod losses;
mod sending;
#[cfg(test)]
mod tests;

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

use self::{changed::Changed, losses::Losses};
use super::{
    Applied, Batch, LaneId, Spoolable,
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
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    metrics::QueueMetrics,
};

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
    /// The service has let the batch's deadline pass by far, and is not waited for any longer.
    give_up: Instant,
    answer: BoxFuture<'static, Result<Applied, Error>>,
}

enum From {
    Memory(VecDeque<Waiter>),
    Disk(Sent),
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
        let records = older.iter().map(|older| older.records).sum();
        let bytes = older.iter().map(|older| older.bytes).sum();
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
            if self.is_settled() {
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
        self.lane.is_idle() && !self.replay.is_parking() && self.intake.gathered().is_none()
    }

    fn is_over(&self) -> bool {
        let nothing_in_memory = self.intake.gathered().is_none()
            && self.sending.is_none()
            && self.returned.is_empty()
            && self.appending.is_none()
            && !self.replay.is_parking();
        self.closing.is_some() && (self.is_settled() || (self.hard && nothing_in_memory))
    }

    /// The last word to Redis.
    pub(super) async fn end(mut self) {
        if self.is_settled()
            && self.lane.acknowledged() > 0
            && !self.ambiguous
            && self.is_off_the_disk().await
        {
            // Nothing can come late any more, so Redis may forget the lane.
            let end = Batch::end(self.id, self.name.clone());
            let _ = tokio::time::timeout(self.shared.options.spool_after, self.send(end)).await;
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

    /// Sets the timer to the next moment at which time alone changes something.
    fn arm(&mut self, now: Instant) {
        let gathered = self.intake.gathered().map(|(_, since)| {
            let overdue = self.overdue_at(since);
            if overdue > now {
                overdue
            } else {
                since + self.shared.options.disk_timeout
            }
        });
        // Those who arrive behind a request do not call.
        let behind = self.sending.as_ref().map(|_| self.overdue_at(now));
        let moments = [
            gathered.or(behind),
            self.pace.wait_until(now),
            self.sending.as_ref().map(|sending| sending.give_up),
            self.appending
                .as_ref()
                .filter(|a| !a.waiters.is_empty())
                .map(|a| a.give_up),
            self.returned
                .front()
                .and_then(|returned| self.give_up_at(returned)),
            self.returned
                .front()
                .and_then(|returned| returned.waiters.front())
                .map(|waiter| waiter.since + self.shared.options.disk_timeout),
            self.closing
                .as_ref()
                .filter(|_| !self.hard)
                .map(|(deadline, _)| *deadline),
            self.losses.due(),
        ];
        let far = now + Duration::from_secs(3600);
        let next = moments
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(far);
        // An early wake costs a turn of the loop; moving the timer at each batch costs more.
        let armed = self.timer.deadline();
        if armed <= now || next < armed {
            self.timer.as_mut().reset(next);
        }
    }

    fn overdue_at(&self, since: Instant) -> Instant {
        since + self.shared.options.spool_after
    }

    // ===== taking note =====

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Sent(answer) => self.on_sent(answer, now),
            Event::Appended(answer) => self.on_appended(answer, now),
            Event::Replay => self.on_replay(now),
            Event::Arrived | Event::Freed => {}
            Event::Recovered => self.pace.recovered(now, rand::random()),
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

    fn on_time(&mut self, now: Instant) {
        if self
            .closing
            .as_ref()
            .is_some_and(|(deadline, _)| *deadline <= now)
            && !self.hard
        {
            self.hard = true;
            self.recall();
        }
        if self
            .sending
            .as_ref()
            .is_some_and(|sending| sending.give_up <= now)
        {
            self.recall();
            self.replay.rewind();
            self.pace.failed(None, now, rand::random());
        }
        let hung = match &mut self.appending {
            Some(appending) if appending.give_up <= now => std::mem::take(&mut appending.waiters),
            _ => return,
        };
        // The record may get to disk yet, and is delivered if it does.
        let slow = |landed| {
            Error::new(ErrorKind::Spool, Verdict::new(Class::Outage, landed))
                .with_cause("the disk has not answered in time")
        };
        self.refuse(hung, || slow(Landed::Maybe));
        while self.returned.front().is_some_and(|behind| {
            let first = behind.waiters.front();
            first.is_some_and(|first| first.since + self.shared.options.disk_timeout <= now)
        }) {
            self.lane.take_returned();
            if let Some(Outgoing {
                waiters, failure, ..
            }) = self.returned.pop_front()
            {
                let landed = failure.map_or(Landed::No, |failure| failure.verdict().landed);
                self.refuse(waiters, || slow(landed));
            }
        }
        while self
            .intake
            .gathered()
            .is_some_and(|(_, since)| since + self.shared.options.disk_timeout <= now)
        {
            let (records, waiters) = self.intake.take(self.shared.options.max_batch_records, 1);
            drop(records);
            self.refuse(waiters.into(), || slow(Landed::No));
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

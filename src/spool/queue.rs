//! One queue at work: numbers, sends, writes and replays.
//!
//! [`Lane`] decides what may move; this file moves it. A turn is: start whatever may be started, see
//! what has happened, take note of it. [`Driver`] gives it its turns.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture, ready};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Sleep},
};
use tower::ServiceExt;

use super::{
    Batch, LaneId, Place, Receipt, Spoolable,
    batch::{Applied, Outcome},
    chunk::{Chunk, Parked, Writer},
    driver::Driver,
    error::StoreError,
    intake::{Intake, Waiter},
    lane::{Append, Lane, Send, Span},
    options::{Ack, Overflow},
    pace::Pace,
    replay::{Older, Replay, Sent},
    shared::Shared,
};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    metrics::QueueMetrics,
};

/// What others ask of a queue's task.
#[derive(Debug)]
pub(super) enum Control {
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
}

pub(super) struct Queue<T> {
    shared: Arc<Shared<T>>,
    name: Arc<str>,
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
    closing: Option<(Instant, oneshot::Sender<()>)>,
    /// The deadline of the shutdown has passed: nothing is sent any more.
    hard: bool,
    /// The task has let others go before it since the last batch.
    has_waited: bool,
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
    pub(super) fn new(shared: Arc<Shared<T>>, name: Arc<str>, older: VecDeque<Older>) -> Handle<T> {
        let options = &shared.options;
        let metrics = options.metrics.queue(&name);
        let intake = Arc::new(Intake::new());
        let (sender, control) = mpsc::channel(16);
        let id = LaneId::fresh();
        let queue = Self {
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
            replay: Replay::new(name.clone(), older),
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
            has_waited: false,
            name,
            shared,
        };
        Handle {
            intake,
            control: sender,
            metrics,
            driver: Driver::new(queue),
        }
    }

    /// Does whatever can be done now. Ready once the queue is over and only [`end`](Self::end) is left.
    ///
    /// `cx` wakes the queue's task, whoever calls this.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
            let event = ready!(self.poll_event(cx));
            self.handle(event, Instant::now());
        }
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
        if let Some((_, done)) = self.closing.take() {
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
        self.start_append(now);
        self.start_send(now, cx);
        if !self.unreadable || self.pace.wait_until(now).is_none() {
            self.replay.start_read(&self.shared, self.id, &self.lane);
        }
        self.arm(now);
    }

    fn start_append(&mut self, now: Instant) {
        // Each turn that writes nothing has refused something, so this ends.
        while self.appending.is_none() {
            let gathered = self.intake.gathered();
            let overdue = gathered.is_some_and(|(_, since)| self.overdue_at(since) <= now);
            let count = gathered.map_or(0, |(count, _)| count);
            let few = self.replay.is_last_in_flight(&self.lane);
            let append = match self.lane.may_append(count, overdue, few) {
                Append::Nothing if self.hard && count > 0 && self.appending.is_none() => {
                    Append::Gathered
                }
                append => append,
            };
            let outgoing = match append {
                Append::Nothing => return,
                Append::Returned => {
                    self.lane.take_returned();
                    self.returned.pop_front()
                }
                Append::Gathered => self.gather(),
            };
            let Some(outgoing) = outgoing else { return };
            if !self.write(outgoing, now) {
                return;
            }
        }
    }

    /// Takes and numbers what has gathered.
    fn gather(&mut self) -> Option<Outgoing<T>> {
        let options = &self.shared.options;
        let (records, waiters) = self
            .intake
            .take(options.max_batch_records, options.max_batch_bytes);
        if records.is_empty() {
            return None;
        }
        let span = self.lane.take(records.len());
        let batch = Batch::new(self.id, self.name.clone(), span.first, records)
            .with_lifetime(options.lane_lifetime);
        Some(Outgoing {
            batch,
            waiters: waiters.into(),
            failure: None,
        })
    }

    /// Starts writing as much of `outgoing` as there is room for, and settles what happens to the rest.
    /// Says whether anything else may be tried now.
    fn write(&mut self, outgoing: Outgoing<T>, now: Instant) -> bool {
        let Outgoing {
            batch,
            mut waiters,
            failure,
        } = outgoing;
        let (chunks, kept, bytes) = self.encode(&batch);
        let span = Span {
            first: batch.first(),
            last: batch.first() + kept as u64 - 1,
        };
        let rest = waiters.split_off(kept);
        if kept > 0 {
            let disk = self.shared.disk.clone();
            let answer = async move { disk.append(chunks).await }.boxed();
            let give_up = now + self.shared.options.disk_timeout;
            let failure = failure.as_ref().map(Error::again);
            self.lane.appending(span);
            self.appending = Some(Appending {
                span,
                waiters,
                failure,
                bytes,
                give_up,
                answer,
            });
        }
        let Some(batch) = (if kept > 0 {
            batch.rest(span.last)
        } else {
            Some(batch)
        }) else {
            return true;
        };
        let rest = Outgoing {
            batch,
            waiters: rest,
            failure,
        };
        match self.give_up_at(&rest) {
            Some(give_up) if give_up > now => {
                self.put_back(rest);
                // Nothing will change before something is freed, or time has passed.
                kept > 0
            }
            _ => {
                self.refuse_full(rest);
                true
            }
        }
    }

    /// The chunks of the first records for which there is room, how many those are, and their bytes.
    fn encode(&self, batch: &Batch<T>) -> (Vec<Chunk>, usize, u64) {
        let written = unix_ms(SystemTime::now());
        let acknowledged = self.lane.acknowledged();
        let mut writer = Writer::new(self.id, &self.name, batch.first(), acknowledged, written);
        let usage = &self.shared.usage;
        let (mut kept, mut bytes) = (0, 0);
        for record in batch.records() {
            let fits = writer.push_if(
                |bytes| record.encode(bytes),
                |more| {
                    let fits = usage.try_reserve(more);
                    bytes += if fits { more } else { 0 };
                    fits
                },
            );
            if !fits {
                break;
            }
            kept += 1;
        }
        usage.publish();
        (writer.finish(), kept, bytes)
    }

    /// Until when a record may wait for room on disk; `None` if it may not.
    fn give_up_at(&self, outgoing: &Outgoing<T>) -> Option<Instant> {
        let Overflow::Block { timeout } = self.shared.options.overflow else {
            return None;
        };
        if self.hard || self.shared.disk.is_poisoned() {
            return None;
        }
        outgoing
            .waiters
            .front()
            .map(|waiter| waiter.since + timeout)
    }

    /// Keeps `outgoing` in memory until it can be written.
    fn put_back(&mut self, outgoing: Outgoing<T>) {
        let span = Span {
            first: outgoing.batch.first(),
            last: outgoing.batch.last(),
        };
        let place = self.lane.returned(span);
        self.returned.insert(place, outgoing);
    }

    fn refuse_full(&self, outgoing: Outgoing<T>) {
        let full = || {
            let landed = outgoing
                .failure
                .as_ref()
                .map_or(Landed::No, |e| e.verdict().landed);
            let error = Error::new(ErrorKind::SpoolFull, Verdict::new(Class::Outage, landed));
            match &outgoing.failure {
                Some(failure) => error.with_source(failure.again()),
                None => error,
            }
        };
        self.refuse(outgoing.waiters, full);
    }

    fn start_send(&mut self, now: Instant, cx: &Context<'_>) {
        if self.sending.is_some() || self.hard {
            return;
        }
        let gathered = self.intake.gathered().map_or(0, |(count, _)| count);
        match self.lane.may_send(gathered) {
            Send::Nothing => {}
            Send::Gathered => {
                if self.expects_more(gathered) {
                    // Behind those who have just had their receipts: they are about to bring more.
                    self.has_waited = true;
                    cx.waker().wake_by_ref();
                    return;
                }
                self.renew_if_forgotten(now);
                let Some(Outgoing { batch, waiters, .. }) = self.gather() else {
                    return;
                };
                self.has_waited = false;
                self.intake.expect(batch.len());
                let batch = batch.with_after(self.lane.acknowledged());
                self.dispatch(batch, From::Memory(waiters), now);
            }
            Send::Older | Send::Replay => {
                if self.pace.wait_until(now).is_some() {
                    return;
                }
                let options = &self.shared.options;
                let most = self.pace.allowance(options.max_batch_records, now);
                let next = self
                    .replay
                    .next(self.id, &self.lane, most, options.max_batch_bytes);
                if let Some((batch, sent)) = next {
                    let batch = batch.with_lifetime(options.lane_lifetime);
                    self.dispatch(batch, From::Disk(sent), now);
                }
            }
        }
    }

    /// Whether the last batch brought so many callers back that it is worth letting them go first, once.
    fn expects_more(&self, gathered: usize) -> bool {
        !self.has_waited && gathered < self.intake.expected()
    }

    /// A lane that Redis may have forgotten for its age gets a new id before anything else is sent.
    fn renew_if_forgotten(&mut self, now: Instant) {
        if self.lane.is_idle() && now - self.last_applied > self.shared.options.lane_lifetime / 2 {
            self.id = LaneId::fresh();
            self.lane.renew();
            self.ambiguous = false;
            self.last_applied = now;
        }
    }

    fn dispatch(&mut self, batch: Batch<T>, from: From, now: Instant) {
        let time = SystemTime::now();
        let spent = batch.places(|record| record.expires_at().is_some_and(|at| at <= time));
        let batch = batch
            .with_spent(spent)
            .with_deadline(Some(now + self.shared.options.spool_after));
        self.metrics.batch_records.observe(batch.len() as f64);
        let answer = self.send(batch.clone());
        self.lane.sending();
        let options = &self.shared.options;
        self.sending = Some(Sending {
            batch,
            from,
            give_up: now + options.spool_after + options.disk_timeout,
            answer,
        });
    }

    fn send(&self, batch: Batch<T>) -> BoxFuture<'static, Result<Applied, Error>> {
        let way_out = self.shared.way_out();
        let call = async move { way_out.oneshot(batch).await };
        AssertUnwindSafe(call)
            .catch_unwind()
            .map(|answer| {
                answer.unwrap_or_else(|_| {
                    let verdict = Verdict::new(Class::Transient, Landed::Maybe);
                    Err(Error::new(ErrorKind::Foreign, verdict).with_cause("the service panicked"))
                })
            })
            .boxed()
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
        let moments = [
            gathered,
            self.pace.wait_until(now),
            self.sending.as_ref().map(|sending| sending.give_up),
            self.appending
                .as_ref()
                .filter(|a| !a.waiters.is_empty())
                .map(|a| a.give_up),
            self.returned
                .front()
                .and_then(|returned| self.give_up_at(returned)),
            self.closing
                .as_ref()
                .filter(|_| !self.hard)
                .map(|(deadline, _)| *deadline),
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
            Event::Control(Some(Control::Flush(done))) => self.flushes.push(done),
            Event::Control(Some(Control::Shutdown { deadline, done })) => {
                self.intake.close();
                self.closing = Some((deadline, done));
            }
            // Every handle is gone, and the task is about to be cancelled.
            Event::Control(None) => {
                let (done, _) = oneshot::channel();
                self.intake.close();
                self.closing = Some((now, done));
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

    /// Gives up the request that is on its way.
    fn recall(&mut self) {
        let Some(Sending { batch, from, .. }) = self.sending.take() else {
            return;
        };
        self.lane.sent();
        self.ambiguous = true;
        if let From::Memory(waiters) = from {
            let failure = Error::new(
                ErrorKind::Timeout,
                Verdict::new(Class::Transient, Landed::Maybe),
            );
            self.put_back(Outgoing {
                batch,
                waiters,
                failure: Some(failure),
            });
        }
    }

    fn on_sent(&mut self, answer: Result<Applied, Error>, now: Instant) {
        let Some(Sending {
            batch, mut from, ..
        }) = self.sending.take()
        else {
            return;
        };
        self.lane.sent();
        let first = batch.first();
        let (outcome, duplicates) = match answer {
            Ok(Applied {
                outcome,
                duplicates,
            }) => (outcome, duplicates),
            Err(error) => (
                Outcome::Stopped {
                    through: first - 1,
                    error,
                },
                0,
            ),
        };
        self.metrics.duplicates.inc_by(duplicates);
        match outcome {
            Outcome::All => {
                self.settle(&batch, batch.last(), &mut from, now);
            }
            Outcome::Stopped { through, error } => {
                self.settle(&batch, through, &mut from, now);
                if let Some(rest) = batch.rest(through) {
                    self.on_failed(rest, from, error, now);
                }
            }
            Outcome::Refused {
                through,
                count,
                error,
            } => {
                self.settle(&batch, through, &mut from, now);
                let until = (through + count).min(batch.last());
                match from {
                    From::Memory(mut waiters) => {
                        let later = waiters.split_off((until - through) as usize);
                        self.refuse(waiters, || error.again());
                        if let Some(rest) = batch.rest(until) {
                            self.dispatch(rest, From::Memory(later), now);
                        }
                    }
                    From::Disk(sent) => self.park(&batch, through + 1, until, &sent, &error),
                }
            }
            Outcome::Gap { last } => {
                let lost = match &from {
                    From::Memory(_) => self.lane.lost_after(last),
                    From::Disk(sent) if sent.is_older() => self.replay.older_lost_after(last),
                    From::Disk(_) => self.lane.lost_after(last),
                };
                self.metrics.lost_by_redis.inc_by(lost);
                tracing::error!(
                    queue = &*self.name, lane = %batch.lane(), last, lost,
                    "Redis has lost acknowledged records of this lane"
                );
                self.dispatch(batch.with_after(last), from, now);
            }
        }
    }

    /// The records up to `through` are in Redis.
    fn settle(&mut self, batch: &Batch<T>, through: u64, from: &mut From, now: Instant) {
        if through < batch.first() {
            return;
        }
        let count = (through - batch.first() + 1) as usize;
        self.last_applied = now;
        self.unblock();
        match from {
            From::Memory(waiters) => {
                self.lane.acknowledge(through);
                let later = waiters.split_off(count);
                let done = std::mem::replace(waiters, later);
                if batch.has_spent() {
                    self.answer_some_expired(batch, done, now);
                } else {
                    self.answer(done, batch.first(), Place::Delivered, now);
                }
            }
            From::Disk(sent) => {
                let expired = (batch.first()..=through)
                    .filter(|number| batch.is_spent(*number))
                    .count();
                self.metrics.expired.inc_by(expired as u64);
                self.metrics.replayed.inc_by((count - expired) as u64);
                self.pace.delivered(count, now);
                if sent.is_older() {
                    self.replay.older_acknowledged(through);
                } else {
                    self.lane.acknowledge(through);
                }
                self.replay
                    .remove(sent, through, &self.shared, &mut self.lane);
            }
        }
    }

    fn on_failed(&mut self, rest: Batch<T>, from: From, error: Error, now: Instant) {
        self.ambiguous |= error.may_have_landed();
        if error.is_permanent() {
            self.block(&error);
        }
        self.pace.failed(error.retry_after(), now, rand::random());
        match from {
            From::Memory(waiters) => {
                self.put_back(Outgoing {
                    batch: rest,
                    waiters,
                    failure: Some(error),
                });
            }
            From::Disk(_) => self.replay.rewind(),
        }
    }

    /// Keeps what Redis will never take, with its reason, out of the way of the others.
    fn park(&mut self, batch: &Batch<T>, first: u64, last: u64, sent: &Sent, error: &Error) {
        let reason = error.reason();
        tracing::error!(
            queue = &*self.name, lane = %batch.lane(), first, last, reason,
            "Redis refuses records for good; they are parked"
        );
        let parked_ms = unix_ms(SystemTime::now());
        let parked = batch
            .iter()
            .zip(batch.records())
            .filter(|((number, _), _)| (first..=last).contains(number))
            .map(|((number, _), record)| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                Parked {
                    lane: batch.lane(),
                    number,
                    queue: self.name.to_string(),
                    reason: reason.clone(),
                    parked_ms,
                    attempts: 1,
                    record: bytes.into(),
                }
            })
            .collect();
        self.replay.park(parked, last, sent, &self.shared);
    }

    fn on_replay(&mut self, now: Instant) {
        let settled = self.replay.settle(&self.shared, &mut self.lane);
        self.unreadable = settled.is_err();
        match settled {
            Ok(parked) => self.metrics.parked.inc_by(parked),
            Err(error) => {
                self.block(&error);
                self.pace.failed(None, now, rand::random());
            }
        }
    }

    fn on_appended(&mut self, answer: Result<(), StoreError>, now: Instant) {
        let Some(Appending {
            span,
            waiters,
            failure,
            bytes,
            ..
        }) = self.appending.take()
        else {
            return;
        };
        self.lane.appended(answer.is_ok());
        let count = span.last - span.first + 1;
        match answer {
            Ok(()) => {
                self.metrics.appended.inc_by(count);
                self.replay.appended(span.first);
                self.answer(waiters, span.first, Place::Spooled, now);
            }
            Err(error) => {
                self.shared.usage.free(count, bytes);
                let failed = || {
                    // What Redis may have, or the disk may have, may yet be delivered.
                    let landed = match &failure {
                        Some(failure) if failure.may_have_landed() => Landed::Maybe,
                        _ => error.landed(),
                    };
                    Error::new(ErrorKind::Spool, Verdict::new(Class::Outage, landed))
                        .with_cause(error.to_string())
                };
                self.refuse(waiters, failed);
            }
        }
    }

    // ===== answering =====

    fn answer(&self, waiters: VecDeque<Waiter>, first: u64, place: Place, now: Instant) {
        let (counter, seconds) = match place {
            Place::Delivered => (&self.metrics.delivered, &self.metrics.delivered_seconds),
            Place::Spooled => (&self.metrics.spooled, &self.metrics.spooled_seconds),
        };
        counter.inc_by(waiters.len() as u64);
        let seconds = seconds.local();
        let mut memory = 0;
        for (number, waiter) in (first..).zip(waiters) {
            seconds.observe((now - waiter.since).as_secs_f64());
            memory += waiter.memory as usize;
            let _ = waiter.receipt.send(Ok(Receipt {
                place,
                lane: self.id,
                number,
            }));
        }
        seconds.flush();
        self.shared.memory.add_permits(memory);
    }

    /// Answers each waiter by itself, for a batch in which some records have expired.
    fn answer_some_expired(&self, batch: &Batch<T>, done: VecDeque<Waiter>, now: Instant) {
        for (number, waiter) in (batch.first()..).zip(done) {
            let one = VecDeque::from([waiter]);
            if batch.is_spent(number) {
                self.metrics.expired.inc();
                self.refuse(one, || {
                    Error::new(ErrorKind::Expired, crate::error::NOT_DONE)
                });
            } else {
                self.answer(one, number, Place::Delivered, now);
            }
        }
    }

    fn refuse(&self, waiters: VecDeque<Waiter>, error: impl Fn() -> Error) {
        self.metrics.refused.inc_by(waiters.len() as u64);
        let mut memory = 0;
        for waiter in waiters {
            self.metrics
                .refused_seconds
                .observe(waiter.since.elapsed().as_secs_f64());
            memory += waiter.memory as usize;
            let _ = waiter.receipt.send(Err(error()));
        }
        self.shared.memory.add_permits(memory);
    }

    // ===== showing =====

    fn block(&mut self, error: &Error) {
        if !self.blocked {
            self.blocked = true;
            tracing::error!(
                queue = &*self.name,
                reason = error.reason(),
                "lane blocked: its records are kept, and sent once this is put right"
            );
        }
    }

    fn unblock(&mut self) {
        if self.blocked {
            self.blocked = false;
            tracing::info!(queue = &*self.name, "lane no longer blocked");
        }
    }

    fn show_state(&mut self) {
        let spooling = !self.lane.is_drained();
        let state = match (self.blocked, spooling) {
            (true, _) => "blocked",
            (false, true) => "spooling",
            (false, false) => "direct",
        };
        if self.state != Some(state) {
            match (self.state, state) {
                (Some(_), "spooling") => {
                    tracing::warn!(queue = &*self.name, "lane spooling: records go to disk");
                }
                (Some("spooling" | "blocked"), "direct") => {
                    tracing::info!(
                        queue = &*self.name,
                        "lane direct again: the disk is drained"
                    );
                }
                _ => {}
            }
            self.move_state(Some(state));
        }
        self.replay.show_oldest(&self.shared, &self.lane);
    }

    fn move_state(&mut self, state: Option<&'static str>) {
        let lanes = &self.shared.options.metrics.lanes;
        if let Some(old) = self.state {
            lanes.with_label_values(&[old]).dec();
        }
        if let Some(new) = state {
            lanes.with_label_values(&[new]).inc();
        }
        self.state = state;
    }
}

/// However the task ends, nobody waits for it any longer.
impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.intake.abandon();
    }
}

/// A watch that can be polled from a loop without missing a change between two polls.
struct Changed<V> {
    next: Option<BoxFuture<'static, Option<watch::Receiver<V>>>>,
}

impl<V: std::marker::Send + Sync + 'static> Changed<V> {
    fn new(receiver: watch::Receiver<V>) -> Self {
        Self {
            next: Some(next_change(receiver)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = &mut self.next else {
            return Poll::Pending;
        };
        match next.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(receiver)) => {
                self.next = Some(next_change(receiver));
                Poll::Ready(())
            }
            // The sender is gone, and nothing will change any more.
            Poll::Ready(None) => {
                self.next = None;
                Poll::Pending
            }
        }
    }
}

fn next_change<V: std::marker::Send + Sync + 'static>(
    mut receiver: watch::Receiver<V>,
) -> BoxFuture<'static, Option<watch::Receiver<V>>> {
    async move { receiver.changed().await.is_ok().then_some(receiver) }.boxed()
}

pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;

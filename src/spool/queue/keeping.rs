//! What Redis has acknowledged is kept until its replicas have it: see [`Tail`].
//!
//! Here is when something comes into the tail and when it leaves it. What is done once Redis has lost
//! something is in `repairing`, what goes to disk and comes back from there in `spilling`.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use prometheus::IntGauge;
use tokio::time::Instant;

use super::{
    Queue,
    changed::Changed,
    spilling::{Reading, Spilling},
};
use crate::{
    metrics::TailMetrics,
    replicas::{Replicas, View, Want},
    spool::{
        Batch, LaneId, Spoolable,
        commit::Done,
        options::Replay,
        pace::Pace,
        replay::Older,
        shared::Shared,
        tail::{Seen, Size, Tail, TailOptions},
    },
};

/// What was known of the servers when a request was sent. By the time of its answer it may be out of date, and
/// then it is on the safe side: its server is asked again.
#[derive(Clone, Debug, Default)]
pub(super) struct AsOf {
    pub(super) term: u64,
    pub(super) history: Option<Arc<str>>,
}

/// The tail of a queue, and what keeps it going.
pub(super) struct Keeping<T> {
    pub(super) tail: Tail<T>,
    pub(super) options: Option<TailOptions>,
    replicas: Option<Replicas>,
    changed: Option<Changed<View>>,
    /// As it is told now.
    pub(super) view: View,
    /// The term in which Redis was last asked how far it is; `None` if it has to be asked anew.
    pub(super) passed: Option<u64>,
    /// While there is something to wait for.
    want: Option<Want>,
    /// Replicas that must have something before it is safe.
    least: usize,
    /// Tails that an earlier run has left, and of which it is not known yet what they hold.
    pub(super) left: VecDeque<Older>,
    pub(super) spilling: Option<Spilling>,
    pub(super) reading: Option<Reading>,
    /// When a step that has failed is tried again. Steps are few and small, and hold up all that is behind
    /// them: there is no slow start.
    pub(super) pace: Pace,
    /// The lane on disk that is this run's, and the last number that it has.
    pub(super) own: Option<(LaneId, u64)>,
    /// The disk did not take it the last time, and is not tried again before this.
    pub(super) spill_failed: Option<Instant>,
    shown: Size,
    /// Bytes in memory, of all queues.
    all: Arc<AtomicUsize>,
    metrics: TailMetrics,
}

impl<T: Spoolable> Keeping<T> {
    pub(super) fn new(shared: &Shared<T>, left: VecDeque<Older>) -> Self {
        let options = &shared.options;
        let replicas = options.replicas.clone().filter(|_| options.tail.is_some());
        let confirmation = options.ack.confirmation();
        // What is not confirmed in time has to be kept.
        let wanted = options.tail.filter(|_| replicas.is_some());
        let needed = confirmation.map(|_| options.tail.unwrap_or_default());
        Self {
            tail: Tail::new(),
            options: wanted.or(needed),
            changed: replicas
                .as_ref()
                .map(|replicas| Changed::new(replicas.watch())),
            // What has been told before is no change, and nobody may tell more for a long time.
            view: replicas.as_ref().map_or_else(View::default, Replicas::view),
            passed: Some(0),
            want: None,
            least: confirmation.map_or(0, |confirmation| confirmation.replicas as usize),
            left,
            spilling: None,
            reading: None,
            pace: Pace::new(Replay {
                rate: None,
                min_delay: options.replay.min_delay,
                max_delay: options.replay.max_delay,
                ..Replay::unpaced()
            }),
            own: None,
            spill_failed: None,
            shown: Size::default(),
            all: shared.tail_bytes.clone(),
            metrics: options.metrics.tail.clone(),
            replicas,
        }
    }

    /// Whether nothing else may be sent: it would go in front of what is missing.
    pub(super) fn is_in_pass(&self) -> bool {
        !self.left.is_empty() || self.tail.is_in_pass()
    }

    /// Whether no pass is under way or due: Redis has all that it has ever acknowledged.
    pub(super) fn is_through(&self) -> bool {
        !self.is_in_pass() && self.passed.is_some()
    }

    /// The only connection over which a batch of `lane` may go. One that follows another lane's must not
    /// reach a server that may have lost that one's.
    pub(super) fn only_over(&self, lane: LaneId) -> Option<u64> {
        let pinned = self.replicas.is_some() && self.tail.has_other_than(lane);
        pinned.then_some(self.view.generation)
    }

    /// The only connection over which the steps of a pass may go: what they learn is of one server.
    pub(super) fn generation(&self) -> Option<u64> {
        self.replicas.is_some().then_some(self.view.generation)
    }

    pub(super) fn as_of(&self) -> AsOf {
        AsOf {
            term: self.view.term,
            history: self.view.history.clone(),
        }
    }

    /// What still holds of `sent` at the answer. A request may have been tried again over a later connection,
    /// and then it is not known which server has answered.
    pub(super) fn at_answer(&self, sent: &AsOf) -> AsOf {
        let replicas = self.replicas.as_ref();
        let same_term = replicas.is_none_or(|replicas| replicas.term() == sent.term);
        AsOf {
            term: sent.term,
            history: sent.history.clone().filter(|_| same_term),
        }
    }

    pub(super) fn watch(&self) -> Option<tokio::sync::watch::Receiver<View>> {
        self.replicas.as_ref().map(Replicas::watch)
    }

    /// Whether what Redis has acknowledged is kept, and can be given back.
    pub(super) fn keeps(&self) -> bool {
        self.options.is_some()
    }

    /// Whether somebody tells what replicas have.
    pub(super) fn hears(&self) -> bool {
        self.replicas.is_some()
    }

    pub(super) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.changed {
            Some(changed) => changed.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Readings are only taken while something waits for them.
    fn show_want(&mut self) {
        match &self.replicas {
            Some(replicas) if !self.tail.is_empty() => {
                self.want.get_or_insert_with(|| replicas.want());
            }
            _ => self.want = None,
        }
    }

    /// Redis is back. Where nobody tells of terms, this is when it has to be asked again.
    pub(super) fn recovered(&mut self) {
        if self.replicas.is_none() && !self.tail.is_empty() {
            self.passed = None;
        }
    }

    /// Whether the disk takes nothing now: it has just refused, or does not answer.
    pub(super) fn is_disk_out(&self, now: Instant) -> bool {
        let refused = self.spill_failed.is_some_and(|until| until > now);
        let hangs = self.spilling.as_ref();
        refused || hangs.is_some_and(|spilling| spilling.give_up <= now)
    }

    pub(super) fn hurry(&self) {
        if let Some(replicas) = &self.replicas {
            replicas.hurry();
        }
    }

    /// What a server that is asked now, or answers now, was known to have.
    pub(super) fn seen(&self, term: u64) -> Seen {
        let stamp = self.replicas.as_ref().map_or(0, Replicas::stamp);
        Seen { term, stamp }
    }

    fn max_age(&self) -> Duration {
        // Without anybody who tells of replicas nothing more is to be waited for.
        self.options
            .map_or(Duration::ZERO, |options| options.max_age)
    }

    /// When time alone lets something go.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let old_at = self.tail.old_at(self.max_age()).filter(|_| !self.expects());
        let step = self.pace.wait_until(now).filter(|_| self.is_in_pass());
        let hangs = self.spilling.as_ref().map(|spilling| spilling.give_up);
        [old_at, self.spill_failed, step, hangs]
            .into_iter()
            .flatten()
            .min()
    }
}

impl<T: Spoolable> Queue<T> {
    /// Looks at what the replicas have, and lets go of that.
    pub(super) fn keep(&mut self, now: Instant) {
        let keeping = &mut self.keeping;
        let is_idle = keeping.tail.is_empty() && keeping.is_through();
        if keeping.replicas.is_none() && is_idle {
            return self.lane.hold_up(false);
        }
        let passed = keeping.passed == Some(keeping.view.term);
        if !passed && self.sending.is_none() && keeping.left.is_empty() {
            keeping.passed = Some(keeping.view.term);
            let own = (self.id, self.lane.acknowledged());
            keeping.tail.begin_pass(Some(own));
        }
        self.index_left(now);
        self.trim(now);
        self.start_spill(now);
        self.keeping.show_want();
        self.show_tail();
        let detoured = self.shared.detour().is_some();
        self.lane.hold_up(self.keeping.is_in_pass() && !detoured);
    }

    pub(super) fn trim(&mut self, now: Instant) {
        let keeping = &mut self.keeping;
        let (least, max_age) = (keeping.least, keeping.max_age());
        let gone = keeping.tail.trim(&keeping.view, least, max_age, now);
        self.off_the_disk(&gone);
    }

    /// What the far end has been given from disk, up to number `last` of `lane`, is done with: now, or once
    /// replicas have it. Until then the next run finds it there, should this process die together with the
    /// primary.
    pub(super) fn done_with(&mut self, lane: LaneId, last: u64, done: Done) {
        let expects = self.keeping.view.expects_replicas || self.confirming.is_wanted();
        let at_once = if self.keeping.keeps() && expects {
            self.keeping.tail.keep_on_disk(lane, last, done)
        } else {
            Some(done)
        };
        if let Some(done) = at_once {
            self.shared.disk.done(done);
        }
    }

    /// Takes note of what the replicas are said to have.
    pub(super) fn on_replicas(&mut self) {
        if let Some(replicas) = &self.keeping.replicas {
            self.keeping.view = replicas.view();
        }
    }

    /// Redis has acknowledged the records of `batch`, which was sent as of `sent`.
    pub(super) fn keep_acknowledged(
        &mut self,
        batch: Batch<T>,
        sent: &AsOf,
        held: bool,
        now: Instant,
    ) {
        let keeping = &mut self.keeping;
        let Some(options) = keeping.options else {
            return;
        };
        let records: usize = batch.records().iter().map(Spoolable::size).sum();
        let bytes = records + batch.len() * RECORD_OVERHEAD + BATCH_OVERHEAD;
        // Of the term in which it was sent: if another has begun since, who has it must be asked anyway.
        let seen = keeping.seen(sent.term);
        keeping
            .tail
            .acknowledged(batch, bytes, seen, sent.history.as_ref(), held, now);
        self.show_tail();
        let total = self.shared.tail_bytes.load(Relaxed);
        if total > options.max_memory / 2 && self.keeping.expects() {
            self.keeping.hurry();
        }
        if total > options.max_memory {
            self.shed(options, now);
        }
    }

    /// There is more in memory than there may be.
    fn shed(&mut self, options: TailOptions, now: Instant) {
        self.trim(now);
        self.start_spill(now);
        let keeping = &self.keeping;
        // What goes to disk may be late. Without replicas none of it does, and the oldest is let go.
        let most = if keeping.spills() {
            options.max_memory.saturating_mul(2)
        } else {
            options.max_memory
        };
        let mut given_up = 0;
        while self.shared.tail_bytes.load(Relaxed) > most
            && let Some(((_, first, last), gone)) = self.keeping.tail.shed()
        {
            given_up += last - first + 1;
            self.off_the_disk(&[gone]);
            self.show_tail();
        }
        if self.keeping.spills() {
            self.note_given_up(given_up);
        }
    }

    /// So many records are not kept any longer although no replica may have them.
    pub(super) fn note_given_up(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.metrics.tail_given_up.inc_by(records);
        self.losses.note_given_up(records);
    }

    pub(super) fn show_tail(&mut self) {
        let now = self.keeping.tail.size();
        self.keeping.show(now);
    }
}

impl<T> Keeping<T> {
    /// Whether there is any point in writing it down: a restart of Redis alone is covered by memory.
    pub(super) fn spills(&self) -> bool {
        let on_disk = self.options.is_some_and(|options| options.max_disk > 0);
        on_disk && self.expects()
    }

    /// Whether Redis lacks some of it, as far as is known.
    pub(super) fn loses(&self) -> bool {
        let on_disk = self.options.is_some_and(|options| options.max_disk > 0);
        on_disk && self.tail.is_in_pass()
    }

    /// Whether replicas are to have it.
    fn expects(&self) -> bool {
        self.view.expects_replicas || self.least > 0
    }

    /// Brings the gauges, and the sum over all queues, up to date.
    fn show(&mut self, now: Size) {
        let was = std::mem::replace(&mut self.shown, now);
        if was == now {
            return;
        }
        let moved = |gauge: &IntGauge, was: u64, now: u64| gauge.add(now as i64 - was as i64);
        let metrics = &self.metrics;
        moved(
            &metrics.memory_records,
            was.memory_records,
            now.memory_records,
        );
        moved(
            &metrics.memory_bytes,
            was.memory_bytes as u64,
            now.memory_bytes as u64,
        );
        moved(&metrics.disk_records, was.disk_records, now.disk_records);
        moved(&metrics.disk_bytes, was.disk_bytes, now.disk_bytes);
        self.all.fetch_add(now.memory_bytes, Relaxed);
        self.all.fetch_sub(was.memory_bytes, Relaxed);
    }
}

/// Nothing is shown of it any more.
impl<T> Drop for Keeping<T> {
    fn drop(&mut self) {
        self.show(Size::default());
    }
}

/// What an entry costs beside its records' own bytes: measured roughly, for the bound on memory.
const RECORD_OVERHEAD: usize = 96;
const BATCH_OVERHEAD: usize = 256;

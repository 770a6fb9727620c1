//! The search for the master, and the watch for a better one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{FuturesOrdered, FuturesUnordered},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Candidate, Sentinels};
use crate::connect::{
    deployment::Endpoint,
    generation::Generation,
    meters::Outcome,
    pace::{Pace, spread},
    shared::Shared,
    status::Trouble,
    supervisor::open_at,
};

/// Finds the master of a group, and remembers where it was.
pub(in crate::connect) struct Search<'a> {
    shared: &'a Shared,
    sentinels: &'a Sentinels,
    /// The one in use, or that was last.
    current: Option<Candidate>,
    /// Those before it, the latest first.
    past: VecDeque<Endpoint>,
    /// What the last search has tried in vain.
    tried: Vec<Candidate>,
    round: u64,
    /// The last one that was named and was no master, so that it is told once.
    mismatch: Option<Candidate>,
    /// The names that are known instead of ours, so that they are told once.
    other_names: Vec<Arc<str>>,
}

/// A server that was tried.
type Attempt = (Candidate, Result<Arc<Generation>, Trouble>);

impl<'a> Search<'a> {
    pub(in crate::connect) fn new(shared: &'a Shared, sentinels: &'a Sentinels) -> Self {
        Self {
            shared,
            sentinels,
            current: None,
            past: VecDeque::new(),
            tried: Vec::new(),
            round: 0,
            mismatch: None,
            other_names: Vec::new(),
        }
    }

    /// Asks all sentinels, and connects to the first one named that is a master.
    pub(in crate::connect) async fn find(&mut self) -> Result<Arc<Generation>, Trouble> {
        let started = Instant::now();
        let found = self.ask().await;
        let (outcome, found) = match found {
            Ok((candidate, generation)) => {
                self.accept(candidate);
                (Outcome::Found, Ok(generation))
            }
            Err(trouble) if trouble.is_silence() => match self.remembered().await {
                Some(generation) => (Outcome::Remembered, Ok(generation)),
                None => (Outcome::Failed, Err(trouble)),
            },
            Err(trouble) => (Outcome::Failed, Err(trouble)),
        };
        self.shared.meters.searched(outcome, started.elapsed());
        found
    }

    async fn ask(&mut self) -> Result<(Candidate, Arc<Generation>), Trouble> {
        let mut news = self.sentinels.beliefs.subscribe();
        self.round = self.sentinels.ask_all();
        self.tried.clear();
        let deadline = Instant::now() + self.shared.options.connect_timeout;
        let mut is_late = false;
        let mut attempts: FuturesUnordered<BoxFuture<'_, Attempt>> = FuturesUnordered::new();
        let mut pending: Vec<Candidate> = Vec::new();
        let mut spare: Option<(Candidate, Arc<Generation>)> = None;
        let mut worst: Option<(u64, Trouble)> = None;
        loop {
            let (candidates, is_complete) = {
                let beliefs = news.borrow_and_update();
                (
                    beliefs.candidates(self.round),
                    beliefs.is_complete(self.round),
                )
            };
            for candidate in candidates {
                if self.tried.contains(&candidate) {
                    continue;
                }
                // It was not there when the search began.
                let is_news = !self.tried.is_empty();
                self.tried.push(candidate.clone());
                pending.push(candidate.clone());
                let (shared, sentinels) = (self.shared, self.sentinels);
                attempts.push(Box::pin(async move {
                    if is_news {
                        sleep(a_moment(shared)).await;
                    }
                    attempt(shared, sentinels, candidate).await
                }));
            }
            let is_over = attempts.is_empty() && (is_complete || is_late);
            spare = match spare {
                Some((candidate, generation))
                    if is_over || self.is_settled(&candidate, &pending) =>
                {
                    return Ok((candidate, generation));
                }
                spare => spare,
            };
            if is_over {
                break;
            }
            tokio::select! {
                biased;
                Some((candidate, result)) = attempts.next() => {
                    pending.retain(|other| *other != candidate);
                    match result {
                        Ok(generation) => {
                            if spare.as_ref().is_none_or(|(other, _)| other.epoch < candidate.epoch) {
                                spare = Some((candidate, generation));
                            }
                        }
                        Err(trouble) => {
                            if worst.is_none_or(|(epoch, _)| epoch <= candidate.epoch) {
                                worst = Some((candidate.epoch, trouble));
                            }
                            self.note_mismatch(candidate, trouble);
                        }
                    }
                }
                _ = news.changed() => {}
                () = sleep_until(deadline), if !is_late => is_late = true,
            }
        }
        let trouble = match worst {
            Some((_, trouble)) => trouble,
            None => {
                let (silence, names) = {
                    let beliefs = news.borrow();
                    (beliefs.silence(self.round), beliefs.other_names())
                };
                self.note_other_names(names);
                silence.unwrap_or(Trouble::SentinelsUnreachable)
            }
        };
        Err(trouble)
    }

    /// Whether a master that was found need not wait for what the others say.
    ///
    /// One of a later epoch may still turn out to be the master. And a sentinel that speaks of an
    /// earlier epoch than we have seen has missed something, and is believed only when there is
    /// nobody else.
    fn is_settled(&self, found: &Candidate, pending: &[Candidate]) -> bool {
        let seen = self.current.as_ref().map_or(0, |current| current.epoch);
        found.epoch >= seen && pending.iter().all(|other| other.epoch <= found.epoch)
    }

    /// With no sentinel to ask: the masters there were, the latest first.
    async fn remembered(&mut self) -> Option<Arc<Generation>> {
        let current = self.current.iter().map(|current| &current.at);
        let mut attempts: FuturesOrdered<_> = current
            .chain(&self.past)
            .map(|at| {
                let candidate = Candidate {
                    at: at.clone(),
                    epoch: 0,
                };
                attempt(self.shared, self.sentinels, candidate)
            })
            .collect();
        let found = loop {
            match attempts.next().await? {
                (candidate, Ok(generation)) => break (candidate, generation),
                (_, Err(_)) => {}
            }
        };
        drop(attempts);
        let (mut candidate, generation) = found;
        tracing::warn!(
            address = %candidate.at,
            "no sentinel answers: going on with a master of before, which says that it is one"
        );
        if let Some(current) = &self.current
            && current.at == candidate.at
        {
            candidate.epoch = current.epoch;
        }
        self.accept(candidate);
        Some(generation)
    }

    fn accept(&mut self, candidate: Candidate) {
        let before = self.current.replace(candidate);
        let (Some(before), Some(now)) = (before, &self.current) else {
            return;
        };
        if before.at == now.at {
            return;
        }
        self.shared.meters.failovers.inc();
        tracing::info!(from = %before.at, to = %now.at, epoch = now.epoch, "the master has moved");
        self.past
            .retain(|past| *past != before.at && *past != now.at);
        self.past.push_front(before.at);
        self.past.truncate(MOST_PAST);
    }

    fn note_other_names(&mut self, names: Vec<Arc<str>>) {
        if !names.is_empty() && names != self.other_names {
            let known = names.join(", ");
            tracing::warn!(
                master = &**self.sentinels.master(),
                known,
                "the sentinels do not know the master's name"
            );
        }
        self.other_names = names;
    }

    fn note_mismatch(&mut self, candidate: Candidate, trouble: Trouble) {
        if trouble != Trouble::Replica {
            return;
        }
        self.shared.meters.role_mismatches.inc();
        if self.mismatch.as_ref() != Some(&candidate) {
            tracing::warn!(
                address = %candidate.at,
                "a sentinel names a master that says it is none"
            );
            self.mismatch = Some(candidate);
        }
    }

    /// Waits until the sentinels have a better master than the one in use, and it says so itself.
    ///
    /// The one in use is not disturbed. Cancel safe.
    pub(in crate::connect) async fn better(&mut self) -> Arc<Generation> {
        let options = &self.shared.options;
        let mut pace = Pace::new(options.reconnect_first, options.reconnect_longest);
        let mut news = self.sentinels.beliefs.subscribe();
        let mut held: Option<(Candidate, Instant)> = None;
        loop {
            let better = {
                let beliefs = news.borrow_and_update();
                self.current.as_mut().and_then(|current| {
                    let epoch = beliefs.epoch_of(&current.at);
                    current.epoch = current.epoch.max(epoch.unwrap_or(0));
                    beliefs.better_than(current)
                })
            };
            let wait = match (better, &held) {
                (None, _) => None,
                (Some(better), Some((last, until)))
                    if better == *last && Instant::now() < *until =>
                {
                    Some(*until)
                }
                (Some(better), held_before) => {
                    if held_before.is_none() {
                        sleep(a_moment(self.shared)).await;
                    }
                    match attempt(self.shared, self.sentinels, better).await {
                        (better, Ok(generation)) => {
                            self.accept(better);
                            return generation;
                        }
                        (better, Err(trouble)) => {
                            self.note_mismatch(better.clone(), trouble);
                            let until = Instant::now() + pace.after_failure(rand::random());
                            held = Some((better, until));
                            Some(until)
                        }
                    }
                }
            };
            tokio::select! {
                _ = news.changed() => {}
                () = async {
                    match wait {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// The connection in use was given up: it is not worth trying again before its time.
    pub(in crate::connect) fn lost(&mut self) {
        self.round = *self.sentinels.round.borrow();
        self.tried = self.current.iter().cloned().collect();
    }

    /// Waits until a sentinel names a master that has not been tried: no delay holds it back.
    ///
    /// Cancel safe.
    pub(in crate::connect) async fn news(&self) {
        let is_new = |beliefs: &super::Beliefs| {
            let candidates = beliefs.candidates(self.round);
            candidates.iter().any(|named| !self.tried.contains(named))
        };
        let mut news = self.sentinels.beliefs.subscribe();
        // The sender is in `self`.
        let _ = news.wait_for(is_new).await;
        sleep(a_moment(self.shared)).await;
    }
}

/// All clients hear of a new master at once.
fn a_moment(shared: &Shared) -> Duration {
    spread(shared.options.reconnect_first, rand::random())
}

/// A group has few servers, and fewer that were the master lately.
const MOST_PAST: usize = 4;

async fn attempt(shared: &Shared, sentinels: &Sentinels, candidate: Candidate) -> Attempt {
    let address = candidate.at.clone().address(sentinels.tls);
    let result = open_at(shared, &address).await;
    (candidate, result)
}

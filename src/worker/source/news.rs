//! What has come for a [`Source`], and what that means.

use std::time::Duration;

use rand::Rng;
use redis::Value;
use tokio::time::Instant;

use super::{Arrival, Flying, News, Purpose, Source};
use crate::{
    call::Reply,
    connect::Status,
    error::Error,
    job::{JobId, task::Execution},
    worker::{
        WorkerId,
        turn::{Answer, CLEAN, Round, Taken},
        wait,
    },
};

impl Source {
    /// Acts on what has come, with so many slots free; what is left for others to act on.
    pub(in crate::worker) fn take_news(&mut self, now: Instant, free: usize) -> Arrival {
        let News {
            answer,
            woken,
            status,
        } = std::mem::take(&mut self.news);
        if status {
            let Status { up, generation, .. } = self.status;
            if self.lease.observe(up, generation, now) {
                // A failover may have lost what Redis knew.
                self.out_of_step |= self.number > 0;
                self.fresh = Some(now + FRESH);
            }
            if up {
                self.not_before = None;
            }
        }
        if let Some(woken) = woken {
            self.woken(woken, now, free);
        }
        match answer {
            Some((turn, answer)) => match answer.and_then(Answer::read) {
                // The process may have stood still: what was handed out then may be others' by now.
                Ok(Answer::Round(_)) if now - turn.sent >= self.lease.length() => {
                    self.doubt(&turn);
                    Arrival::default()
                }
                Ok(Answer::Round(round)) => self.round(&turn, round, now),
                Ok(Answer::Gone) => self.gone(),
                Ok(Answer::Late) => {
                    self.doubt(&turn);
                    Arrival::default()
                }
                Err(error) => {
                    self.failed(&turn, &error, now);
                    Arrival::default()
                }
            },
            None => Arrival::default(),
        }
    }

    fn woken(&mut self, woken: Result<Reply, Error>, now: Instant, free: usize) {
        match woken {
            Ok(reply) => {
                // Not woken: it looks all the same, since a token may have been lost.
                let token = !matches!(reply.into_value(), Value::Nil);
                self.hungry = true;
                self.passes_on = token && free == 0;
            }
            Err(_) => {
                // No connection was free for this, or it broke.
                self.look = Some(now + wait::between_looks(self.looks, rand::rng().random()));
                self.looks = self.looks.saturating_add(1);
            }
        }
    }

    fn round(&mut self, turn: &Flying, round: Round, now: Instant) -> Arrival {
        if turn.purpose == Purpose::Take {
            // Others may be let through where this is refused.
            self.failures = 0;
        }
        self.lease.renewed(turn.sent, turn.tells);
        self.metrics.renewals.inc();
        self.clock = Some((now, round.now_ms));
        let until = |due: u64| now + Duration::from_millis(due.saturating_sub(round.now_ms));
        self.due = round.next_due_ms.map(until);
        self.alone = round.depths.alone;
        self.show(&round);
        let mut arrival = Arrival::default();
        match turn.purpose {
            Purpose::Take => {
                // After some there are often more, which nobody was woken for.
                self.hungry = round.depths.ready > 0 || !round.jobs.is_empty();
                if !round.jobs.is_empty() {
                    self.looks = 0;
                }
                arrival.jobs = match self.fresh {
                    Some(until) if now < until => self.not_known(round.jobs),
                    _ => round.jobs,
                };
            }
            Purpose::Claim if round.cursor == CLEAN => self.lease.looked(now, false),
            Purpose::Claim => {
                let more = round.cursor != "0" || !round.claimed.is_empty();
                self.lease.looked(now, more);
                arrival.strays = self.strays(round.own);
                if round.cursor == "0" {
                    self.strays.looked();
                }
                self.cursor = round.cursor;
                arrival.abandoned = round.claimed;
            }
            Purpose::Resync => {
                // What has been said on another connection may be forgotten.
                self.out_of_step = turn.generation != self.status.generation;
                self.lease.compared(now);
                self.hungry = true;
                let unknown = self.not_known(round.jobs);
                match self.in_doubt.take() {
                    Some(Purpose::Claim) => arrival.abandoned = unknown,
                    _ => arrival.jobs = unknown,
                }
                let lost = round.lost.iter();
                arrival.lost = lost.filter_map(|id| self.running.remove(id)).collect();
            }
        }
        arrival
    }

    /// Those that are to be given back. What has been decided about others is handed in again.
    fn strays(&mut self, mut own: Vec<(JobId, u32)>) -> Vec<Execution> {
        own.retain(|(id, _)| !self.running.contains_key(id));
        let strays = self.strays.found(own);
        let decided = self.settling.decided_by_attempt(&strays, self.id.token());
        let mut unknown = Vec::new();
        for ((id, attempt), decided) in strays.into_iter().zip(decided) {
            match decided {
                Some(operation) => self.settling.hand_in_again(operation),
                None => unknown.push(Execution {
                    id,
                    attempt,
                    token: self.id.token().clone(),
                    // It is this worker's, whichever job of this id it is.
                    enqueued_ms: 0,
                }),
            }
        }
        unknown
    }

    /// Those of which nothing is known here. What has been decided about the others is handed in again, if Redis
    /// does not have it.
    fn not_known(&mut self, mut jobs: Vec<Taken>) -> Vec<Taken> {
        jobs.retain(|job| {
            let running = self.running.get(&job.id);
            running.is_none_or(|running| running.key() != job.key())
        });
        let executions: Vec<_> = jobs.iter().map(Taken::key).collect();
        let decided = self.settling.decided(&executions, self.id.token());
        let mut unknown = Vec::new();
        for (job, decided) in jobs.into_iter().zip(decided) {
            match decided {
                Some(operation) => self.settling.hand_in_again(operation),
                None => unknown.push(job),
            }
        }
        unknown
    }

    fn show(&self, round: &Round) {
        let gauges = [
            (&self.metrics.jobs_queued, round.depths.ready),
            (&self.metrics.jobs_scheduled, round.depths.later),
            (&self.metrics.jobs_running, round.depths.running),
            (&self.metrics.jobs_dead, round.depths.dead),
        ];
        for (gauge, depth) in gauges {
            gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
    }

    /// Others have taken this worker for dead, and what it executes is theirs.
    fn gone(&mut self) -> Arrival {
        let lost: Vec<_> = self.running.drain().map(|(_, running)| running).collect();
        tracing::warn!(
            queue = &*self.queue,
            worker = self.id.as_str(),
            lost = lost.len(),
            "taken for dead: what was executed is cancelled"
        );
        self.id = WorkerId::fresh();
        self.number = 0;
        self.lease.begin_anew();
        self.out_of_step = false;
        self.in_doubt = None;
        self.strays.begin_anew();
        self.hungry = true;
        Arrival {
            lost,
            ..Arrival::default()
        }
    }

    /// Redis may have handed out something that has not arrived.
    fn doubt(&mut self, turn: &Flying) {
        self.out_of_step = true;
        if turn.purpose != Purpose::Resync {
            self.in_doubt = Some(turn.purpose);
        }
    }

    fn failed(&mut self, turn: &Flying, error: &Error, now: Instant) {
        if error.may_have_landed() {
            self.doubt(turn);
        }
        if turn.purpose == Purpose::Claim {
            // What it may not look for must not keep it from its own work.
            self.lease.looked(now, false);
        }
        if error.is_permanent() && self.failures == 0 {
            tracing::error!(
                queue = &*self.queue,
                reason = error.reason(),
                "the queue can't be worked: it is tried again"
            );
        }
        self.failures = self.failures.saturating_add(1);
        let sample = rand::rng().random();
        self.not_before =
            Some(now + wait::after_failures(self.failures, error.retry_after(), sample));
    }
}

/// For so long on a new connection it is looked at whether a job has been executed before that is handed out: a
/// failover may have lost that it was, and what is resent may be on its way.
const FRESH: Duration = Duration::from_secs(5);

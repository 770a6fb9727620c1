//! What time alone brings about, and when it does.

use std::time::Duration;

use tokio::time::Instant;

use super::{Outgoing, Queue};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
    spool::Spoolable,
};

impl<T: Spoolable> Queue<T> {
    /// Sets the timer to the next moment at which time alone changes something.
    pub(super) fn arm(&mut self, now: Instant) {
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
            self.keeping.due(now),
            self.confirming.due(),
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

    pub(super) fn overdue_at(&self, since: Instant) -> Instant {
        since + self.shared.options.spool_after
    }

    pub(super) fn on_time(&mut self, now: Instant) {
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
            self.pace.failed(None, now, rand::random());
            self.keeping.pace.failed(None, now, rand::random());
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
}

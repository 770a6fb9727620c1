//! What Redis has of one job, and what follows from it: [`Facts`]. No I/O, no clock.

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value, from_redis_value};

use super::JobState;
use crate::job::task::Outcome;

/// All that Redis has of one job, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// In `jobs`, or the beginning of it.
    pub(super) record: Option<Bytes>,
    /// How long all of it is.
    pub(super) record_len: usize,
    /// In `running`: the attempt, and the worker's token.
    pub(super) running: Option<Bytes>,
    pub(super) failures: Option<Bytes>,
    /// Its scores, in milliseconds.
    pub(super) dead: Option<u64>,
    pub(super) later: Option<u64>,
    pub(super) done: Option<u64>,
    /// In `results`, or the first letter of it.
    pub(super) result: Option<Bytes>,
    pub(super) result_len: usize,
}

impl Facts {
    /// Where the job is; `None` if there is none, or none any more.
    pub(super) fn state(&self, now_ms: u64) -> Option<JobState> {
        let there = self.record.is_some();
        if there && self.running.is_some() {
            return Some(JobState::Running);
        }
        if there && self.dead.is_some() {
            return Some(JobState::Dead);
        }
        if there && self.later.is_some() {
            return Some(if self.failures.is_some() {
                JobState::Failed
            } else {
                JobState::Scheduled
            });
        }
        if let Some(outcome) = self.outcome(now_ms) {
            return Some(match outcome {
                Outcome::Succeeded => JobState::Succeeded,
                Outcome::Expired => JobState::Expired,
                Outcome::Discarded => JobState::Discarded,
            });
        }
        there.then_some(JobState::Queued)
    }

    /// How it ended. An outcome is not removed at the very moment that it was kept until.
    fn outcome(&self, now_ms: u64) -> Option<Outcome> {
        self.done.filter(|until| *until > now_ms)?;
        Outcome::of_letter(*self.result.as_ref()?.first()?)
    }

    /// The attempt that runs, and the token of the worker that has it.
    pub(super) fn execution(&self) -> Option<(u32, &str)> {
        let running = std::str::from_utf8(self.running.as_ref()?).ok()?;
        let (attempt, token) = running.split_once(' ')?;
        Some((attempt.parse().ok()?, token))
    }
}

/// As `facts.lua` has them.
impl FromRedisValue for Facts {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        type Row = (
            Option<Vec<u8>>,
            usize,
            Option<Vec<u8>>,
            Option<Vec<u8>>,
            Option<f64>,
            Option<f64>,
            Option<f64>,
            Option<Vec<u8>>,
            usize,
        );
        let row: Row = from_redis_value(value)?;
        let (record, record_len, running, failures, dead, later, done, result, result_len) = row;
        let bytes = |part: Option<Vec<u8>>| part.map(Bytes::from);
        // `as` saturates: a score that is no time is the nearest one.
        let score = |part: Option<f64>| part.map(|score| score as u64);
        Ok(Self {
            record: bytes(record),
            record_len,
            running: bytes(running),
            failures: bytes(failures),
            dead: score(dead),
            later: score(later),
            done: score(done),
            result: bytes(result),
            result_len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    #[test]
    fn the_states_have_an_order() {
        let some = || Some(Bytes::from_static(b"1 token"));
        let succeeded = || Some(Bytes::from_static(b"s"));
        let mut facts = Facts {
            record: some(),
            running: some(),
            failures: some(),
            dead: Some(5),
            later: Some(5),
            done: Some(NOW + 1),
            result: succeeded(),
            ..Facts::default()
        };
        let mut seen = Vec::new();
        seen.push(facts.state(NOW));
        facts.running = None;
        seen.push(facts.state(NOW));
        facts.dead = None;
        seen.push(facts.state(NOW));
        facts.failures = None;
        seen.push(facts.state(NOW));
        facts.later = None;
        seen.push(facts.state(NOW));
        facts.done = None;
        seen.push(facts.state(NOW));
        facts.record = None;
        seen.push(facts.state(NOW));
        assert_eq!(
            seen,
            [
                Some(JobState::Running),
                Some(JobState::Dead),
                Some(JobState::Failed),
                Some(JobState::Scheduled),
                Some(JobState::Succeeded),
                Some(JobState::Queued),
                None
            ]
        );
    }

    #[test]
    fn nothing_but_an_outcome_is_left_without_a_record() {
        let some = || Some(Bytes::from_static(b"1 token"));
        let mut facts = Facts {
            running: some(),
            failures: some(),
            dead: Some(5),
            later: Some(5),
            ..Facts::default()
        };
        assert_eq!(facts.state(NOW), None);
        for (letter, state) in [
            (b"s", Some(JobState::Succeeded)),
            (b"x", Some(JobState::Expired)),
            (b"d", Some(JobState::Discarded)),
            (b"?", None),
        ] {
            facts.result = Some(Bytes::from_static(letter));
            facts.done = Some(NOW + 1);
            assert_eq!(facts.state(NOW), state);
            facts.done = Some(NOW);
            assert_eq!(facts.state(NOW), None, "its time is over");
        }
    }

    #[test]
    fn garbage_in_the_place_of_an_execution_is_none() {
        for garbage in [&b""[..], b"1", b"x token", b"\xff 1", b"-1 token"] {
            let facts = Facts {
                running: Some(Bytes::from_static(garbage)),
                ..Facts::default()
            };
            assert_eq!(facts.execution(), None, "{garbage:?}");
        }
    }
}

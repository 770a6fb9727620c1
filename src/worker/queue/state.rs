//! Where a job is: [`JobState`].

use std::{fmt, str::FromStr};

/// Where a job is. As text it is the name in small letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// It waits for a worker.
    Queued,
    /// It was enqueued for later, and has not run.
    Scheduled,
    /// A worker has it: or had it, and died, which is noticed when its lease ends.
    Running,
    /// It has failed, and waits for its retry.
    Failed,
    /// It has failed for good: a dead letter.
    Dead,
    /// It has ended well.
    Succeeded,
    /// Its time had passed before a worker came to it.
    Expired,
    /// Its handler, or a rule of the worker's, wanted no more of it.
    Discarded,
}

impl JobState {
    /// All of them, in the order in which a job may go through them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Scheduled,
        Self::Running,
        Self::Failed,
        Self::Dead,
        Self::Succeeded,
        Self::Expired,
        Self::Discarded,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Succeeded => "succeeded",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }

    /// Whether nothing more becomes of it by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Dead | Self::Succeeded | Self::Expired | Self::Discarded
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads what `Display` shows.
impl FromStr for JobState {
    type Err = InvalidJobState;

    fn from_str(text: &str) -> Result<Self, InvalidJobState> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or(InvalidJobState(()))
    }
}

/// A text is no [`JobState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a job's state is queued, scheduled, running, failed, dead, succeeded, expired or discarded"
)]
pub struct InvalidJobState(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_read_as_it_is_shown_and_the_error_names_them_all() {
        let refusal = "lost"
            .parse::<JobState>()
            .expect_err("no state")
            .to_string();
        for state in JobState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert!(refusal.contains(state.as_str()), "{state}");
        }
    }
}

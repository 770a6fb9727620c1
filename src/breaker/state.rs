//! What the breaker can be: [`State`].

use std::fmt;

/// What the breaker does with calls.
///
/// *Closed* is the electrician's word: current flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Lets calls through, and watches them.
    Closed,
    /// Refuses calls until its time has passed.
    Open,
    /// Lets a few calls through to find out.
    HalfOpen,
    /// Refuses calls until an operator says otherwise.
    ForcedOpen,
    /// Lets calls through until an operator says otherwise; watches them, but does not act.
    ForcedClosed,
    /// Lets calls through and does not look.
    Disabled,
}

impl State {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
        Self::Disabled,
    ];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }

    /// Whether every call is let through.
    pub const fn lets_through(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed | Self::Disabled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Why a connection could not be set up at all: [`ConnectError`].

use std::{borrow::Cow, fmt};

/// Why [`Connection::open`](super::Connection::open) or
/// [`ConnectOptions::from_url`](super::ConnectOptions::from_url) refused what it was given.
///
/// It is always the caller's to put right: a Redis that is away is no such error. It never holds a
/// password, and never the URL, which may hold one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("invalid Redis URL: {why}")]
    InvalidUrl {
        /// What to change.
        why: Cow<'static, str>,
    },
    /// A setting makes no sense.
    #[error("invalid setting {what}: {why}")]
    InvalidSetting {
        /// The setting's name.
        what: &'static str,
        /// What to change.
        why: Cow<'static, str>,
    },
    /// The URL asks for something that was not compiled in.
    #[error("{scheme}:// URLs need seawall's feature `{feature}`")]
    MissingFeature {
        /// The URL's scheme.
        scheme: &'static str,
        /// The cargo feature to turn on.
        feature: &'static str,
    },
    /// The sentinels answer, and know no master of the name in the URL.
    #[error(
        "the sentinels know no master called {name}; they know {}",
        Names(known)
    )]
    #[non_exhaustive]
    UnknownMaster {
        /// The name asked for.
        name: String,
        /// The names that they know, some of them if there are many.
        known: Vec<String>,
    },
    /// There is no tokio runtime to run the connection on.
    #[error("a connection must be opened inside a tokio runtime")]
    NoRuntime,
}

impl ConnectError {
    pub(super) fn url(why: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidUrl { why: why.into() }
    }

    pub(super) fn setting(what: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidSetting {
            what,
            why: why.into(),
        }
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("none"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

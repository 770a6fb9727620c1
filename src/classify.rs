//! The verdict on a failure: whose fault it was, and whether the call landed.
//!
//! A failure is read once, where it becomes ours, and the [`Verdict`] travels in the
//! [`Error`](crate::Error). Retry, breaker and spool all act on it, so no two of them can disagree.
//!
//! | [`Class`] | meaning | retry | breaker | spool |
//! |---|---|---|---|---|
//! | `Permanent` | Redis answered: this call is wrong | no | success, it is alive | no: returned, or parked in replay |
//! | `Transient` | this attempt failed, the next may not | if repeatable | failure if it was sent | once retries end |
//! | `Outage` | nobody is home | no: up at once | failure | yes |
//!
//! *Repeatable* is [`Landed::No`], or a call that is [`Repeat::Safe`].
//!
//! redis-rs has its own advice in `RedisError::retry_method`, which is not used here: for example it
//! calls a demoted master's READONLY recoverable, OOM not worth a retry, and hides both once they
//! come out of a transaction. [`redis_error`] reads kinds and codes instead.
//!
//! # Default
//!
//! ```
//! use redis::{ErrorKind, RedisError, ServerErrorKind};
//! use seawall::classify::{self, Class, Landed};
//!
//! let loading = RedisError::from((ErrorKind::Server(ServerErrorKind::BusyLoading), "loading"));
//! let verdict = classify::redis_error(&loading);
//! assert_eq!((verdict.class, verdict.landed), (Class::Outage, Landed::No));
//! ```
//!
//! # Customised
//!
//! A verdict on an error this crate has never seen, for [`wrap`](crate::wrap):
//!
//! ```
//! use seawall::classify::{Class, Landed, Verdict};
//!
//! fn verdict(error: &std::io::Error) -> Verdict {
//!     match error.kind() {
//!         std::io::ErrorKind::ConnectionRefused => Verdict::new(Class::Outage, Landed::No),
//!         std::io::ErrorKind::InvalidInput => Verdict::new(Class::Permanent, Landed::No),
//!         _ => Verdict::new(Class::Transient, Landed::Maybe),
//!     }
//! }
//! # assert_eq!(verdict(&std::io::ErrorKind::TimedOut.into()).landed, Landed::Maybe);
//! ```

use std::{error::Error as _, io};

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

use crate::call::Repeat;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "every layer must decide on every class"
)]
pub enum Class {
    /// Redis answered: this call is wrong, and will be wrong the next time.
    Permanent,
    /// This attempt failed; another may not.
    Transient,
    /// Nobody is home. Knocking again at once helps nobody.
    Outage,
}

/// Whether a failed call had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "every layer must decide on every answer"
)]
pub enum Landed {
    /// It had none: it was never sent, or Redis refused it.
    No,
    /// It was sent, and no answer came.
    Maybe,
    /// Part of it had: the earlier commands of a pipeline, for example.
    Yes,
}

/// Both answers about one failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Verdict {
    /// Whose fault it is.
    pub class: Class,
    /// Whether it landed.
    pub landed: Landed,
}

impl Verdict {
    /// A verdict.
    pub const fn new(class: Class, landed: Landed) -> Self {
        Self { class, landed }
    }

    /// Whether the call can be sent again without doing its work twice.
    pub const fn allows_repeat(self, repeat: Repeat) -> bool {
        matches!(self.landed, Landed::No) || matches!(repeat, Repeat::Safe)
    }

    /// Whether it speaks against the health of what was called.
    ///
    /// An attempt that failed before it was sent (our own pool was busy, say) speaks neither for nor
    /// against: `None`.
    pub const fn speaks_against(self) -> Option<bool> {
        match (self.class, self.landed) {
            (Class::Permanent, _) => Some(false),
            (Class::Transient, Landed::No) => None,
            (Class::Transient | Class::Outage, _) => Some(true),
        }
    }
}

/// Reads an error of the redis crate.
///
/// An I/O failure is taken for one after the request was sent, unless it can only come from opening
/// a connection: refused, not found, unresolved. The caller that knows better (nothing was written
/// yet) says so itself.
pub fn redis_error(error: &RedisError) -> Verdict {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension if !is_single(error) => several(error, None),
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some(code) => server_code(code),
            None => Verdict::new(Class::Permanent, Landed::No),
        },
        ErrorKind::Io => io_failure(error),
        // A rotated password must not throw jobs away: it is put right, and they go.
        ErrorKind::AuthenticationFailed
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel
        | ErrorKind::EmptySentinelList
        | ErrorKind::ClusterConnectionNotFound => Verdict::new(Class::Outage, Landed::No),
        // The connection speaks something else than Redis from here on.
        ErrorKind::Parse => Verdict::new(Class::Transient, Landed::Maybe),
        // An answer came, of a type that the caller did not expect.
        ErrorKind::UnexpectedReturnType => Verdict::new(Class::Permanent, Landed::Yes),
        _ => Verdict::new(Class::Permanent, Landed::No),
    }
}

/// Reads an error of a pipeline of `commands` commands.
///
/// As [`redis_error`], but it can tell a pipeline that was refused whole, which may be sent again,
/// from one that landed in part.
pub fn pipeline_error(error: &RedisError, commands: usize) -> Verdict {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => several(error, Some(commands)),
        _ => redis_error(error),
    }
}

/// Reads the code of one refusal: the first word of Redis' error, such as `OOM`.
///
/// A refusal is always [`Landed::No`]. Unknown codes are [`Class::Permanent`].
pub fn server_code(code: &str) -> Verdict {
    let class = match code {
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY" => Class::Outage,
        "OOM" | "MISCONF" | "NOREPLICAS" | "BUSY" | "NOMASTERLINK" | "UNKILLABLE" => Class::Outage,
        "NOAUTH" | "WRONGPASS" => Class::Outage,
        "TRYAGAIN" | "MOVED" | "ASK" => Class::Transient,
        _ => Class::Permanent,
    };
    Verdict::new(class, Landed::No)
}

/// Whether this refusal says that the server is no longer the master.
pub fn is_demoted(error: &RedisError) -> bool {
    any_code(error, |code| code == "READONLY")
}

/// Whether this refusal says that the server no longer takes the connection's user and password.
pub fn is_unauthenticated(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || any_code(error, |code| matches!(code, "NOAUTH" | "WRONGPASS"))
}

/// Whether the error is one command's, and not a list of them. The redis crate tells them apart only
/// by the source they name.
fn is_single(error: &RedisError) -> bool {
    error
        .source()
        .is_some_and(|source| source.is::<ServerError>())
        || error.clone().into_server_errors().is_none()
}

/// Several commands failed together: in a transaction, or in a plain pipeline.
fn several(error: &RedisError, commands: Option<usize>) -> Verdict {
    let aborted = error.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort);
    let Some(parts) = error.clone().into_server_errors() else {
        return redis_error(error);
    };
    // An aborted transaction has run nothing. In a plain pipeline, whatever is not listed has run.
    let landed = match commands {
        _ if aborted => Landed::No,
        Some(commands) if parts.len() >= commands => Landed::No,
        _ => Landed::Yes,
    };
    let class = parts
        .iter()
        .map(|(_, refusal)| refusal.code())
        // EXECABORT only says that there is a reason, and the reason stands beside it.
        .filter(|code| *code != "EXECABORT")
        .map(|code| server_code(code).class)
        .max_by_key(|class| match class {
            Class::Permanent => 0,
            Class::Transient => 1,
            Class::Outage => 2,
        })
        .unwrap_or(Class::Permanent);
    Verdict::new(class, landed)
}

fn io_failure(error: &RedisError) -> Verdict {
    let never_sent = error.is_connection_refusal()
        || matches!(
            io_kind(error),
            Some(
                io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::PermissionDenied
            )
        );
    if never_sent {
        Verdict::new(Class::Outage, Landed::No)
    } else {
        Verdict::new(Class::Transient, Landed::Maybe)
    }
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = cause.source();
    }
    None
}

fn any_code(error: &RedisError, is: impl Fn(&str) -> bool) -> bool {
    match error.clone().into_server_errors() {
        Some(parts) => parts.iter().any(|(_, refusal)| is(refusal.code())),
        None => error.code().is_some_and(is),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_been_sent_is_an_outage_by_io() {
        let verdict = |kind: io::ErrorKind| redis_error(&RedisError::from(io::Error::from(kind)));
        assert_eq!(
            verdict(io::ErrorKind::ConnectionRefused),
            Verdict::new(Class::Outage, Landed::No)
        );
        for sent in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::BrokenPipe,
        ] {
            assert_eq!(
                verdict(sent),
                Verdict::new(Class::Transient, Landed::Maybe),
                "{sent}"
            );
        }
    }

    #[test]
    fn a_busy_pool_speaks_neither_for_nor_against() {
        assert_eq!(
            Verdict::new(Class::Transient, Landed::No).speaks_against(),
            None
        );
        assert_eq!(
            Verdict::new(Class::Transient, Landed::Maybe).speaks_against(),
            Some(true)
        );
        assert_eq!(
            Verdict::new(Class::Permanent, Landed::No).speaks_against(),
            Some(false)
        );
    }

    #[test]
    fn a_maybe_is_repeated_only_for_a_repeat_safe_call() {
        let lost_reply = Verdict::new(Class::Transient, Landed::Maybe);
        assert!(lost_reply.allows_repeat(Repeat::Safe));
        assert!(!lost_reply.allows_repeat(Repeat::Unsafe));
        assert!(Verdict::new(Class::Outage, Landed::No).allows_repeat(Repeat::Unsafe));
    }
}

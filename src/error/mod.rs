//! The one error of the call path, [`Error`]: small, opaque, and safe to log.
//!
//! It carries the [`Verdict`] that was reached where the failure happened, and what
//! a caller or an operator asks next: which call, how many attempts, how long, when to come back. It
//! never holds a key, a payload or a password: what Redis says in an error may quote them, so only
//! the part before the first quotation mark is kept.
//!
//! # Default
//!
//! ```
//! # fn handle(error: seawall::Error) -> &'static str {
//! if error.is_breaker_open() {
//!     "Redis is out; come back after error.retry_after()"
//! } else if error.may_have_landed() {
//!     "the reply was lost: look before doing it again"
//! } else if error.is_permanent() {
//!     "this call is wrong"
//! } else {
//!     "not now"
//! }
//! # }
//! ```
//!
//! # Customised
//!
//! A leaf of your own makes one from its error and a verdict:
//!
//! ```
//! use seawall::{Error, classify::{Class, Landed, Verdict}};
//!
//! let error = Error::foreign(Verdict::new(Class::Outage, Landed::No), "broker unreachable");
//! assert!(error.is_outage() && !error.may_have_landed());
//! ```

mod cause;

use std::{borrow::Cow, convert::Infallible, error::Error as StdError, fmt, time::Duration};

use redis::RedisError;

use self::cause::{Cause, unquoted};
use crate::{
    call::{Repeat, UnexpectedReply},
    classify::{self, Class, Landed, Verdict},
};

/// Any error, as third-party tower layers box it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call, or an enqueue, failed.
///
/// `Display` prints this level only; [`source`](StdError::source) is the chain. The types of the
/// sources are not part of the API. See the [module docs](self) for how to act on one.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    verdict: Verdict,
    call: &'static str,
    attempts: u32,
    elapsed: Duration,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

/// What failed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The circuit breaker refused the call without sending it.
    BreakerOpen,
    /// The service has been shut down.
    Closed,
    /// No connection to Redis.
    Connect,
    /// The keys of one call lie in several hash slots, and the Redis is a cluster.
    CrossSlot,
    /// The job's time had passed before it could be delivered.
    Expired,
    /// A client that seawall wraps failed.
    Foreign,
    /// The job or call is malformed, and was not sent.
    Invalid,
    /// Every exclusive connection is in use.
    PoolBusy,
    /// Redis, or the connection to it, failed the call.
    Redis,
    /// The disk could not keep the record.
    Spool,
    /// The spool is at one of its bounds.
    SpoolFull,
    /// No answer within the call's time.
    Timeout,
}

impl Error {
    /// A failure of `kind`, with a verdict and no more.
    pub(crate) fn new(kind: ErrorKind, verdict: Verdict) -> Self {
        Self(Box::new(Inner {
            kind,
            verdict,
            call: "",
            attempts: 0,
            elapsed: Duration::ZERO,
            retry_after: None,
            source: None,
        }))
    }

    /// A failure of a client that is not seawall's own.
    ///
    /// `source` is printed by whoever prints the chain: keep secrets out of it.
    pub fn foreign(verdict: Verdict, source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Foreign, verdict).with_source(source)
    }

    /// A malformed job or call; `what` tells what to change.
    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, NOT_DONE).with_source(Cause(what.into()))
    }

    /// A call that no node of a cluster can carry out.
    pub(crate) fn cross_slot() -> Self {
        Self::new(ErrorKind::CrossSlot, NOT_DONE).with_cause(
            "CROSSSLOT: give them a hash tag in common, as in {user:1}:name and {user:1}:mail",
        )
    }

    /// A failure of the redis crate, stripped of what may quote a key or a payload.
    pub(crate) fn redis(verdict: Verdict, source: &RedisError) -> Self {
        let kind = if source.is_timeout() {
            ErrorKind::Timeout
        } else if verdict.landed == Landed::No && source.is_connection_refusal() {
            ErrorKind::Connect
        } else if source.code() == Some("CROSSSLOT") {
            ErrorKind::CrossSlot
        } else {
            ErrorKind::Redis
        };
        Self::new(kind, verdict).with_source(Cause::of(source))
    }

    /// A refusal that came back inside a script's answer, such as `WRONGTYPE Operation against ..`.
    pub(crate) fn refused(message: &str) -> Self {
        let code = message.split(' ').next().unwrap_or_default();
        Self::new(ErrorKind::Redis, classify::server_code(code))
            .with_source(Cause(unquoted(message).into()))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_cause(self, what: impl Into<Cow<'static, str>>) -> Self {
        self.with_source(Cause(what.into()))
    }

    /// Says when a new attempt makes sense; retry and replay obey it.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    pub(crate) fn with_call(mut self, call: &'static str) -> Self {
        self.0.call = call;
        self
    }

    /// The same failure, told to another caller that it has met.
    pub(crate) fn again(&self) -> Self {
        let Inner {
            kind,
            verdict,
            call,
            attempts,
            elapsed,
            retry_after,
            source,
        } = &*self.0;
        Self(Box::new(Inner {
            kind: *kind,
            verdict: *verdict,
            call,
            attempts: *attempts,
            elapsed: *elapsed,
            retry_after: *retry_after,
            source: source
                .as_ref()
                .map(|source| Cause(source.to_string().into()).into()),
        }))
    }

    /// What it says, with what its source says.
    pub(crate) fn reason(&self) -> String {
        match &self.0.source {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    /// Fills in how often it was tried, and for how long.
    pub(crate) fn record(&mut self, attempts: u32, elapsed: Duration) {
        self.0.attempts = attempts;
        self.0.elapsed = elapsed;
    }

    /// Says that an earlier attempt may have landed, whatever is known of the last one.
    pub(crate) fn record_possible_landing(&mut self) {
        if self.0.verdict.landed == Landed::No {
            self.0.verdict.landed = Landed::Maybe;
        }
    }

    /// What failed, in one word.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose fault, and whether it landed.
    pub fn verdict(&self) -> Verdict {
        self.0.verdict
    }

    /// The call's name, or `""` where there is none.
    pub fn call(&self) -> &'static str {
        self.0.call
    }

    /// How often it was tried: 1 without a retry, 0 if it never came to an attempt.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// From the first attempt to this error.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// When a new attempt makes sense, if the failure says so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Nobody is home: Redis is away, or cannot take this now.
    pub fn is_outage(&self) -> bool {
        self.0.verdict.class == Class::Outage
    }

    /// This attempt failed; another may not.
    pub fn is_transient(&self) -> bool {
        self.0.verdict.class == Class::Transient
    }

    /// The call is wrong, and will be wrong the next time.
    pub fn is_permanent(&self) -> bool {
        self.0.verdict.class == Class::Permanent
    }

    /// The circuit breaker refused it without sending it.
    pub fn is_breaker_open(&self) -> bool {
        self.0.kind == ErrorKind::BreakerOpen
    }

    /// Whether the work may have been done, in whole or in part.
    pub fn may_have_landed(&self) -> bool {
        self.0.verdict.landed != Landed::No
    }

    /// Whether the call can be sent again without doing its work twice.
    pub fn is_repeatable(&self, repeat: Repeat) -> bool {
        self.0.verdict.class != Class::Permanent && self.0.verdict.allows_repeat(repeat)
    }
}

/// A setting that no policy can be built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {why}")]
pub struct InvalidSetting {
    what: &'static str,
    why: &'static str,
}

impl InvalidSetting {
    /// `what` names the setting, `why` tells what it must be.
    pub(crate) const fn new(what: &'static str, why: &'static str) -> Self {
        Self { what, why }
    }
}

/// Nothing was sent, and sending it again would not help.
pub(crate) const NOT_DONE: Verdict = Verdict::new(Class::Permanent, Landed::No);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            verdict,
            call,
            attempts,
            elapsed,
            retry_after,
            ..
        } = &*self.0;
        f.write_str(match kind {
            ErrorKind::BreakerOpen => "circuit breaker is open",
            ErrorKind::Closed => "seawall has been shut down",
            ErrorKind::Connect => "no connection to Redis",
            ErrorKind::CrossSlot => "the keys of the call lie in several hash slots of the cluster",
            ErrorKind::Expired => "the job expired before it could be delivered",
            ErrorKind::Foreign => "the wrapped client failed",
            ErrorKind::Invalid => "invalid job or call",
            ErrorKind::PoolBusy => "every exclusive connection is in use",
            ErrorKind::Redis => "Redis failed the call",
            ErrorKind::Spool => "the spool could not keep the record",
            ErrorKind::SpoolFull => "the spool is full",
            ErrorKind::Timeout => "no answer from Redis in time",
        })?;
        if !call.is_empty() {
            write!(f, " (call {call:?})")?;
        }
        if *attempts > 0 {
            let attempt = if *attempts == 1 {
                "attempt"
            } else {
                "attempts"
            };
            write!(f, " after {attempts} {attempt} in {elapsed:?}")?;
        }
        if let Some(after) = retry_after {
            write!(f, ", try again in {after:?}")?;
        }
        f.write_str(match verdict.landed {
            Landed::No => "",
            Landed::Maybe => "; it may have been done",
            Landed::Yes => "; part of it has been done",
        })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("class", &self.0.verdict.class)
            .field("landed", &self.0.verdict.landed)
            .field("call", &self.0.call)
            .field("attempts", &self.0.attempts)
            .field("elapsed", &self.0.elapsed)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

/// Third-party tower layers box their errors, ours among them: an [`Error`] in the box comes out
/// with its verdict, and so does one that such a layer has wrapped. Anything else, a timeout layer's
/// for example, may have landed.
impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => {
                let verdict =
                    cause(&*other).unwrap_or(Verdict::new(Class::Transient, Landed::Maybe));
                Self::foreign(verdict, other)
            }
        }
    }
}

impl From<UnexpectedReply> for Error {
    fn from(source: UnexpectedReply) -> Self {
        Self::new(
            ErrorKind::Redis,
            Verdict::new(Class::Permanent, Landed::Yes),
        )
        .with_source(source)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The verdict of an [`Error`] further down the chain.
fn cause(error: &(dyn StdError + 'static)) -> Option<Verdict> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours.verdict());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use redis::ErrorKind as RedisKind;

    use super::*;

    #[test]
    fn is_one_word_wide_and_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn what_redis_quotes_back_is_not_repeated() {
        let refusal = RedisError::from((
            RedisKind::Extension,
            "An error was signalled by the server",
            "ERR unknown command 'LPUSSH', with args beginning with: 'k3y' 'p4yload'".to_owned(),
        ));
        let error = Error::redis(NOT_DONE, &refusal).with_call("push");
        let shown = format!("{error} {error:?} {}", error.source().unwrap());
        assert!(shown.contains("unknown command"), "{shown}");
        assert!(
            !shown.contains("k3y") && !shown.contains("p4yload"),
            "{shown}"
        );
    }

    #[test]
    fn a_third_partys_box_keeps_the_verdict() {
        #[derive(Debug, thiserror::Error)]
        #[error("some layer")]
        struct Layer(#[source] Error);

        let ours = || {
            Error::new(
                ErrorKind::BreakerOpen,
                Verdict::new(Class::Outage, Landed::No),
            )
        };
        assert!(Error::from(BoxError::from(ours())).is_breaker_open());
        assert!(Error::from(BoxError::from(Layer(ours()))).is_outage());
        assert!(Error::from(BoxError::from("elapsed")).may_have_landed());
    }
}

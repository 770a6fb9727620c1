//! What goes down the line and what comes back: [`RedisCall`] and [`Reply`].
//!
//! A call is a name for the metrics, one command (or a pipeline, or a script), whether it may be
//! done twice, and by when it must have answered. It is an `Arc` inside: cloning it for a second
//! attempt copies nothing.
//!
//! # Default
//!
//! ```
//! use seawall::RedisCall;
//!
//! // May not be done twice: if the reply is lost, the caller hears so instead.
//! let push = RedisCall::new("push", redis::cmd("LPUSH").arg("emails").arg("hello"));
//! assert!(!push.is_repeat_safe());
//! // A pure read may.
//! assert!(RedisCall::new("read", redis::cmd("GET").arg("user:1")).is_repeat_safe());
//! ```
//!
//! # Customised
//!
//! ```
//! use std::time::Duration;
//! use seawall::{RedisCall, call::Repeat};
//!
//! let mut pipe = redis::pipe();
//! pipe.atomic().cmd("SET").arg("user:1").arg("ann").cmd("SADD").arg("users").arg(1);
//! let call = RedisCall::new("save_user", pipe)
//!     .with_repeat(Repeat::Safe) // the same values again change nothing
//!     .with_timeout(Duration::from_millis(80));
//! assert_eq!(call.name(), "save_user");
//! ```

pub(crate) mod keys;
mod reads;
pub(crate) mod slot;

use std::{fmt, sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline, Value};
use tokio::time::Instant;

/// Whether doing a call twice leaves Redis as doing it once does.
///
/// It decides what happens when a reply is lost: a [`Safe`](Self::Safe) call is tried again, an
/// [`Unsafe`](Self::Unsafe) one is returned to its caller as an error that
/// [may have landed](crate::Error::may_have_landed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Twice is wrong, or not known to be right.
    Unsafe,
}

/// What the layers need to know of a request, whoever's it is.
///
/// [`RedisCall`] implements it; so does a request of your own that goes through
/// [`wrap`](crate::wrap) and the layers around it. The defaults are the careful ones.
pub trait Request {
    /// Names the kind of call in metrics and errors. A constant, never a key or a payload.
    ///
    /// Default: `"call"`.
    fn name(&self) -> &'static str {
        "call"
    }

    /// Whether it may be sent again when it may have landed.
    ///
    /// Default: [`Repeat::Unsafe`].
    fn repeat(&self) -> Repeat {
        Repeat::Unsafe
    }

    /// When the caller stops waiting, all attempts included.
    ///
    /// Default: `None`, only the layers' own limits hold.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// One request to Redis: a command, a pipeline or a script.
///
/// See the [module docs](self) for examples.
#[derive(Clone)]
pub struct RedisCall {
    body: Arc<Body>,
    name: &'static str,
    repeat: Repeat,
    deadline: Option<Instant>,
    generation: Option<u64>,
    exclusive: bool,
    for_replicas: bool,
}

impl RedisCall {
    /// A call that metrics and errors will show as `name`: a constant, never a key or a payload.
    ///
    /// It starts out as [`Repeat::Safe`] if every command in it only reads, and as
    /// [`Repeat::Unsafe`] otherwise.
    pub fn new(name: &'static str, body: impl Into<Body>) -> Self {
        let body = body.into();
        let repeat = if body.only_reads() {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        Self {
            body: Arc::new(body),
            name,
            repeat,
            deadline: None,
            generation: None,
            exclusive: false,
            for_replicas: false,
        }
    }

    /// Says whether it may be done twice.
    #[must_use]
    pub fn with_repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    /// Gives all attempts together `timeout` from now; no deadline if that is beyond all time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Instant::now().checked_add(timeout);
        self
    }

    /// Gives all attempts together until `deadline`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Goes over the connection with this number, which [`Status`](crate::connect::Status) shows, and over
    /// no later one: it fails, an outage and not sent, once that has been replaced. For calls that only
    /// make sense to the server that has answered the ones before.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// Goes over a connection that no other call uses meanwhile: for WAIT, which holds up all that comes
    /// behind it. It has no time limit but its own.
    #[must_use]
    pub fn with_exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// The number of the only connection it may go over, if there is one.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Whether it needs a connection to itself.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Lets a replica answer, where the connection was
    /// [told to use them](crate::connect::ConnectOptions::with_replica_reads); the answer may be old.
    ///
    /// It means nothing for a call that is not known to only read, and the master answers then.
    #[must_use]
    pub fn with_replica_read(mut self) -> Self {
        self.for_replicas = self.body.only_reads();
        self
    }

    /// Whether a replica may answer.
    pub(crate) fn is_for_replicas(&self) -> bool {
        self.for_replicas
    }

    /// The name that metrics and errors show.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is [`Repeat::Safe`].
    pub fn is_repeat_safe(&self) -> bool {
        self.repeat == Repeat::Safe
    }

    /// What is sent.
    pub fn body(&self) -> &Body {
        &self.body
    }
}

impl Request for RedisCall {
    fn name(&self) -> &'static str {
        self.name
    }

    fn repeat(&self) -> Repeat {
        self.repeat
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Shows the name and the rules, never a key or a payload.
impl fmt::Debug for RedisCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCall")
            .field("name", &self.name)
            .field("repeat", &self.repeat)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// What a [`RedisCall`] sends.
#[non_exhaustive]
pub enum Body {
    /// One command.
    Command(Cmd),
    /// Several commands in one go; with [`Pipeline::atomic`], inside MULTI and EXEC.
    ///
    /// A pipeline that is not atomic may land in part.
    Pipeline(Pipeline),
    /// A Lua script by its hash, loaded again whenever the server has forgotten it.
    Script(ScriptCall),
}

impl Body {
    fn only_reads(&self) -> bool {
        match self {
            Self::Command(cmd) => reads::only_reads(cmd),
            Self::Pipeline(pipeline) => pipeline.cmd_iter().all(reads::only_reads),
            Self::Script(_) => false,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command(_) => "Command",
            Self::Pipeline(_) => "Pipeline",
            Self::Script(_) => "Script",
        })
    }
}

impl From<Cmd> for Body {
    fn from(cmd: Cmd) -> Self {
        Self::Command(cmd)
    }
}

/// Takes the command that `redis::cmd("SET").arg(..)` has built, leaving an empty one behind.
impl From<&mut Cmd> for Body {
    fn from(cmd: &mut Cmd) -> Self {
        Self::Command(cmd.take())
    }
}

impl From<Pipeline> for Body {
    fn from(pipeline: Pipeline) -> Self {
        Self::Pipeline(pipeline)
    }
}

impl From<ScriptCall> for Body {
    fn from(script: ScriptCall) -> Self {
        Self::Script(script)
    }
}

/// A run of a Lua script that survives an empty script cache.
///
/// A restarted Redis answers EVALSHA with NOSCRIPT. The connection then loads `source` and sends
/// the same EVALSHA again: nothing has run before that, so it is safe for any call.
#[derive(Clone)]
pub struct ScriptCall {
    source: Source,
    evalsha: Cmd,
}

#[derive(Clone)]
enum Source {
    Constant(&'static str),
    Made(Arc<str>),
}

impl ScriptCall {
    /// A run of `source`, whose SHA-1 in hexadecimal `evalsha` already carries as its first
    /// argument.
    ///
    /// Hashing at every run would be waste, so the caller keeps the hash: see [`redis::Script`].
    pub fn new(source: &'static str, evalsha: Cmd) -> Self {
        Self {
            source: Source::Constant(source),
            evalsha,
        }
    }

    /// As [`new`](Self::new), with a text that was made when the program started.
    pub fn made(source: Arc<str>, evalsha: Cmd) -> Self {
        Self {
            source: Source::Made(source),
            evalsha,
        }
    }

    /// The script's text.
    pub fn source(&self) -> &str {
        match &self.source {
            Source::Constant(text) => text,
            Source::Made(text) => text,
        }
    }

    /// The command that runs it by its hash.
    pub fn evalsha(&self) -> &Cmd {
        &self.evalsha
    }
}

impl fmt::Debug for ScriptCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptCall").finish_non_exhaustive()
    }
}

/// What Redis answered.
#[derive(Clone, PartialEq)]
pub struct Reply(Value);

impl Reply {
    /// Wraps an answer, for a leaf of your own.
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// Reads the answer as a `T`.
    ///
    /// # Errors
    ///
    /// [`UnexpectedReply`] if it is something else. The call has been done all the same.
    pub fn decode<T: FromRedisValue>(self) -> Result<T, UnexpectedReply> {
        redis::from_redis_value(self.0).map_err(|_| UnexpectedReply(()))
    }

    /// The answer as the redis crate has it.
    pub fn into_value(self) -> Value {
        self.0
    }
}

/// Shows no content: a reply holds the user's data.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// A [`Reply`] is not of the type it was read as.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("Redis answered with a value of another type than the caller asked for")]
pub struct UnexpectedReply(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_repeat_safe_only_if_all_of_it_reads() {
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg("a").cmd("HGETALL").arg("b");
        assert!(RedisCall::new("reads", pipe.clone()).is_repeat_safe());
        pipe.cmd("INCR").arg("c");
        assert!(!RedisCall::new("mixed", pipe).is_repeat_safe());
    }

    #[test]
    fn debug_output_shows_no_key_and_no_payload() {
        let call = RedisCall::new("push", redis::cmd("LPUSH").arg("k3y").arg("p4yload"));
        let shown = format!("{call:?} {:?} {:?}", call.body(), Reply::new(Value::Int(7)));
        assert!(!shown.contains("k3y") && !shown.contains("p4yload") && !shown.contains('7'));
    }
}

//! One request over one connection: how it is sent, how long it may take, and what its outcome says of
//! the connection.

use std::time::Duration;

use redis::{
    Cmd, ErrorKind as RedisKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout_at};

use super::{generation::Generation, meters::Meters};
use crate::{
    RedisCall, Reply,
    call::{Body, Request, ScriptCall},
    classify::{self, Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

/// By when an attempt must have its answer.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) started: Instant,
    pub(super) until: Instant,
    /// Whether that is the whole response timeout, not an earlier deadline of the call's own.
    is_whole: bool,
}

impl Limit {
    /// # Errors
    ///
    /// The call's deadline has passed.
    pub(super) fn of(call: &RedisCall, response_timeout: Duration) -> Result<Self, Error> {
        let started = Instant::now();
        let whole = started + response_timeout;
        let until = call
            .deadline()
            .map_or(whole, |deadline| deadline.min(whole));
        if until <= started {
            return Err(out_of_time(call, Landed::No));
        }
        Ok(Self {
            started,
            until,
            is_whole: until == whole,
        })
    }
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Plain,
    /// To the node that a slot is on its way to. Not for pipelines: it holds for one command.
    Asking,
}

/// What became of an attempt.
pub(super) enum Outcome {
    Answer(Value),
    Refused(Refusal),
    Silence,
}

/// Sends a request over a generation's connection, and tells the generation how it went.
pub(super) async fn exchange(
    generation: &Generation,
    body: &Body,
    manner: Manner,
    limit: Limit,
) -> Outcome {
    let mut line = generation.line();
    match timeout_at(limit.until, send_as(body, manner, &mut line)).await {
        Ok(Ok(value)) => {
            generation.answered();
            if let Body::Script(_) = body {
                generation.note_answer(&value);
            }
            Outcome::Answer(value)
        }
        Ok(Err(refusal)) => {
            generation.note(&refusal.error);
            if refusal.is_answer() {
                generation.answered();
            }
            Outcome::Refused(refusal)
        }
        Err(_) => {
            generation.unanswered(limit.is_whole);
            Outcome::Silence
        }
    }
}

impl Outcome {
    /// Counts the attempt, and makes of it what its caller gets.
    pub(super) fn conclude(
        self,
        call: &RedisCall,
        limit: Limit,
        meters: &Meters,
    ) -> Result<Reply, Error> {
        let elapsed = limit.started.elapsed();
        meters.seconds.observe(elapsed.as_secs_f64());
        let mut error = match self {
            Self::Answer(value) => {
                meters.ok.inc();
                return Ok(Reply::new(value));
            }
            Self::Refused(refusal) => {
                if refusal.is_answer() {
                    meters.refused.inc();
                } else {
                    meters.failed.inc();
                }
                refusal.into_error(call)
            }
            Self::Silence => {
                meters.timeout.inc();
                out_of_time(call, Landed::Maybe)
            }
        };
        error.record(1, elapsed);
        Err(error)
    }
}

pub(super) fn out_of_time(call: &RedisCall, landed: Landed) -> Error {
    Error::new(ErrorKind::Timeout, Verdict::new(Class::Transient, landed)).with_call(call.name())
}

/// The only connection that the call may go over is no more.
pub(super) fn replaced(call: &RedisCall) -> Error {
    Error::new(ErrorKind::Connect, Verdict::new(Class::Outage, Landed::No))
        .with_cause("the connection that it was meant for has been replaced")
        .with_call(call.name())
}

/// Sends a call and waits for its answer, for as long as it takes.
pub(super) async fn send(body: &Body, line: &mut MultiplexedConnection) -> Result<Value, Refusal> {
    send_as(body, Manner::Plain, line).await
}

async fn send_as(
    body: &Body,
    manner: Manner,
    line: &mut MultiplexedConnection,
) -> Result<Value, Refusal> {
    match body {
        Body::Command(cmd) => command(cmd, manner, line)
            .await
            .map_err(Refusal::of_command),
        Body::Pipeline(pipeline) => pipeline.query_async(line).await.map_err(|error| Refusal {
            verdict: classify::pipeline_error(&error, pipeline.len()),
            error,
        }),
        Body::Script(script) => run(script, manner, line).await.map_err(Refusal::of_script),
    }
}

/// An error that stands inside the answer stays there: the command itself has run.
async fn command(
    cmd: &Cmd,
    manner: Manner,
    line: &mut MultiplexedConnection,
) -> Result<Value, RedisError> {
    let answer = match manner {
        Manner::Plain => line.send_packed_command(cmd).await?,
        Manner::Asking => {
            // In one piece: it counts for the next command on the connection, which others share.
            let mut both = redis::pipe();
            both.cmd("ASKING").add_command(cmd.clone());
            let answers = line.send_packed_commands(&both, 1, 1).await?;
            answers.into_iter().next().unwrap_or(Value::Nil)
        }
    };
    match answer {
        Value::ServerError(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// NOSCRIPT says that nothing has run, so the same run may follow the script's text.
async fn run(
    script: &ScriptCall,
    manner: Manner,
    line: &mut MultiplexedConnection,
) -> Result<Value, RedisError> {
    match command(script.evalsha(), manner, line).await {
        Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::NoScript) => {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.source());
            command(&load, Manner::Plain, line).await?;
            command(script.evalsha(), manner, line).await
        }
        done => done,
    }
}

/// An error of the redis crate with its verdict.
pub(super) struct Refusal {
    pub(super) error: RedisError,
    verdict: Verdict,
}

impl Refusal {
    fn of_command(error: RedisError) -> Self {
        Self {
            verdict: classify::redis_error(&error),
            error,
        }
    }

    /// What a script has done before it failed for a reason of its own stays done. The server's reasons
    /// to take nothing now come before its first write.
    fn of_script(error: RedisError) -> Self {
        let mut refusal = Self::of_command(error);
        if refusal.verdict.class == Class::Permanent {
            refusal.verdict.landed = Landed::Maybe;
        }
        refusal
    }

    /// Whether some of it was done, or may have been, so that it must not be sent elsewhere.
    pub(super) fn has_landed(&self) -> bool {
        self.verdict.landed != Landed::No
    }

    /// What one node of several refuses is no outage of them all.
    pub(super) fn of_one_node(mut self) -> Self {
        if self.verdict.class == Class::Outage {
            self.verdict.class = Class::Transient;
        }
        self
    }

    pub(super) fn class(&self) -> Class {
        self.verdict.class
    }

    /// Redis said no, as opposed to nothing.
    fn is_answer(&self) -> bool {
        matches!(
            self.error.kind(),
            RedisKind::Server(_) | RedisKind::Extension
        )
    }

    pub(super) fn into_error(self, call: &RedisCall) -> Error {
        Error::redis(self.verdict, &self.error).with_call(call.name())
    }
}

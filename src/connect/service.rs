//! The service: [`Connection`].

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use redis::{
    ErrorKind as RedisKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Service;

use super::{
    ConnectError, ConnectOptions, Exclusive, Status, dial::Dialer, exclusive::Pool, route::Route,
    shared::Shared, supervisor,
};
use crate::{
    RedisCall, Reply,
    call::{Body, Request, ScriptCall},
    classify::{self, Class, Landed, Verdict},
    error::{Error, ErrorKind},
    replicas::Replicas,
};

/// A connection to Redis that replaces itself.
///
/// A clone shares everything; the task that keeps the connection ends with the last clone and the
/// last pending call. See the [module docs](super) for examples.
///
/// As a [`Service`] it is always ready. A call is sent over a connection that other calls share, so
/// it must not change that connection or hold it up: no SUBSCRIBE, MONITOR, SELECT, WATCH or MULTI
/// (an atomic [`redis::Pipeline`] is fine), no blocking read, no WAIT. Those go over an
/// [`exclusive`](Self::exclusive) one.
///
/// # Errors
///
/// - [`ErrorKind::Connect`], an outage and not sent, at once, when there is no connection; with the
///   time until the next attempt to make one.
/// - [`ErrorKind::Timeout`] when the answer took longer than the response timeout or the call's
///   deadline. It may have landed, unless the deadline had passed before.
/// - [`ErrorKind::Redis`] when Redis refused the call, or the connection broke.
///
/// # Cancel safety
///
/// Dropping the future of a call harms no other call. The call may land all the same.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pool: Pool,
    _loop: DropGuard,
}

impl Connection {
    /// Starts connecting, and returns at once, whether Redis is up or not.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a setting makes no sense, or outside a tokio runtime. A Redis that is away
    /// is no error here.
    pub fn open(options: ConnectOptions) -> Result<Self, ConnectError> {
        options.check()?;
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let dialer = Dialer::new(&options)?;
        let route = Route::new(&options)?;
        let shared = Arc::new(Shared::new(options, dialer, route));
        let stop = CancellationToken::new();
        let supervisor = supervisor::run(Arc::clone(&shared));
        runtime.spawn(stop.clone().run_until_cancelled_owned(supervisor));
        Ok(Self {
            inner: Arc::new(Inner {
                pool: Pool::new(&shared)?,
                shared,
                _loop: stop.drop_guard(),
            }),
        })
    }

    /// Finds out whether the URL names a master that is there to be found, for `limit` at most.
    ///
    /// With Sentinel: whether any sentinel knows the master's name. It waits for the first that does,
    /// or until all have answered or failed to; for one that does not answer no longer than `limit`.
    /// Without, there is nothing to ask, and it returns at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ConnectError::UnknownMaster`] if sentinels answer, and none knows the name. That none
    /// answers is no error: they may be back before they are needed.
    pub async fn check(&self, limit: Duration) -> Result<(), ConnectError> {
        let Route::Sentinel(sentinels) = &self.inner.shared.route else {
            return Ok(());
        };
        let names = match timeout(limit, sentinels.other_names()).await {
            Ok(names) => names,
            Err(_) => sentinels.unknown_master(),
        };
        match names {
            None => Ok(()),
            Some(known) => Err(ConnectError::UnknownMaster {
                name: sentinels.master().to_string(),
                known: known.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// Waits until there is a connection, for `limit` at most.
    ///
    /// Nobody has to: calls made without one fail at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// What a call would fail with, if there is still none.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let mut status = self.status();
        // Not only until the status says so: one that is about to be replaced is up, and of no use.
        let ready = async {
            while self.inner.shared.current().is_err() && status.changed().await.is_ok() {}
        };
        // If time is up, the error below says so.
        let _ = timeout(limit, ready).await;
        self.inner.shared.current().map(drop)
    }

    /// Whether there is a connection, since when, and what was wrong last; for watching.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.shared.status()
    }

    /// What is known of the server's replicas, for
    /// [`SpoolOptions::with_replicas`](crate::spool::SpoolOptions::with_replicas).
    pub fn replicas(&self) -> Replicas {
        self.inner.shared.teller.replicas()
    }

    /// Whether there is a working connection now.
    pub fn is_up(&self) -> bool {
        self.inner.shared.current().is_ok()
    }

    /// Takes a connection that no other call uses: for blocking reads, transactions with WATCH, and
    /// WAIT.
    ///
    /// It is checked when it is taken, and goes back when it is dropped. Cancel safe.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::PoolBusy`], transient and not sent, if all were in use for as long as
    ///   [`with_exclusive`](ConnectOptions::with_exclusive) allows.
    /// - [`ErrorKind::Connect`], an outage and not sent, if there is no connection to Redis.
    pub async fn exclusive(&self) -> Result<Exclusive, Error> {
        self.inner.pool.take(&self.inner).await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field(
                "address",
                &format_args!("{}", self.inner.shared.options.deployment),
            )
            .field("status", &*self.status().borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.meters.up.set(0);
        self.shared.meters.master(None);
        self.shared.meters.sentinels(0, 0);
    }
}

/// The answer to come.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

impl Service<RedisCall> for Connection {
    type Response = Reply;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: RedisCall) -> ResponseFuture {
        Box::pin(attempt(Arc::clone(&self.inner), call))
    }
}

async fn attempt(inner: Arc<Inner>, call: RedisCall) -> Result<Reply, Error> {
    let shared = &*inner.shared;
    let started = Instant::now();
    let whole = started + shared.options.response_timeout;
    let until = call
        .deadline()
        .map_or(whole, |deadline| deadline.min(whole));
    if until <= started {
        return Err(out_of_time(&call, Landed::No));
    }
    let generation = shared
        .current()
        .map_err(|error| error.with_call(call.name()))?;
    if call
        .generation()
        .is_some_and(|only| only != generation.number)
    {
        return Err(replaced(&call));
    }
    if call.is_exclusive() {
        let mut exclusive = inner.pool.take(&inner).await?;
        return exclusive.call(&call).await;
    }
    if call.is_for_replicas() && shared.options.replica_reads {
        let read = shared.replicas.read(&call, started, until).await;
        shared.meters.read_from(read.is_some());
        match read {
            Some(Ok(value)) => return Ok(Reply::new(value)),
            Some(Err(refusal)) => return Err(refusal.into_error(&call)),
            None => {}
        }
    }
    let mut line = generation.line();
    let answer = timeout_at(until, send(call.body(), &mut line)).await;
    let elapsed = started.elapsed();
    shared.meters.seconds.observe(elapsed.as_secs_f64());
    let mut error = match answer {
        Ok(Ok(value)) => {
            generation.answered();
            if let Body::Script(_) = call.body() {
                generation.note_answer(&value);
            }
            shared.meters.ok.inc();
            return Ok(Reply::new(value));
        }
        Ok(Err(refusal)) => {
            generation.note(&refusal.error);
            if refusal.is_answer() {
                generation.answered();
                shared.meters.refused.inc();
            } else {
                shared.meters.failed.inc();
            }
            refusal.into_error(&call)
        }
        Err(_) => {
            if until == whole {
                generation.unanswered();
            }
            shared.meters.timeout.inc();
            out_of_time(&call, Landed::Maybe)
        }
    };
    error.record(1, elapsed);
    Err(error)
}

/// The only connection that the call may go over is no more.
fn replaced(call: &RedisCall) -> Error {
    Error::new(ErrorKind::Connect, Verdict::new(Class::Outage, Landed::No))
        .with_cause("the connection that it was meant for has been replaced")
        .with_call(call.name())
}

pub(super) fn out_of_time(call: &RedisCall, landed: Landed) -> Error {
    Error::new(ErrorKind::Timeout, Verdict::new(Class::Transient, landed)).with_call(call.name())
}

/// Sends a call and waits for its answer, for as long as it takes.
pub(super) async fn send(body: &Body, line: &mut MultiplexedConnection) -> Result<Value, Refusal> {
    match body {
        Body::Command(cmd) => command(cmd, line).await.map_err(Refusal::of_command),
        Body::Pipeline(pipeline) => pipeline.query_async(line).await.map_err(|error| Refusal {
            verdict: classify::pipeline_error(&error, pipeline.len()),
            error,
        }),
        Body::Script(script) => run(script, line).await.map_err(Refusal::of_script),
    }
}

/// An error that stands inside the answer stays there: the command itself has run.
async fn command(cmd: &redis::Cmd, line: &mut MultiplexedConnection) -> Result<Value, RedisError> {
    match line.send_packed_command(cmd).await? {
        Value::ServerError(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// NOSCRIPT says that nothing has run, so the same run may follow the script's text.
async fn run(script: &ScriptCall, line: &mut MultiplexedConnection) -> Result<Value, RedisError> {
    match command(script.evalsha(), line).await {
        Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::NoScript) => {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.source());
            command(&load, line).await?;
            command(script.evalsha(), line).await
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

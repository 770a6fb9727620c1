//! Connections that one caller has to itself: [`Exclusive`], and the pool they come from.

use std::{fmt, sync::Arc};

use deadpool::managed::{self, Object, PoolError, RecycleError, RecycleResult};
use deadpool_redis::{Metrics, Runtime};
use futures_util::FutureExt;
use redis::{
    Cmd, ConnectionAddr, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectError,
    exchange::{out_of_time, send},
    generation::Generation,
    service::Inner,
    shared::Shared,
};
use crate::{
    RedisCall, Reply,
    call::Request,
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

/// A connection that no other call uses, until it is dropped.
///
/// It is a [`ConnectionLike`], so all of the redis crate's commands, pipelines and scripts work on
/// it, with that crate's errors; [`call`](Self::call) takes a [`RedisCall`] and answers with ours.
/// There is no response timeout: a blocking read may block. It ends with an error when the shared
/// connection to Redis is replaced, for whatever reason.
///
/// Leave it as you found it: a WATCH is undone and an open transaction costs the connection, but a
/// SELECT would be the next user's.
///
/// # Cancel safety
///
/// Dropped in the middle of a call, it is closed and not used again, so a blocking read takes
/// nothing once its caller is gone.
pub struct Exclusive {
    held: Object<Manager>,
    in_flight: bool,
    home: Arc<Inner>,
}

impl Exclusive {
    /// Sends a call and waits until its deadline, or without a limit if it has none.
    ///
    /// # Errors
    ///
    /// As those of [`Connection`](super::Connection#errors).
    pub async fn call(&mut self, call: &RedisCall) -> Result<Reply, Error> {
        self.in_flight = true;
        let sent = send(call.body(), &mut self.held.connection);
        let answer = match call.deadline() {
            // It stays in flight: the server may be at work on it.
            Some(deadline) => timeout_at(deadline, sent)
                .await
                .map_err(|_| out_of_time(call, Landed::Maybe))?,
            None => sent.await,
        };
        self.in_flight = false;
        answer.map(Reply::new).map_err(|refusal| {
            self.held.generation.note(&refusal.error);
            refusal.into_error(call)
        })
    }
}

impl ConnectionLike for Exclusive {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            self.in_flight = true;
            let answer = self.held.connection.send_packed_command(cmd).await;
            self.in_flight = false;
            self.note(answer.as_ref().map(std::slice::from_ref));
            answer
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            self.in_flight = true;
            let line = &mut self.held.connection;
            let answer = line.send_packed_commands(pipeline, offset, count).await;
            self.in_flight = false;
            self.note(answer.as_deref());
            answer
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.home.shared.options.database.into()
    }
}

impl Exclusive {
    fn note(&self, answer: Result<&[Value], &redis::RedisError>) {
        let generation = &self.held.generation;
        match answer {
            Ok(values) => values
                .iter()
                .for_each(|value| generation.note_answer(value)),
            Err(error) => generation.note(error),
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if self.in_flight {
            self.held.cut.cancel();
        }
        let meters = &self.home.shared.meters;
        meters.busy.dec();
        meters.idle.inc();
    }
}

impl fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive")
            .field("generation", &self.held.generation.number)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Exclusive connections, made when needed.
pub(super) struct Pool(managed::Pool<Manager>);

impl Pool {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, ConnectError> {
        // It is not asked to connect, so it needs no address.
        let nowhere = ConnectionAddr::Tcp(String::new(), 0);
        let recycler = deadpool_redis::Manager::new(nowhere)
            .map_err(|_| ConnectError::setting("exclusive connections", "cannot be made"))?;
        let manager = Manager {
            shared: Arc::clone(shared),
            recycler,
        };
        managed::Pool::builder(manager)
            .max_size(shared.options.pool_size)
            .wait_timeout(Some(shared.options.pool_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map(Self)
            .map_err(|_| ConnectError::NoRuntime)
    }

    pub(super) async fn take(&self, home: &Arc<Inner>) -> Result<Exclusive, Error> {
        // Nobody waits for a place while there is no Redis to use it on.
        home.shared.current()?;
        let held = self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            _ => Error::new(
                ErrorKind::PoolBusy,
                Verdict::new(Class::Transient, Landed::No),
            ),
        })?;
        let meters = &home.shared.meters;
        meters.idle.dec();
        meters.busy.inc();
        Ok(Exclusive {
            held,
            in_flight: false,
            home: Arc::clone(home),
        })
    }
}

/// Makes exclusive connections the way the shared ones are made, and lets deadpool-redis check them
/// when they are taken again.
pub(super) struct Manager {
    shared: Arc<Shared>,
    recycler: deadpool_redis::Manager,
}

/// One connection of the pool.
pub(super) struct Held {
    connection: MultiplexedConnection,
    generation: Arc<Generation>,
    cut: CancellationToken,
    shared: Arc<Shared>,
}

impl managed::Manager for Manager {
    type Type = Held;
    type Error = Error;

    async fn create(&self) -> Result<Held, Error> {
        // Before dialling: a connection that is older than it says would outlive a change of master.
        let generation = self.shared.current()?;
        let cut = generation.cut().child_token();
        // Boxed: it is large, and inside each call that may need an exclusive connection.
        let dialing = self
            .shared
            .dialer
            .dial(&generation.address, cut.clone(), || {});
        let connection = Box::pin(dialing).await.map_err(|trouble| {
            Error::new(ErrorKind::Connect, Verdict::new(Class::Outage, Landed::No))
                .with_cause(trouble.explain())
        })?;
        self.shared.meters.idle.inc();
        Ok(Held {
            connection,
            generation,
            cut,
            shared: Arc::clone(&self.shared),
        })
    }

    async fn recycle(&self, held: &mut Held, metrics: &Metrics) -> RecycleResult<Error> {
        if held.cut.is_cancelled() || held.generation.trouble().is_some() {
            return Err(RecycleError::message("of an older generation"));
        }
        let check = self.recycler.recycle(&mut held.connection, metrics);
        match timeout(self.shared.options.probe_timeout, check).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(RecycleError::message("not answering as it should")),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.cut.cancel();
        self.shared.meters.idle.dec();
    }
}

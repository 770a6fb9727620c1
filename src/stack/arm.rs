//! The whole line to one deployment: [`Arm`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use tower::{ServiceBuilder, retry::Retry};

use super::{BuildError, directory, recovery::Recovery, topology::Named};
use crate::{
    breaker::{Breaker, BreakerHandle, BreakerLayer, BreakerOptions},
    connect::{ConnectOptions, Connection},
    job::PROCEDURE,
    metrics::{Metrics, TargetMetrics, WorkerMetrics},
    observe::{Observe, ObserveLayer},
    retry::{RetryLayer, RetryPolicy},
    sequence::{SequenceLayer, Write},
    spool::{Spool, SpoolLayer, SpoolOptions, Spooling},
};

/// The line of any call that is not an enqueue.
pub type CallLine = Observe<Retry<RetryPolicy, Breaker<Connection>>>;

/// A target that is open: a connection, a breaker and a spool that no other target has a part in.
pub(super) struct Arm {
    pub(super) name: Arc<str>,
    pub(super) enqueue: Spooling<Write>,
    pub(super) call: CallLine,
    /// For one who wants to know whether the breaker lets calls through again.
    pub(super) probe: Breaker<Connection>,
    pub(super) spool: Spool<Write>,
    pub(super) connection: Connection,
    pub(super) breaker: BreakerHandle,
    pub(super) recovery: Recovery,
    pub(super) metrics: TargetMetrics,
    pub(super) worker: WorkerMetrics,
}

/// What it takes to open one.
pub(super) struct Plan {
    pub(super) target: Named,
    pub(super) connection: ConnectOptions,
    pub(super) retry: RetryPolicy,
    pub(super) breaker: BreakerOptions,
    pub(super) spool: SpoolOptions,
    pub(super) metrics: Metrics,
    /// The directory that those of all targets are in, if there are several.
    pub(super) base: Option<PathBuf>,
}

impl Arm {
    /// Opens the spool, starts connecting, and sets what an earlier run left on its way.
    pub(super) async fn open(plan: Plan) -> Result<Self, BuildError> {
        let metrics = plan.metrics;
        let connection = Connection::open(plan.connection.with_metrics(metrics.connect))?;
        connection.check(AT_START).await?;
        let breaker = BreakerLayer::new(plan.breaker).with_metrics(metrics.breaker);
        let handle = breaker.handle();
        let recovery =
            Recovery::watch(connection.status(), connection.awakenings(), handle.clone());
        let is_shared = plan.spool.dir().is_shared();
        let options = plan
            .spool
            .with_metrics(metrics.spool)
            .with_recoveries(recovery.signal())
            .with_replicas(connection.replicas());
        let spool = Spool::open(options).await?;
        if let Some(base) = plan.base {
            // Before there is a way out: nothing has been sent yet.
            claim(&plan.target, base, &spool, is_shared).await?;
        }
        let retry = RetryLayer::new(plan.retry).with_metrics(metrics.retry);

        let enqueue = ServiceBuilder::new()
            .layer(SpoolLayer::new(&spool))
            .layer(SequenceLayer::new().with_procedure(PROCEDURE))
            .layer(retry.clone())
            .layer(breaker.clone())
            .service(connection.clone());
        let call = ServiceBuilder::new()
            .layer(ObserveLayer::new(metrics.call))
            .layer(retry)
            .layer(breaker.clone())
            .service(connection.clone());
        let probe = ServiceBuilder::new()
            .layer(breaker)
            .service(connection.clone());
        Ok(Self {
            name: plan.target.name.into(),
            enqueue,
            call,
            probe,
            spool,
            connection,
            breaker: handle,
            recovery,
            metrics: metrics.target,
            worker: metrics.worker,
        })
    }
}

/// For sentinels that do not answer at all: a start must not hang on them.
const AT_START: Duration = Duration::from_millis(500);

/// Makes sure that what waits in the spool is for this deployment, and notes that it is.
async fn claim(
    target: &Named,
    base: PathBuf,
    spool: &Spool<Write>,
    is_shared: bool,
) -> Result<(), BuildError> {
    let Named {
        name,
        identity,
        moved,
    } = target;
    let noted = directory::written_for(base.clone(), name.clone()).await?;
    if let Some(noted) = noted.as_ref().filter(|noted| !moved && !noted.is(identity)) {
        let stats = spool.stats();
        // Of a shared directory this is one slot, and others may hold records.
        let records = stats.records + stats.tail;
        if records > 0 || stats.parked > 0 || is_shared {
            // It has no way out, so there is nothing to wait for, and the error below is the one to tell.
            let _ = spool.shutdown(Duration::ZERO).await;
            return Err(BuildError::OtherDeployment {
                note: directory::note(&base, name),
                was: noted.to_string(),
                now: identity.to_string(),
                records,
                parked: stats.parked,
            });
        }
    }
    if noted.is_some_and(|noted| noted.equals(identity)) {
        return Ok(());
    }
    directory::write_for(base, name.clone(), identity.clone()).await
}

//! Settings in, a [`Seawall`] out: the one place that knows the order of the line.

use std::{ffi::OsString, sync::Arc, time::Duration};

use prometheus::Registry;
use tower::ServiceBuilder;

use super::{Inner, Seawall, recovery::Recovery, settings};
use crate::{
    breaker::{BreakerLayer, BreakerOptions},
    connect::{ConnectError, ConnectOptions, Connection},
    metrics::Metrics,
    observe::ObserveLayer,
    retry::{RetryLayer, RetryPolicy},
    sequence::SequenceLayer,
    spool::{OpenError, Spool, SpoolDir, SpoolLayer, SpoolOptions},
};

/// Settings of a [`Seawall`]. Made by [`Seawall::builder`], [`Seawall::from_url`] or
/// [`Seawall::from_env`].
///
/// # Default
///
/// Those of [`ConnectOptions`], [`RetryPolicy`], [`BreakerOptions`] and [`SpoolOptions`]; metrics are
/// counted and registered nowhere.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    pub(super) connection: ConnectOptions,
    pub(super) retry: RetryPolicy,
    pub(super) breaker: BreakerOptions,
    pub(super) spool: SpoolOptions,
    registry: Option<Registry>,
}

impl Builder {
    pub(super) fn new(url: &str, spool_dir: Option<SpoolDir>) -> Result<Self, BuildError> {
        settings::read(url, spool_dir, Vec::new())
    }

    pub(super) fn from_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BuildError> {
        settings::from_vars(vars)
    }

    pub(super) fn of(connection: ConnectOptions, spool_dir: SpoolDir) -> Self {
        Self {
            connection,
            retry: RetryPolicy::default(),
            breaker: BreakerOptions::default(),
            spool: SpoolOptions::new(spool_dir),
            registry: None,
        }
    }

    /// Changes how Redis is reached.
    pub fn connection(mut self, change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Self {
        self.connection = change(self.connection);
        self
    }

    /// Tries again by this policy, enqueues and calls alike.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Stops knocking by these rules.
    pub fn breaker(mut self, options: BreakerOptions) -> Self {
        self.breaker = options;
        self
    }

    /// Changes what the spool does and holds.
    pub fn spool(mut self, change: impl FnOnce(SpoolOptions) -> SpoolOptions) -> Self {
        self.spool = change(self.spool);
        self
    }

    /// Registers the metrics here. Default: nowhere.
    pub fn metrics(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Opens the spool, starts connecting, and sets what an earlier run left on its way.
    ///
    /// Redis need not be up: until it is, jobs go to disk. To find out at start-up, wait for
    /// [`Connection::wait_ready`].
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the spool's directory can't be opened, a setting is absurd, the registry has
    /// these metrics already, or the sentinels answer and know no master of this name. Sentinels that
    /// do not answer are waited for no longer than half a second, and are no error.
    pub async fn connect(self) -> Result<Seawall, BuildError> {
        let metrics = match &self.registry {
            Some(registry) => Metrics::register(registry)?,
            None => Metrics::default(),
        };
        let connection = Connection::open(self.connection.with_metrics(metrics.connect))?;
        connection.check(AT_START).await?;
        let breaker = BreakerLayer::new(self.breaker).with_metrics(metrics.breaker);
        let handle = breaker.handle();
        let recovery = Recovery::watch(connection.status(), handle.clone());
        let options = self
            .spool
            .with_metrics(metrics.spool)
            .with_recoveries(recovery.signal())
            .with_replicas(connection.replicas());
        let spool = Spool::open(options).await?;
        let retry = RetryLayer::new(self.retry).with_metrics(metrics.retry);

        let enqueue = ServiceBuilder::new()
            .layer(SpoolLayer::new(&spool))
            .layer(SequenceLayer::new())
            .layer(retry.clone())
            .layer(breaker.clone())
            .service(connection.clone());
        let call = ServiceBuilder::new()
            .layer(ObserveLayer::new(metrics.call))
            .layer(retry)
            .layer(breaker)
            .service(connection.clone());

        let inner = Inner {
            enqueue,
            call,
            spool,
            connection,
            breaker: handle,
            _recovery: recovery,
        };
        Ok(Seawall {
            inner: Arc::new(inner),
        })
    }
}

/// For sentinels that do not answer at all: a start must not hang on them.
const AT_START: Duration = Duration::from_millis(500);

/// Why there is no [`Seawall`]. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL or a connection setting is wrong, or the sentinels know no master of this name.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// The spool's directory can't be opened.
    #[error("cannot open the spool")]
    Spool(#[from] OpenError),
    /// The metrics can't be registered.
    #[error("cannot register the metrics; see seawall::metrics for two seawalls in one process")]
    Metrics(#[from] prometheus::Error),
    /// A setting has a value that it can't have.
    #[error("setting {name}: {why}")]
    #[non_exhaustive]
    Setting {
        /// The setting, as the URL or the environment names it.
        name: String,
        /// What it must be.
        why: String,
    },
    /// A setting that must be there is not.
    #[error("setting {name} is missing: {why}")]
    #[non_exhaustive]
    Missing {
        /// The setting.
        name: &'static str,
        /// What it is for, and how to give it.
        why: &'static str,
    },
}

//! Settings in, a [`Seawall`] out: the one place that knows the order of the line.

use std::{ffi::OsString, io, path::PathBuf, sync::Arc};

use prometheus::Registry;

use super::{
    Seawall, Topology,
    arm::{Arm, Plan},
    arms::Arms,
    directory, settings,
    topology::Named,
};
use crate::{
    breaker::BreakerOptions,
    connect::{ConnectError, ConnectOptions},
    metrics::Metrics,
    retry::RetryPolicy,
    spool::{OpenError, SpoolDir, SpoolOptions},
};

/// Settings of a [`Seawall`]. Made by [`Seawall::builder`], [`Seawall::from_url`] or
/// [`Seawall::from_env`].
///
/// # Default
///
/// Those of [`ConnectOptions`], [`RetryPolicy`], [`BreakerOptions`] and [`SpoolOptions`], and of [`Topology`]
/// with several deployments; metrics are counted and registered nowhere.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    pub(super) topology: Topology,
    pub(super) targets: Vec<(Named, ConnectOptions)>,
    pub(super) retry: RetryPolicy,
    pub(super) breaker: BreakerOptions,
    pub(super) spool: SpoolOptions,
    registry: Option<Registry>,
}

impl Builder {
    pub(super) fn new(topology: Topology, spool_dir: Option<SpoolDir>) -> Result<Self, BuildError> {
        settings::read(topology, spool_dir, Vec::new())
    }

    pub(super) fn from_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BuildError> {
        settings::from_vars(vars)
    }

    /// With one of `connections` for each URL of `topology`.
    pub(super) fn of(
        topology: Topology,
        connections: Vec<ConnectOptions>,
        spool_dir: SpoolDir,
    ) -> Result<Self, BuildError> {
        topology.check()?;
        Ok(Self {
            targets: topology.targets()?.into_iter().zip(connections).collect(),
            topology,
            retry: RetryPolicy::default(),
            breaker: BreakerOptions::default(),
            spool: SpoolOptions::new(spool_dir),
            registry: None,
        })
    }

    /// Changes how Redis is reached: with several targets, each of them.
    pub fn connection(mut self, mut change: impl FnMut(ConnectOptions) -> ConnectOptions) -> Self {
        let targets = self.targets.into_iter();
        self.targets = targets
            .map(|(target, options)| (target, change(options)))
            .collect();
        self
    }

    /// Changes how one of several targets is reached.
    ///
    /// # Errors
    ///
    /// [`BuildError::Topology`] if there is none of this name.
    pub fn connection_of(
        mut self,
        name: &str,
        change: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, BuildError> {
        let mut targets = self.targets.iter_mut();
        let Some((_, options)) = targets.find(|(target, _)| target.name == name) else {
            let why = format!("there is no target {name:?}");
            return Err(BuildError::Topology { why });
        };
        *options = change(options.clone());
        Ok(self)
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

    /// Changes what the spool does and holds: with several targets, that of each.
    pub fn spool(mut self, change: impl FnOnce(SpoolOptions) -> SpoolOptions) -> Self {
        self.spool = change(self.spool);
        self
    }

    /// Registers the metrics here. Default: nowhere.
    ///
    /// With several targets each has all of them, with the label `target`.
    pub fn metrics(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Opens the spool, starts connecting, and sets what an earlier run left on its way.
    ///
    /// Redis need not be up: until it is, jobs go to disk. To find out at start-up, wait for
    /// [`Connection::wait_ready`](crate::connect::Connection::wait_ready).
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the spool's directory can't be opened, or is another topology's or another
    /// deployment's, a setting is absurd, the registry has these metrics already, or the sentinels answer
    /// and know no master of this name. Sentinels that do not answer are waited for no longer than half a
    /// second, and are no error.
    pub async fn connect(mut self) -> Result<Seawall, BuildError> {
        let targets = std::mem::take(&mut self.targets);
        let base = self.spool.dir().path().to_owned();
        let mut arms = Vec::new();
        if self.topology.failover {
            let names: Vec<_> = targets.iter().map(|(target, _)| target.clone()).collect();
            directory::prepare(base.clone(), &names).await?;
            for (target, connection) in targets {
                let name = target.name.clone();
                let arm = self.open(target, connection, Some(base.clone())).await;
                arms.push(arm.map_err(|error| error.of_target(name))?);
            }
        } else {
            directory::check_single(base).await?;
            for (target, connection) in targets {
                arms.push(self.open(target, connection, None).await?);
            }
        }
        Ok(Seawall {
            arms: Arc::new(Arms::new(arms, &self.topology)),
        })
    }

    async fn open(
        &self,
        target: Named,
        connection: ConnectOptions,
        base: Option<PathBuf>,
    ) -> Result<Arm, BuildError> {
        let metrics = match (&self.registry, &base) {
            (Some(registry), None) => Metrics::register(registry)?,
            (Some(registry), Some(_)) => Metrics::register_for(registry, &target.name)?,
            (None, _) => Metrics::default(),
        };
        let spool = self.spool.clone();
        let spool = match base {
            Some(_) => {
                let dir = spool.dir().join(&target.name);
                spool.with_dir(dir)
            }
            None => spool,
        };
        let plan = Plan {
            target,
            connection,
            retry: self.retry.clone(),
            breaker: self.breaker.clone(),
            spool,
            metrics,
            base,
        };
        Arm::open(plan).await
    }
}

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
    /// The targets, or the rules for going from one to another, make no sense.
    #[error("the topology is wrong: {why}")]
    #[non_exhaustive]
    Topology {
        /// What to change.
        why: String,
    },
    /// One of several targets can't be opened; the source says why.
    #[error("target {target}")]
    #[non_exhaustive]
    Target {
        /// Its name, or which of the URLs it is.
        target: String,
        /// Why not.
        source: Box<Self>,
    },
    /// The spool of a target holds records, and was written for another deployment than its URL leads to now.
    /// Nothing in it was changed, or sent.
    #[error(
        "its spool was written for {was} and its URL leads to {now}, {records} records wait there and {parked} are \
         parked: if this Redis has moved, say so with Topology::with_moved, or remove {note:?}; if it is \
         another one, give it a name of its own"
    )]
    #[non_exhaustive]
    OtherDeployment {
        /// Where it is noted what it was written for.
        note: PathBuf,
        /// What that is, without user and password.
        was: String,
        /// What the URL leads to.
        now: String,
        /// How many records wait in it.
        records: u64,
        /// How many are parked.
        parked: u64,
    },
    /// The directory for the spools of several targets is the spool of a single deployment. Nothing was touched.
    #[error(
        "{path:?} is the spool of a single deployment: with no process on it, move all that is in it to a new \
         directory {name} in it if that target is the one, or choose another directory"
    )]
    #[non_exhaustive]
    SingleSpool {
        /// The directory.
        path: PathBuf,
        /// The name of the first target.
        name: String,
    },
    /// The directory for the spool of a single deployment holds those of several. Nothing was touched.
    #[error(
        "{path:?} holds the spools of the targets {targets}: name the same targets with Topology::failover, or \
         choose another directory, such as that of one of them"
    )]
    #[non_exhaustive]
    TargetSpools {
        /// The directory.
        path: PathBuf,
        /// Their names.
        targets: String,
    },
    /// The operating system refused something about the directory of several targets; the source says why.
    #[error("cannot {action} {path:?}")]
    #[non_exhaustive]
    Directory {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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

impl BuildError {
    pub(super) fn of_target(self, target: String) -> Self {
        Self::Target {
            target,
            source: Box::new(self),
        }
    }
}

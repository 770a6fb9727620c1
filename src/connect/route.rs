//! How the server to connect to is found: [`Route`], and the [`Finder`] that goes it.

use std::{future::pending, sync::Arc};

use super::{
    deployment::{Address, Deployment},
    generation::Generation,
    options::ConnectOptions,
    sentinel::{Search, Sentinels},
    shared::Shared,
    status::Trouble,
    supervisor::open_at,
};

/// Where to look.
pub(super) enum Route {
    Fixed(Address),
    Sentinel(Arc<Sentinels>),
}

impl Route {
    /// `None` for a cluster, to each node of which there is one.
    pub(super) fn of(options: &ConnectOptions) -> Option<Self> {
        match &options.deployment {
            Deployment::Standalone(address) => Some(Self::Fixed(address.clone())),
            Deployment::Sentinel(group) => Some(Self::Sentinel(Arc::new(Sentinels::new(
                group,
                options.sentinel_tls.unwrap_or(group.tls),
                options.sentinel_poll,
                options.replica_reads,
            )))),
            Deployment::Cluster(_) => None,
        }
    }
}

/// Makes the next generation.
pub(super) enum Finder<'a> {
    Fixed(&'a Shared, &'a Address),
    Sentinel(Search<'a>),
}

impl<'a> Finder<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        match &shared.route {
            Route::Fixed(address) => Self::Fixed(shared, address),
            Route::Sentinel(sentinels) => Self::Sentinel(Search::new(shared, sentinels)),
        }
    }

    /// A connection to a master, checked.
    pub(super) async fn find(&mut self) -> Result<Arc<Generation>, Trouble> {
        match self {
            Self::Fixed(shared, address) => open_at(shared, address).await,
            Self::Sentinel(search) => search.find().await,
        }
    }

    /// Waits for a better master than the one in use, and connects to it. Cancel safe.
    pub(super) async fn better(&mut self) -> Arc<Generation> {
        match self {
            Self::Fixed(..) => pending().await,
            Self::Sentinel(search) => search.better().await,
        }
    }

    /// The connection in use was given up.
    pub(super) fn lost(&mut self) {
        if let Self::Sentinel(search) = self {
            search.lost();
        }
    }

    /// Waits for a reason to try again at once. Cancel safe.
    pub(super) async fn news(&self) {
        match self {
            Self::Fixed(..) => pending().await,
            Self::Sentinel(search) => search.news().await,
        }
    }
}

//! What there is to connect to: [`Deployment`], and where each server is.

use std::{fmt, path::PathBuf, sync::Arc};

/// The servers that a URL names, and how the one to use is found among them.
#[derive(Clone, Debug)]
pub(super) enum Deployment {
    /// It is always at the same address.
    Standalone(Address),
    /// Sentinels know where it is.
    Sentinel(SentinelGroup),
    /// Many share the keys; these are the first to be asked which.
    Cluster(Vec<Address>),
}

impl Deployment {
    /// The hosts that must be able to have a certificate.
    #[cfg(feature = "tls")]
    pub(super) fn tls_hosts(&self) -> impl Iterator<Item = &str> {
        let nodes = match self {
            Self::Standalone(address) => std::slice::from_ref(address),
            Self::Cluster(nodes) => nodes,
            // Theirs come from the sentinels.
            Self::Sentinel(_) => &[],
        };
        nodes.iter().filter_map(|address| match address {
            Address::Tls(endpoint) => Some(&*endpoint.host),
            _ => None,
        })
    }
}

/// What the log shows: no part of it is a secret.
impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone(address) => address.fmt(f),
            Self::Sentinel(group) => {
                list(f, &group.seeds)?;
                write!(f, "/{}", group.master)
            }
            Self::Cluster(nodes) => list(f, nodes),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(at, item)| {
        let comma = if at == 0 { "" } else { "," };
        write!(f, "{comma}{item}")
    })
}

/// The sentinels to ask first, and whom to ask them for.
#[derive(Clone, Debug)]
pub(super) struct SentinelGroup {
    pub(super) seeds: Vec<Endpoint>,
    /// What the sentinels call the master.
    pub(super) master: Arc<str>,
    /// Whether the master and its replicas speak TLS.
    pub(super) tls: bool,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The address of a server there.
    pub(super) fn address(self, tls: bool) -> Address {
        if tls {
            Address::Tls(self)
        } else {
            Address::Tcp(self)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(Endpoint),
    Tls(Endpoint),
    Unix { path: PathBuf },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) | Self::Tls(endpoint) => endpoint.fmt(f),
            Self::Unix { path } => write!(f, "{}", path.display()),
        }
    }
}

/// A text that no `Debug` output shows.
#[derive(Clone)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

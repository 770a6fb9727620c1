//! Who can't talk to whom: partitions of a set behind proxies.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use super::{Member, SentinelSet};
use crate::chaos::{Fault, FaultProxy};

/// # Partitions
///
/// For a set that is [`proxied`](super::SentinelSetBuilder::proxied); else these panic. What is
/// cut falls silent ([`Fault::BlackHole`]). They add up until [`heal`](SentinelSet::heal), which
/// resets what fell silent, so that both sides notice at once.
///
/// A *client* here is whoever connects from 127.0.0.1, as all do that don't ask for another
/// address: all of them are on the same side. To see the other side, ask
/// [`node`](SentinelSet::node) and [`sentinel`](SentinelSet::sentinel), which no partition cuts.
///
/// Sentinels do not promote a replica that lost its primary long before they did: more than ten
/// times [`down_after`](super::SentinelSetBuilder::down_after), counted from when it noticed,
/// which takes five seconds of silence.
impl SentinelSet {
    /// Cuts a node from all other nodes. As a primary it goes on for clients and sentinels, and no
    /// replica gets what it acknowledges.
    ///
    /// # Panics
    ///
    /// There are fewer nodes, or no proxies.
    pub fn cut_replication(&self, node: usize) {
        let lone = &self.nodes[node];
        for (_, other) in self.nodes.iter().enumerate().filter(|(at, _)| *at != node) {
            part(lone, other);
        }
    }

    /// Cuts a node from all other nodes and from the sentinels. Clients still reach all of them.
    ///
    /// # Panics
    ///
    /// There are fewer nodes, or no proxies.
    pub fn isolate(&self, node: usize) {
        self.cut_replication(node);
        for sentinel in &self.sentinels {
            part(&self.nodes[node], sentinel);
        }
    }

    /// [`isolate`](Self::isolate)s the primary, and says which node it is: the sentinels promote
    /// another, and clients that have not heard of it go on with this one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if no majority of the sentinels names one.
    ///
    /// # Panics
    ///
    /// There are no proxies.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, nothing is cut.
    pub async fn isolate_primary(&self) -> io::Result<usize> {
        let primary = self.primary_or_error().await?;
        self.isolate(primary);
        Ok(primary)
    }

    /// A split brain: the primary and all clients on one side, all the rest on the other. Says
    /// which node is the primary that clients still see.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if no majority of the sentinels names one.
    ///
    /// # Panics
    ///
    /// There are no proxies.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, nothing is cut.
    pub async fn split_brain(&self) -> io::Result<usize> {
        let primary = self.primary_or_error().await?;
        self.leave_with_clients(primary);
        Ok(primary)
    }

    /// A node and all clients on one side, all the rest on the other.
    ///
    /// # Panics
    ///
    /// There are fewer nodes, or no proxies.
    pub fn leave_with_clients(&self, node: usize) {
        self.isolate(node);
        self.cut_clients_from_sentinels();
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut_clients_from(other);
        }
    }

    /// Cuts a node from everybody, clients included.
    ///
    /// # Panics
    ///
    /// There are fewer nodes, or no proxies.
    pub fn cut_off(&self, node: usize) {
        self.isolate(node);
        self.cut_clients_from(node);
    }

    /// Cuts clients from a node.
    ///
    /// # Panics
    ///
    /// There are fewer nodes, or no proxies.
    pub fn cut_clients_from(&self, node: usize) {
        self.nodes[node]
            .proxied()
            .set_from(CLIENTS, Fault::BlackHole);
    }

    /// Cuts clients from all sentinels.
    ///
    /// # Panics
    ///
    /// There are no proxies.
    pub fn cut_clients_from_sentinels(&self) {
        for sentinel in &self.sentinels {
            sentinel.proxied().set_from(CLIENTS, Fault::BlackHole);
        }
    }

    /// Ends every partition and every other fault of the proxies; does nothing if there are none.
    /// Processes that are down or frozen stay so: [`revive`](Self::revive).
    pub fn heal(&self) {
        let members = || self.nodes.iter().chain(&self.sentinels);
        let sources = || members().map(Member::ip).chain([CLIENTS]);
        for proxy in members().filter_map(|member| member.proxy.as_ref()) {
            for source in sources() {
                if proxy.fault_for(source) == Fault::BlackHole {
                    proxy.cut_from(source);
                }
            }
            proxy.heal();
        }
    }

    /// The proxy in front of a node, for other faults than partitions.
    ///
    /// # Panics
    ///
    /// There are fewer nodes.
    #[must_use]
    pub fn node_proxy(&self, node: usize) -> Option<&FaultProxy> {
        self.nodes[node].proxy.as_ref()
    }

    /// The proxy in front of a sentinel.
    ///
    /// # Panics
    ///
    /// There are fewer sentinels.
    #[must_use]
    pub fn sentinel_proxy(&self, sentinel: usize) -> Option<&FaultProxy> {
        self.sentinels[sentinel].proxy.as_ref()
    }
}

/// Neither hears of the other, whoever began to talk.
fn part(one: &Member, other: &Member) {
    one.proxied().set_from(other.ip(), Fault::BlackHole);
    other.proxied().set_from(one.ip(), Fault::BlackHole);
}

impl Member {
    /// Where it connects from.
    fn ip(&self) -> IpAddr {
        self.server.addr().ip()
    }

    fn proxied(&self) -> &FaultProxy {
        let proxy = self.proxy.as_ref();
        proxy.expect("only a set that was built with `proxied` can be partitioned")
    }
}

/// Where whoever does not ask for another address connects from.
pub(in crate::chaos) const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

//! Who serves which slot, and the connections there are: a value that is replaced, never changed.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::deployment::Endpoint,
    map::{Range, View},
};
use crate::call::slot::SLOTS;

/// What is known of a cluster. `S` is a connection to one node, or what stands for it in a test.
pub(super) struct Layout<S> {
    /// For each slot the place of its primary in `nodes`.
    owners: Vec<u16>,
    nodes: Vec<Node<S>>,
    ranges: Vec<Range>,
}

/// One primary.
#[derive(Clone)]
pub(super) struct Node<S> {
    pub(super) endpoint: Endpoint,
    pub(super) server: S,
    /// When a redirection named it last, or the map.
    learnt: Instant,
}

/// In the place of a node: the slot has none.
const NOBODY: u16 = u16::MAX;

/// How long a node is kept that only a redirection has named: one that gets its first slot is in no
/// map yet.
const KEPT: Duration = Duration::from_secs(30);

impl<S: Clone> Layout<S> {
    pub(super) fn empty() -> Self {
        Self {
            owners: vec![NOBODY; usize::from(SLOTS)],
            nodes: Vec::new(),
            ranges: Vec::new(),
        }
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Node<S>> {
        self.nodes
            .get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub(super) fn at(&self, endpoint: &Endpoint) -> Option<&Node<S>> {
        self.nodes.iter().find(|node| node.endpoint == *endpoint)
    }

    /// Those that serve slots.
    pub(super) fn primaries(&self) -> Vec<&Node<S>> {
        let mut serving = vec![false; self.nodes.len()];
        for owner in &self.owners {
            if let Some(serving) = serving.get_mut(usize::from(*owner)) {
                *serving = true;
            }
        }
        let nodes = self.nodes.iter().zip(serving);
        nodes
            .filter_map(|(node, serves)| serves.then_some(node))
            .collect()
    }

    /// All there are, also those that serve no slot yet.
    pub(super) fn nodes(&self) -> &[Node<S>] {
        &self.nodes
    }

    /// Where anybody of the cluster was, replicas included, when it was last heard of.
    pub(super) fn known(&self) -> impl Iterator<Item = &Endpoint> {
        self.ranges
            .iter()
            .flat_map(|range| range.replicas.iter().chain([&range.primary]))
            .chain(self.nodes.iter().map(|node| &node.endpoint))
    }

    /// Whether each slot has a primary for which `is_up` holds.
    pub(super) fn is_whole(&self, is_up: impl Fn(&S) -> bool) -> bool {
        let up: Vec<_> = self.nodes.iter().map(|node| is_up(&node.server)).collect();
        self.owners
            .iter()
            .all(|owner| up.get(usize::from(*owner)) == Some(&true))
    }

    /// The layout by this map, with the connections there are. `open` makes one to a new node.
    pub(super) fn by(
        &self,
        view: &View,
        now: Instant,
        mut open: impl FnMut(&Endpoint) -> Option<S>,
    ) -> Self {
        let mut next = Self {
            owners: vec![NOBODY; usize::from(SLOTS)],
            nodes: Vec::new(),
            ranges: view.ranges.clone(),
        };
        for range in &view.ranges {
            let owner = next.take(&range.primary, now, |endpoint| {
                let known = self.at(endpoint).map(|node| node.server.clone());
                known.or_else(|| open(endpoint))
            });
            next.owners[usize::from(range.first)..=usize::from(range.last)].fill(owner);
        }
        for node in &self.nodes {
            let is_recent = now.saturating_duration_since(node.learnt) < KEPT;
            if is_recent && next.at(&node.endpoint).is_none() && !self.had(&node.endpoint) {
                next.nodes.push(node.clone());
            }
        }
        next
    }

    /// As it is, with what a redirection said: that a node exists, and perhaps that a slot is its own.
    pub(super) fn with(
        &self,
        endpoint: &Endpoint,
        slot: Option<u16>,
        now: Instant,
        open: impl FnMut(&Endpoint) -> Option<S>,
    ) -> Self {
        let mut next = Self {
            owners: self.owners.clone(),
            nodes: self.nodes.clone(),
            ranges: self.ranges.clone(),
        };
        let node = next.take(endpoint, now, open);
        if let Some(owner) = slot.and_then(|slot| next.owners.get_mut(usize::from(slot))) {
            *owner = node;
        }
        next
    }

    /// Whether the map has named it: one that the map names no more has left.
    fn had(&self, endpoint: &Endpoint) -> bool {
        self.ranges.iter().any(|range| range.primary == *endpoint)
    }

    fn take(
        &mut self,
        endpoint: &Endpoint,
        now: Instant,
        mut open: impl FnMut(&Endpoint) -> Option<S>,
    ) -> u16 {
        let at = self
            .nodes
            .iter()
            .position(|node| node.endpoint == *endpoint);
        if let Some(at) = at {
            self.nodes[at].learnt = now;
            return u16::try_from(at).unwrap_or(NOBODY);
        }
        if self.nodes.len() >= MOST_NODES {
            return NOBODY;
        }
        let Some(server) = open(endpoint) else {
            return NOBODY;
        };
        self.nodes.push(Node {
            endpoint: endpoint.clone(),
            server,
            learnt: now,
        });
        u16::try_from(self.nodes.len() - 1).unwrap_or(NOBODY)
    }
}

/// More than Redis recommends for a cluster.
const MOST_NODES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    fn view(ranges: &[(u16, u16, u16)]) -> View {
        let range = |(first, last, port): &(u16, u16, u16)| Range {
            first: *first,
            last: *last,
            primary: at(*port),
            replicas: vec![at(port + 100)],
        };
        View {
            ranges: ranges.iter().map(range).collect(),
            serves: true,
        }
    }

    /// A connection is the port that it was opened to, and how many there were before.
    fn open(count: &mut u16) -> impl FnMut(&Endpoint) -> Option<(u16, u16)> {
        |endpoint| {
            *count += 1;
            Some((endpoint.port, *count))
        }
    }

    fn owner(layout: &Layout<(u16, u16)>, slot: u16) -> Option<(u16, u16)> {
        layout.owner(slot).map(|node| node.server)
    }

    #[test]
    fn a_node_that_stays_keeps_its_connection() {
        let (now, mut opened) = (Instant::now(), 0);
        let first = view(&[(0, 9, 1), (10, 16_383, 2)]);
        let layout = Layout::empty().by(&first, now, open(&mut opened));
        assert_eq!(owner(&layout, 9), Some((1, 1)));
        assert_eq!(owner(&layout, 10), Some((2, 2)));
        assert!(layout.is_whole(|_| true) && !layout.is_whole(|server| server.0 == 1));
        // 1 has failed over to 3.
        let second = view(&[(0, 9, 3), (10, 16_383, 2)]);
        let layout = layout.by(&second, now, open(&mut opened));
        assert_eq!(owner(&layout, 9), Some((3, 3)));
        assert_eq!(owner(&layout, 10), Some((2, 2)));
        assert_eq!(layout.nodes().len(), 2, "who has left is let go");
    }

    #[test]
    fn a_slot_without_a_node_is_nobodys() {
        let layout = Layout::empty().by(&view(&[(0, 9, 1)]), Instant::now(), open(&mut 0));
        assert_eq!(owner(&layout, 10), None);
        assert!(!layout.is_whole(|_| true));
        assert!(owner(&layout, SLOTS).is_none());
    }

    #[test]
    fn a_redirection_names_a_node_that_the_map_has_not() {
        let (now, mut opened) = (Instant::now(), 0);
        let map = view(&[(0, 16_383, 1)]);
        let layout = Layout::empty().by(&map, now, open(&mut opened));
        let asked = layout.with(&at(2), None, now, open(&mut opened));
        assert_eq!(owner(&asked, 7), Some((1, 1)));
        assert_eq!(asked.at(&at(2)).map(|node| node.server), Some((2, 2)));
        assert_eq!(asked.primaries().len(), 1);
        let moved = asked.with(&at(2), Some(7), now, open(&mut opened));
        assert_eq!(owner(&moved, 7), Some((2, 2)));
        assert_eq!(owner(&moved, 8), Some((1, 1)));
        // The map is behind: the node stays for a while, and no longer.
        let soon = moved.by(&map, now + KEPT / 2, open(&mut opened));
        assert_eq!(soon.nodes().len(), 2);
        let late = soon.by(&map, now + KEPT, open(&mut opened));
        assert_eq!(late.nodes().len(), 1);
        assert_eq!(opened, 2);
    }
}

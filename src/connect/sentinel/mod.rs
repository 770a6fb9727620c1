//! Sentinel: who is asked, what is believed of the answers, and when the master is left for another.
//!
//! There is a small connection to each sentinel that is known (`link`). It asks once a second, and at
//! once when `+switch-master` is announced or a search wants to know. What was said last is put
//! together (`beliefs`), and two read it there: the `search` for a connection when there is none,
//! and the watch for a better master while there is one. Neither believes a sentinel: a master is one
//! that says so itself, on the connection that is going to be used.

mod answers;
mod beliefs;
mod link;
mod options;
mod search;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use self::{answers::Candidate, beliefs::Beliefs};
pub(super) use self::{link::keep, search::Search};
use super::deployment::{Endpoint, SentinelGroup};

/// What the links, the search and whoever asks for the state of things share.
pub(super) struct Sentinels {
    master: Arc<str>,
    tls: bool,
    sentinel_tls: bool,
    poll: Duration,
    beliefs: watch::Sender<Beliefs>,
    replicas: watch::Sender<Vec<Endpoint>>,
    wants_replicas: bool,
    round: watch::Sender<u64>,
}

impl Sentinels {
    pub(super) fn new(
        group: &SentinelGroup,
        sentinel_tls: bool,
        poll: Duration,
        wants_replicas: bool,
    ) -> Self {
        Self {
            master: Arc::clone(&group.master),
            tls: group.tls,
            sentinel_tls,
            poll,
            beliefs: watch::Sender::new(Beliefs::new(&group.seeds)),
            replicas: watch::Sender::new(Vec::new()),
            wants_replicas,
            round: watch::Sender::new(0),
        }
    }

    /// Has all sentinels asked at once, and says in which round they answer.
    fn ask_all(&self) -> u64 {
        self.round.send_modify(|round| *round += 1);
        *self.round.borrow()
    }

    /// Waits until a sentinel has named the master, or all have been heard.
    ///
    /// Answers the names that they know instead, if all who answered agree that there is no such
    /// master. Cancel safe.
    pub(super) async fn other_names(&self) -> Option<Vec<Arc<str>>> {
        const FIRST: u64 = 1;
        let mut beliefs = self.beliefs.subscribe();
        let heard = beliefs
            .wait_for(|beliefs| beliefs.is_complete(FIRST) || beliefs.silence(0).is_none())
            .await;
        drop(heard);
        self.unknown_master()
    }

    /// As [`other_names`](Self::other_names), by what has been said so far.
    pub(super) fn unknown_master(&self) -> Option<Vec<Arc<str>>> {
        let beliefs = self.beliefs.borrow();
        let is_unknown = beliefs.silence(0) == Some(super::Trouble::UnknownMaster);
        is_unknown.then(|| beliefs.other_names())
    }

    /// The replicas that the sentinels call healthy, if anybody wants to know.
    pub(super) fn replicas(&self) -> watch::Receiver<Vec<Endpoint>> {
        self.replicas.subscribe()
    }

    /// Whether the master and its replicas speak TLS.
    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    /// What the sentinels call the master.
    pub(super) fn master(&self) -> &Arc<str> {
        &self.master
    }
}

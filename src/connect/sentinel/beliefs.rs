//! What the sentinels have said, and what to make of it: pure.

use std::sync::Arc;

use super::answers::{Candidate, Peer, Said};
use crate::connect::{deployment::Endpoint, status::Trouble};

/// The sentinels that are known, each with the last thing it said.
///
/// Questions are numbered in *rounds*: a search begins one, and is interested in what was said since.
#[derive(Clone, Debug)]
pub(in crate::connect) struct Beliefs {
    known: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    at: Endpoint,
    id: Option<Arc<str>>,
    is_seed: bool,
    said: Option<Said>,
    round: u64,
}

impl Known {
    fn names(&self) -> Option<&Candidate> {
        match &self.said {
            Some(Said::Master(candidate)) => Some(candidate),
            _ => None,
        }
    }
}

impl Beliefs {
    pub(super) fn new(seeds: &[Endpoint]) -> Self {
        let seed = |at: &Endpoint| Known {
            at: at.clone(),
            id: None,
            is_seed: true,
            said: None,
            round: 0,
        };
        Self {
            known: seeds.iter().map(seed).collect(),
        }
    }

    /// Where the sentinels are.
    pub(super) fn sentinels(&self) -> impl Iterator<Item = &Endpoint> {
        self.known.iter().map(|known| &known.at)
    }

    /// How many answer, and how many do not.
    pub(super) fn count(&self) -> (usize, usize) {
        let failed = |known: &&Known| matches!(known.said, Some(Said::Failed(_)));
        let said = self.known.iter().filter(|known| known.said.is_some());
        let silent = said.clone().filter(failed).count();
        (said.count() - silent, silent)
    }

    /// Notes what a sentinel has said in this round; whether that is news to anybody.
    pub(super) fn hear(&mut self, from: &Endpoint, said: Said, round: u64) -> bool {
        let Some(known) = self.known.iter_mut().find(|known| known.at == *from) else {
            return false;
        };
        let is_news = known.round < round || known.said.as_ref() != Some(&said);
        known.said = Some(said);
        known.round = known.round.max(round);
        is_news
    }

    /// Notes who the sentinel at this address is; whether another one turned out to be the same.
    pub(super) fn identify(&mut self, at: &Endpoint, id: &Arc<str>) -> bool {
        if let Some(known) = self.known.iter_mut().find(|known| known.at == *at) {
            known.id = Some(Arc::clone(id));
        }
        let before = self.known.len();
        // A seed by its name, learnt by its number.
        self.known
            .retain(|known| known.is_seed || known.at == *at || known.id.as_ref() != Some(id));
        self.known.len() != before
    }

    /// Adds sentinels that another one has told of; whether any was new.
    pub(super) fn learn(&mut self, peers: Vec<Peer>) -> bool {
        let mut is_news = false;
        for Peer { at, id } in peers {
            let same = |known: &Known| known.at == at || (id.is_some() && known.id == id);
            if self.known.iter().any(same) || !self.make_room() {
                continue;
            }
            self.known.push(Known {
                at,
                id,
                is_seed: false,
                said: None,
                round: 0,
            });
            is_news = true;
        }
        is_news
    }

    /// One that does not answer makes room for one that may.
    fn make_room(&mut self) -> bool {
        if self.known.len() < MOST_SENTINELS {
            return true;
        }
        let useless = |known: &Known| !known.is_seed && matches!(known.said, Some(Said::Failed(_)));
        let found = self.known.iter().position(useless);
        found.map(|at| self.known.remove(at)).is_some()
    }

    /// Whether all have answered, or failed to, since the round began.
    pub(super) fn is_complete(&self, round: u64) -> bool {
        self.known.iter().all(|known| known.round >= round)
    }

    /// The masters named since the round began: the latest first, and of those the most often named.
    pub(super) fn candidates(&self, round: u64) -> Vec<Candidate> {
        let named = self.known.iter().filter(|known| known.round >= round);
        let mut candidates: Vec<(usize, Candidate)> = Vec::new();
        for candidate in named.filter_map(Known::names) {
            match candidates.iter_mut().find(|(_, seen)| seen == candidate) {
                Some((votes, _)) => *votes += 1,
                None => candidates.push((1, candidate.clone())),
            }
        }
        candidates.sort_by(|(votes, candidate), (others, other)| {
            (other.epoch, others).cmp(&(candidate.epoch, votes))
        });
        candidates
            .into_iter()
            .map(|(_, candidate)| candidate)
            .collect()
    }

    /// The epoch in which the sentinels have made this one the master, if any names it.
    pub(super) fn epoch_of(&self, at: &Endpoint) -> Option<u64> {
        let named = self.known.iter().filter_map(Known::names);
        named
            .filter(|candidate| candidate.at == *at)
            .map(|candidate| candidate.epoch)
            .max()
    }

    /// A master to be preferred to the one in use, if there is one.
    ///
    /// A later epoch wins. The same epoch can only mean another name for the same server, or a
    /// sentinel that is not of the same group, as long as somebody names the one in use; and an
    /// earlier one a sentinel that has not heard yet, unless most of them say so: theirs was reset.
    pub(super) fn better_than(&self, current: &Candidate) -> Option<Candidate> {
        let best = self.candidates(0).into_iter().next()?;
        if best.at == current.at || best.epoch > current.epoch {
            return Some(best).filter(|best| best.at != current.at);
        }
        let in_use_is_named = self.epoch_of(&current.at).is_some();
        let votes = self
            .known
            .iter()
            .filter(|known| known.names() == Some(&best));
        let most = votes.count() * 2 > self.known.len();
        (!in_use_is_named && (best.epoch == current.epoch || most)).then_some(best)
    }

    /// Why no master was named since the round began. `None` if one was.
    pub(super) fn silence(&self, round: u64) -> Option<Trouble> {
        let mut trouble = Trouble::SentinelsUnreachable;
        for known in self.known.iter().filter(|known| known.round >= round) {
            match &known.said {
                Some(Said::Master(_)) => return None,
                Some(Said::Unknown(_)) => trouble = Trouble::UnknownMaster,
                Some(Said::Failed(Trouble::SentinelCredentials))
                    if trouble == Trouble::SentinelsUnreachable =>
                {
                    trouble = Trouble::SentinelCredentials;
                }
                _ => {}
            }
        }
        Some(trouble)
    }

    /// The names that the sentinels know instead of the one they were asked for.
    pub(super) fn other_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self
            .known
            .iter()
            .filter_map(|known| match &known.said {
                Some(Said::Unknown(names)) => Some(names),
                _ => None,
            })
            .flatten()
            .cloned()
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Groups have three or five; each costs a small connection.
const MOST_SENTINELS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    fn master(port: u16, epoch: u64) -> Said {
        Said::Master(candidate(port, epoch))
    }

    fn candidate(port: u16, epoch: u64) -> Candidate {
        Candidate {
            at: at(port),
            epoch,
        }
    }

    fn three(said: [Option<Said>; 3]) -> Beliefs {
        let mut beliefs = Beliefs::new(&[at(1), at(2), at(3)]);
        for (port, said) in (1..).zip(said) {
            if let Some(said) = said {
                beliefs.hear(&at(port), said, 1);
            }
        }
        beliefs
    }

    #[test]
    fn the_later_epoch_comes_first_and_then_the_more_named() {
        let beliefs = three([
            Some(master(10, 4)),
            Some(master(11, 5)),
            Some(master(10, 4)),
        ]);
        assert_eq!(beliefs.candidates(1), [candidate(11, 5), candidate(10, 4)]);
        let beliefs = three([
            Some(master(12, 4)),
            Some(master(10, 4)),
            Some(master(10, 4)),
        ]);
        assert_eq!(beliefs.candidates(1), [candidate(10, 4), candidate(12, 4)]);
        assert_eq!(beliefs.candidates(2), []);
    }

    #[test]
    fn a_master_is_left_for_a_later_one_only() {
        let current = candidate(10, 4);
        // The leader of a failover knows first.
        let beliefs = three([Some(master(10, 4)), Some(master(11, 5)), None]);
        assert_eq!(beliefs.better_than(&current), Some(candidate(11, 5)));
        // A sentinel that has not heard of the last failover, the only one to answer.
        let beliefs = three([Some(master(9, 3)), None, None]);
        assert_eq!(beliefs.better_than(&current), None);
        // One of another group, or one that uses another name for the same server.
        let beliefs = three([Some(master(12, 4)), Some(master(10, 4)), None]);
        assert_eq!(beliefs.better_than(&current), None);
        // Nobody names the one in use.
        let beliefs = three([Some(master(12, 4)), None, None]);
        assert_eq!(beliefs.better_than(&current), Some(candidate(12, 4)));
        let beliefs = three([None, None, Some(Said::Failed(Trouble::Lost))]);
        assert_eq!(beliefs.better_than(&current), None);
    }

    #[test]
    fn sentinels_whose_epochs_were_reset_are_followed_once_most_agree() {
        let current = candidate(10, 4);
        let beliefs = three([Some(master(11, 0)), Some(master(11, 0)), None]);
        assert_eq!(beliefs.better_than(&current), Some(candidate(11, 0)));
        let beliefs = three([
            Some(master(11, 0)),
            Some(master(11, 0)),
            Some(master(10, 4)),
        ]);
        assert_eq!(beliefs.better_than(&current), None);
    }

    #[test]
    fn a_round_is_complete_when_all_have_spoken() {
        let mut beliefs = three([Some(master(10, 1)), Some(master(10, 1)), None]);
        assert!(!beliefs.is_complete(1));
        assert!(beliefs.hear(&at(3), Said::Failed(Trouble::Lost), 1));
        assert!(beliefs.is_complete(1) && !beliefs.is_complete(2));
        assert_eq!(beliefs.count(), (2, 1));
        assert!(
            !beliefs.hear(&at(3), Said::Failed(Trouble::Lost), 1),
            "no news"
        );
    }

    #[test]
    fn silence_says_why() {
        let unknown = || Some(Said::Unknown(vec!["other".into()]));
        let denied = || Some(Said::Failed(Trouble::SentinelCredentials));
        for (said, trouble) in [
            ([None, None, None], Some(Trouble::SentinelsUnreachable)),
            ([denied(), None, None], Some(Trouble::SentinelCredentials)),
            ([denied(), unknown(), None], Some(Trouble::UnknownMaster)),
            ([unknown(), Some(master(1, 1)), None], None),
        ] {
            assert_eq!(three(said).silence(1), trouble);
        }
        assert_eq!(
            &*three([unknown(), unknown(), None]).other_names()[0],
            "other"
        );
    }

    #[test]
    fn learnt_sentinels_are_bounded_and_each_is_there_once() {
        let peer = |port: u16, id: &str| Peer {
            at: at(port),
            id: Some(id.into()),
        };
        let mut beliefs = Beliefs::new(&[at(1)]);
        assert!(beliefs.learn(vec![peer(2, "b"), peer(1, "a"), peer(3, "b")]));
        assert_eq!(beliefs.sentinels().count(), 2);
        // The seed is one that was learnt under another address.
        assert!(beliefs.learn(vec![peer(4, "seed")]));
        assert!(beliefs.identify(&at(1), &"seed".into()));
        assert_eq!(beliefs.sentinels().count(), 2);
        assert!(!beliefs.learn(vec![peer(4, "seed")]));
        for port in 100..200 {
            beliefs.learn(vec![peer(port, &port.to_string())]);
        }
        assert_eq!(beliefs.sentinels().count(), MOST_SENTINELS);
        beliefs.hear(&at(100), Said::Failed(Trouble::Lost), 1);
        assert!(beliefs.learn(vec![peer(300, "new")]), "takes its place");
        assert_eq!(beliefs.sentinels().count(), MOST_SENTINELS);
    }
}

//! What can be done to a server and to its network.

use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::chaos::Fault;

/// A kind of attack. The *primary* is the only server, the one that the sentinels name, or one of a
/// cluster's; the *network* is that between it and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attack {
    /// The primary is killed with SIGKILL, and started again in the end.
    Kill,
    /// The primary is stopped with SIGSTOP: its sockets stay open and nothing answers.
    Freeze,
    /// Another becomes the primary by command, while all are well.
    Failover,
    /// The primary is cut from its replicas for a while, so that it acknowledges what none of them
    /// has, and is then killed.
    LoseWrites,
    /// The primary is cut from all other servers, and clients still reach all of them.
    Isolate,
    /// The primary is cut from everybody, its clients included.
    CutOff,
    /// The primary and all clients are on one side, all other servers on the other.
    SplitBrain,
    /// A replica is killed with SIGKILL, and started again in the end.
    KillReplica,
    /// A replica is stopped with SIGSTOP.
    FreezeReplica,
    /// A slot of a cluster that is in use moves to another primary, key by key.
    MoveSlot,
    /// A sentinel is killed with SIGKILL, and started again in the end.
    KillSentinel,
    /// A sentinel is stopped with SIGSTOP.
    FreezeSentinel,
    /// The network: connections are reset.
    Reset,
    /// The network: new connections are refused.
    Refuse,
    /// The network: nothing passes, and what was sent is lost.
    BlackHole,
    /// The network: nothing passes, and what was sent arrives in the end.
    Stall,
    /// The network: the connections open now fall silent for ever.
    SilenceOld,
    /// The network: replies are lost, requests are not.
    DropReplies,
    /// The network: one reply is lost, with its connection.
    DropNextReply,
    /// The network: a request is cut in the middle.
    CutRequest,
    /// The network: a reply is cut in the middle.
    CutReply,
    /// The network: every round trip takes longer.
    Latency,
    /// The network: every round trip takes longer, each by another time.
    Jitter,
    /// The network: few bytes a second.
    Throttle,
    /// The network: new connections are served late.
    SlowAccept,
}

impl Attack {
    /// All there are.
    pub const ALL: [Self; 25] = [
        Self::Kill,
        Self::Freeze,
        Self::Failover,
        Self::LoseWrites,
        Self::Isolate,
        Self::CutOff,
        Self::SplitBrain,
        Self::KillReplica,
        Self::FreezeReplica,
        Self::MoveSlot,
        Self::KillSentinel,
        Self::FreezeSentinel,
        Self::Reset,
        Self::Refuse,
        Self::BlackHole,
        Self::Stall,
        Self::SilenceOld,
        Self::DropReplies,
        Self::DropNextReply,
        Self::CutRequest,
        Self::CutReply,
        Self::Latency,
        Self::Jitter,
        Self::Throttle,
        Self::SlowAccept,
    ];

    /// Those on the network: the ones that have a [`fault`](Self::fault).
    pub fn on_the_network() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|attack| attack.fault(0).is_some())
    }

    /// What to set at the proxy in front of the primary; `None` if this is nothing that a proxy
    /// does. The `draw` decides how long, how slow, or after how many bytes.
    #[must_use]
    pub fn fault(self, draw: u64) -> Option<Fault> {
        let mut draws = SmallRng::seed_from_u64(draw);
        let mut millis = |most| Duration::from_millis(draws.random_range(most / 10..=most));
        Some(match self {
            Self::Reset => Fault::Reset,
            Self::Refuse => Fault::Refuse,
            Self::BlackHole => Fault::BlackHole,
            Self::Stall => Fault::Stall,
            Self::SilenceOld => Fault::SilenceOld,
            Self::DropReplies => Fault::DropReplies,
            Self::DropNextReply => Fault::DropNextReply,
            Self::CutRequest => Fault::CutRequestAfter(draws.random_range(0..10_000)),
            Self::CutReply => Fault::CutReplyAfter(draws.random_range(0..1_000)),
            Self::Latency => Fault::Latency(millis(200)),
            Self::Jitter => Fault::Jitter {
                least: Duration::ZERO,
                most: millis(200),
                seed: draw,
            },
            Self::Throttle => Fault::Throttle(draws.random_range(5_000..200_000)),
            Self::SlowAccept => Fault::SlowAccept(millis(1_000)),
            _ => return None,
        })
    }

    /// Its name as a log has it: `lose-writes`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Failover => "failover",
            Self::LoseWrites => "lose-writes",
            Self::Isolate => "isolate",
            Self::CutOff => "cut-off",
            Self::SplitBrain => "split-brain",
            Self::KillReplica => "kill-replica",
            Self::FreezeReplica => "freeze-replica",
            Self::MoveSlot => "move-slot",
            Self::KillSentinel => "kill-sentinel",
            Self::FreezeSentinel => "freeze-sentinel",
            Self::Reset => "reset",
            Self::Refuse => "refuse",
            Self::BlackHole => "black-hole",
            Self::Stall => "stall",
            Self::SilenceOld => "silence-old",
            Self::DropReplies => "drop-replies",
            Self::DropNextReply => "drop-next-reply",
            Self::CutRequest => "cut-request",
            Self::CutReply => "cut-reply",
            Self::Latency => "latency",
            Self::Jitter => "jitter",
            Self::Throttle => "throttle",
            Self::SlowAccept => "slow-accept",
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_attack_is_listed_once_and_has_a_name_of_its_own() {
        let names: HashSet<&str> = Attack::ALL.iter().map(|attack| attack.name()).collect();
        assert_eq!(names.len(), Attack::ALL.len());
        let last = Attack::SlowAccept as usize;
        assert_eq!(last + 1, Attack::ALL.len(), "one was not added to ALL");
    }

    #[test]
    fn the_same_draw_gives_the_same_fault() {
        for attack in Attack::on_the_network() {
            assert_eq!(attack.fault(9), attack.fault(9), "{attack}");
        }
        assert_eq!(Attack::on_the_network().count(), 13);
        assert_ne!(Attack::Latency.fault(1), Attack::Latency.fault(2));
    }
}

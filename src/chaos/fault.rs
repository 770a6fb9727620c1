//! What a [`FaultProxy`](super::FaultProxy) does to the connections through it, decided without a
//! socket.

use std::time::Duration;

/// A way for a network to fail.
///
/// Whatever the fault, bytes never go missing in the middle of a stream that then goes on: TCP has
/// no gaps, and a client that paired the next reply with the wrong request would show a bug
/// that no network can cause. So what has lost a byte stays silent in that direction, also when
/// the fault is over, until it is closed, [cut](super::FaultProxy::cut) or reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Healthy: everything passes.
    #[default]
    None,
    /// New connections are refused (a real `ECONNREFUSED`: nobody listens). Open ones go on.
    Refuse,
    /// Open connections are reset; new ones are accepted and reset.
    Reset,
    /// Nothing passes either way and every socket stays open: open connections fall silent, new
    /// ones are accepted into silence. All of these stay silent when the fault is over; those
    /// made after it work.
    BlackHole,
    /// The connections open now fall silent for ever, new ones work: a firewall that forgot them.
    SilenceOld,
    /// Requests reach Redis and are executed; the replies are discarded. A connection that has
    /// lost one gets no other.
    DropReplies,
    /// Once: the next reply, on whichever connection, is discarded and its connection reset. Then
    /// healthy. The request was executed, and its sender can't know.
    DropNextReply,
    /// Once: this many more bytes of requests reach Redis, counted over all connections; the
    /// connection that sent the last of them is reset. Then healthy. Cuts a batch in the middle.
    CutRequestAfter(u64),
    /// Replies are held back this long, in order: every round trip takes so much longer.
    Latency(Duration),
}

/// Which connection: they are numbered as they are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// What to do with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Serve(ConnectionId),
    Reset,
}

/// What to do with some bytes that were just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Pass,
    /// Later by this much.
    Delay(Duration),
    Swallow,
    /// Let this many pass, then reset the connection.
    Cut(usize),
}

/// The fault in force and what it and those before it did to the open connections.
#[derive(Debug, Default)]
pub(super) struct Rules {
    fault: Fault,
    next: u64,
    /// Connections with a lower number than this are silent for ever.
    silent_below: u64,
    /// Connections with a lower number than this are to be reset.
    cut_below: u64,
}

impl Rules {
    pub(super) fn set(&mut self, fault: Fault) {
        if self.fault == Fault::BlackHole {
            self.silent_below = self.next;
        }
        match fault {
            Fault::SilenceOld => self.silent_below = self.next,
            Fault::Reset => self.cut(),
            _ => {}
        }
        self.fault = fault;
    }

    /// Resets the connections open now.
    pub(super) fn cut(&mut self) {
        self.cut_below = self.next;
    }

    pub(super) fn admit(&mut self) -> Admission {
        if self.fault == Fault::Reset {
            return Admission::Reset;
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        Admission::Serve(id)
    }

    /// For `length` bytes, more than none, on their way to Redis.
    pub(super) fn request(&mut self, id: ConnectionId, length: usize) -> Passage {
        if self.is_cut(id) {
            return Passage::Cut(0);
        }
        if self.is_silent(id) {
            return Passage::Swallow;
        }
        let Fault::CutRequestAfter(budget) = self.fault else {
            return Passage::Pass;
        };
        match budget.checked_sub(length as u64) {
            Some(left) if left > 0 => {
                self.fault = Fault::CutRequestAfter(left);
                Passage::Pass
            }
            _ => {
                self.fault = Fault::None;
                Passage::Cut(usize::try_from(budget).map_or(length, |budget| budget.min(length)))
            }
        }
    }

    /// For bytes on their way back to the client.
    pub(super) fn reply(&mut self, id: ConnectionId) -> Passage {
        if self.is_cut(id) {
            return Passage::Cut(0);
        }
        if self.is_silent(id) {
            return Passage::Swallow;
        }
        match self.fault {
            Fault::DropReplies => Passage::Swallow,
            Fault::DropNextReply => {
                self.fault = Fault::None;
                Passage::Cut(0)
            }
            Fault::Latency(delay) => Passage::Delay(delay),
            _ => Passage::Pass,
        }
    }

    /// Whether this connection's peers must not learn anything, not even that the other closed.
    pub(super) fn is_silent(&self, id: ConnectionId) -> bool {
        id.0 < self.silent_below || self.fault == Fault::BlackHole
    }

    pub(super) fn refuses(&self) -> bool {
        self.fault == Fault::Refuse
    }

    pub(super) const fn fault(&self) -> Fault {
        self.fault
    }

    const fn is_cut(&self, id: ConnectionId) -> bool {
        id.0 < self.cut_below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(rules: &mut Rules) -> ConnectionId {
        let Admission::Serve(id) = rules.admit() else {
            panic!("was reset")
        };
        id
    }

    #[test]
    fn silencing_the_old_leaves_the_new_alone_and_outlives_the_healing() {
        let mut rules = Rules::default();
        let old = admit(&mut rules);
        rules.set(Fault::SilenceOld);
        let new = admit(&mut rules);
        for fault in [Fault::SilenceOld, Fault::None] {
            assert_eq!(rules.request(old, 1), Passage::Swallow, "{fault:?}");
            assert_eq!(rules.reply(old), Passage::Swallow, "{fault:?}");
            assert_eq!(rules.request(new, 1), Passage::Pass, "{fault:?}");
            rules.set(Fault::None);
        }
    }

    #[test]
    fn what_a_black_hole_has_swallowed_it_keeps() {
        let mut rules = Rules::default();
        let before = admit(&mut rules);
        rules.set(Fault::BlackHole);
        let during = admit(&mut rules);
        assert_eq!(rules.request(before, 1), Passage::Swallow);
        rules.set(Fault::None);
        let after = admit(&mut rules);
        assert_eq!(rules.reply(before), Passage::Swallow);
        assert_eq!(rules.request(during, 1), Passage::Swallow);
        assert_eq!(rules.request(after, 1), Passage::Pass);
    }

    #[test]
    fn a_reply_is_dropped_once_and_then_all_is_well() {
        let mut rules = Rules::default();
        let id = admit(&mut rules);
        rules.set(Fault::DropNextReply);
        assert_eq!(rules.request(id, 9), Passage::Pass);
        assert_eq!(rules.reply(id), Passage::Cut(0));
        assert_eq!(rules.fault(), Fault::None);
    }

    #[test]
    fn a_cut_comes_right_after_the_last_byte_that_may_pass() {
        for (budget, reads, cut) in [(0, &[5][..], 0), (5, &[5], 5), (7, &[5, 5], 2)] {
            let mut rules = Rules::default();
            let id = admit(&mut rules);
            rules.set(Fault::CutRequestAfter(budget));
            let (last, before) = reads.split_last().unwrap();
            for read in before {
                assert_eq!(rules.request(id, *read), Passage::Pass);
            }
            assert_eq!(rules.request(id, *last), Passage::Cut(cut));
            assert_eq!(rules.fault(), Fault::None);
        }
    }

    #[test]
    fn a_reset_takes_the_open_ones_and_turns_the_new_away() {
        let mut rules = Rules::default();
        let id = admit(&mut rules);
        rules.set(Fault::Reset);
        assert_eq!(rules.request(id, 1), Passage::Cut(0));
        assert_eq!(rules.admit(), Admission::Reset);
        rules.set(Fault::None);
        assert_eq!(rules.reply(id), Passage::Cut(0), "what was cut stays cut");
        let new = admit(&mut rules);
        assert_eq!(rules.reply(new), Passage::Pass);
    }
}

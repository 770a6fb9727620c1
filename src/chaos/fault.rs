//! The ways for a network to fail that a [`FaultProxy`](super::FaultProxy) knows.

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
    ///
    /// Of one source alone they are accepted and reset, since the others must still get in.
    Refuse,
    /// Open connections are reset; new ones are accepted and reset.
    Reset,
    /// Nothing passes either way and every socket stays open: open connections fall silent, new
    /// ones are accepted into silence. All of these stay silent when the fault is over; those
    /// made after it work.
    BlackHole,
    /// Nothing passes either way and nothing is lost: what is under way arrives when the fault is
    /// over, also that a peer has closed. A network that comes back before TCP gives up; a request
    /// is executed long after its sender did.
    Stall,
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
    /// Once: this many more bytes of replies reach clients, counted over all connections; the
    /// connection that got the last of them is reset. Then healthy. Cuts a reply in the middle.
    CutReplyAfter(u64),
    /// Replies are held back this long, in order: every round trip takes so much longer.
    Latency(Duration),
    /// Replies are held back for a time drawn anew for each piece that is read, in order.
    Jitter {
        /// The shortest time.
        least: Duration,
        /// The longest.
        most: Duration,
        /// Of the draws.
        seed: u64,
    },
    /// So many bytes a second, at least one, over all connections and each way by itself.
    Throttle(u64),
    /// New connections are accepted, and served only so much later.
    SlowAccept(Duration),
}

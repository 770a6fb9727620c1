//! A TCP proxy in front of Redis whose [`Fault`] can be switched while connections are open.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::{self, IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    task,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    connection,
    fault::Fault,
    port::Port,
    rules::{Admission, ConnectionId, Rules},
};

/// A TCP proxy to hurt a client with, between it and a healthy Redis.
///
/// It starts healthy. What [`set`](Self::set) says holds for every byte that the proxy reads from
/// then on; the buffers in between are small and bounded, and a peer that does not read
/// holds up the other.
///
/// A Redis that is down looks different through it than directly: a connection is accepted
/// and then reset. For a refused one there is [`Fault::Refuse`].
///
/// Dropping it closes its port and all connections.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    runtime: Handle,
    acceptor: AbortOnDropHandle<()>,
}

/// What has happened at a [`FaultProxy`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections accepted, those included that were reset at once.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Replies of Redis that were discarded: whole ones as RESP frames them, and one for
    /// [`Fault::DropNextReply`].
    pub dropped_replies: u64,
}

impl FaultProxy {
    /// Starts a healthy proxy to `upstream` on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let port = Port::draw()?;
        let shared = Arc::new(Shared {
            upstream,
            door: Mutex::new(Door {
                listener: Some(port.listen()?),
                rules: Rules::default(),
                cuts: HashMap::new(),
            }),
            port,
            door_moved: Notify::new(),
            changes: watch::Sender::default(),
            counts: watch::Sender::default(),
        });
        let acceptor = AbortOnDropHandle::new(tokio::spawn(accept(Arc::clone(&shared))));
        Ok(Self {
            shared,
            runtime: Handle::current(),
            acceptor,
        })
    }

    /// Switches to another fault, for open connections and new ones as it says.
    pub fn set(&self, fault: Fault) {
        self.change(|door| {
            door.rules.set(fault);
            if fault == Fault::Reset {
                door.hang_up();
            }
        });
    }

    /// Switches to another fault for the connections that come from `source`, for which it is in
    /// force in place of the one for all: a partition. [`Fault::None`] ends it.
    ///
    /// On Linux a client may come from any address of 127.0.0.0/8 that it binds its socket to; it
    /// comes from 127.0.0.1 unless it does.
    pub fn set_from(&self, source: IpAddr, fault: Fault) {
        self.change(|door| {
            door.rules.set_from(source, fault);
            if fault == Fault::Reset {
                door.hang_up_on(source);
            }
        });
    }

    /// Ends every fault, those of single sources too.
    pub fn heal(&self) {
        self.change(|door| door.rules.heal());
    }

    /// The fault in force for all that have none of their own: those that strike once are over
    /// when they have.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.shared.ask(|rules| rules.fault())
    }

    /// The fault in force for the connections that come from `source`.
    #[must_use]
    pub fn fault_for(&self, source: IpAddr) -> Fault {
        self.shared.ask(|rules| rules.fault_for(source))
    }

    /// Resets all connections that are open now, whatever the fault.
    pub fn cut(&self) {
        self.change(|door| {
            door.rules.cut();
            door.hang_up();
        });
    }

    /// Resets the connections that are open now and come from `source`.
    pub fn cut_from(&self, source: IpAddr) {
        self.change(|door| {
            door.rules.cut_from(source);
            door.hang_up_on(source);
        });
    }

    /// `redis://127.0.0.1:<port>/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr())
    }

    /// Where the proxy listens; the same also while it refuses.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.port.addr()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts().accepted
    }

    /// Replies discarded so far.
    #[must_use]
    pub fn dropped_replies(&self) -> u64 {
        self.counts().dropped_replies
    }

    /// Waits until the counts are as `wanted`, and returns them; at once if they are already.
    ///
    /// It waits as long as that takes: put a [`timeout`](tokio::time::timeout) around it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    ///
    /// ```no_run
    /// # async fn example(proxy: seawall::chaos::FaultProxy) {
    /// // Now Redis has executed a request of which the client will not hear.
    /// proxy.wait_for(|counts| counts.dropped_replies == 1).await;
    /// # }
    /// ```
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let seen = counts.wait_for(|counts| wanted(counts)).await;
        *seen.expect("the sender lives in `self`")
    }

    fn change(&self, change: impl FnOnce(&mut Door)) {
        let _inside = self.runtime.enter();
        let mut door = self.shared.door.lock();
        change(&mut door);
        self.shared.move_door(&mut door);
        self.shared.changes.send_replace(());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // It would open the door again, if it found it shut before it ended.
        self.acceptor.abort();
        self.shared.door.lock().shut();
    }
}

/// What the proxy, its acceptor and its connections hold together.
#[derive(Debug)]
pub(super) struct Shared {
    upstream: SocketAddr,
    port: Port,
    door: Mutex<Door>,
    door_moved: Notify,
    /// Sent to whenever another fault is in force.
    changes: watch::Sender<()>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug)]
struct Door {
    /// `None` while nobody is to listen.
    listener: Option<TcpListener>,
    rules: Rules,
    /// One for each source, cancelled to reset the connections that hold it.
    cuts: HashMap<IpAddr, CancellationToken>,
}

impl Shared {
    pub(super) const fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// Asks the rules, which change with it: see [`Rules`].
    pub(super) fn ask<T>(&self, question: impl FnOnce(&mut Rules) -> T) -> T {
        question(&mut self.door.lock().rules)
    }

    /// Waits until the rules say that `met` is so.
    pub(super) async fn until(&self, met: impl Fn(&Rules) -> bool) {
        let mut changes = self.changes.subscribe();
        while !self.ask(|rules| met(rules)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn replies_dropped(&self, more: u64) {
        if more > 0 {
            self.counts
                .send_modify(|counts| counts.dropped_replies += more);
        }
    }

    /// Opens or shuts the door as the rules say.
    fn move_door(&self, door: &mut Door) {
        if door.rules.refuses() {
            door.shut();
        } else if door.listener.is_none() {
            // If the system has no socket for us just now, the acceptor tries again.
            door.listener = self.port.listen().ok();
        }
        self.door_moved.notify_one();
    }

    fn is_stuck(&self) -> bool {
        let door = self.door.lock();
        door.listener.is_none() && !door.rules.refuses()
    }

    fn poll_accept(
        &self,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<io::Result<(TcpStream, SocketAddr)>> {
        match &self.door.lock().listener {
            Some(listener) => listener.poll_accept(cx),
            None => task::Poll::Pending,
        }
    }

    /// Lets a connection in, with how long it is to wait and the token that will say when to
    /// reset it.
    fn admit(&self, source: IpAddr) -> Option<(ConnectionId, Duration, CancellationToken)> {
        let mut door = self.door.lock();
        self.counts.send_modify(|counts| counts.accepted += 1);
        match door.rules.admit(source) {
            Admission::Serve(id, delay) => {
                let cut = door.cuts.entry(source).or_default().clone();
                Some((id, delay, cut))
            }
            Admission::Reset => None,
        }
    }
}

impl Door {
    /// Stops listening, by a shutdown: closing alone does not, while a child that another thread
    /// is starting at this moment has a copy of the socket.
    fn shut(&mut self) {
        if let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) {
            let socket = net::TcpStream::from(OwnedFd::from(listener));
            let _ = socket.shutdown(net::Shutdown::Both);
        }
    }

    /// Wakes the connections that the rules have cut.
    fn hang_up(&mut self) {
        for (_, cut) in self.cuts.drain() {
            cut.cancel();
        }
    }

    fn hang_up_on(&mut self, source: IpAddr) {
        if let Some(cut) = self.cuts.remove(&source) {
            cut.cancel();
        }
    }
}

/// Owns the connections: when this is dropped, so are they.
async fn accept(shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = poll_fn(|cx| shared.poll_accept(cx)) => match accepted {
                Ok((client, from)) => match shared.admit(from.ip()) {
                    Some((id, delay, cut)) => {
                        let open = Open::new(Arc::clone(&shared));
                        connections.spawn(connection::serve(client, id, delay, open, cut));
                    }
                    None => connection::reset(client),
                },
                Err(_) => sleep(PAUSE).await,
            },
            () = shared.door_moved.notified() => {}
            Some(_) = connections.join_next() => {}
            () = sleep(PAUSE), if shared.is_stuck() => shared.move_door(&mut shared.door.lock()),
        }
    }
}

/// Before trying again what the system refused, such as one more socket.
const PAUSE: Duration = Duration::from_millis(10);

/// Counts a connection as open for as long as it lives.
pub(super) struct Open {
    shared: Arc<Shared>,
}

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.counts.send_modify(|counts| counts.open += 1);
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.counts.send_modify(|counts| counts.open -= 1);
    }
}

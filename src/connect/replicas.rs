//! Connections to replicas, for calls that ask to be read there.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use redis::{Value, aio::MultiplexedConnection};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    deployment::Endpoint,
    exchange::{Refusal, send},
    generation::Suspicion,
    pace::Pace,
    sentinel::Sentinels,
    shared::Shared,
    status::Trouble,
};
use crate::{RedisCall, classify::Class};

/// The replicas that can be read from now, turn by turn.
#[derive(Default)]
pub(super) struct Replicas {
    ready: ArcSwap<Vec<Arc<Replica>>>,
    next: AtomicUsize,
}

struct Replica {
    line: MultiplexedConnection,
    suspicion: Arc<Suspicion>,
}

impl Replicas {
    /// Asks a replica, if one can be asked.
    ///
    /// `None` if the master has to be: there is no replica, or it gave no answer, or one that says
    /// more of itself than of the call. Half of the time until `until` is left for that.
    pub(super) async fn read(
        &self,
        call: &RedisCall,
        started: Instant,
        until: Instant,
    ) -> Option<Result<Value, Refusal>> {
        let replica = self.pick()?;
        let mut line = replica.line.clone();
        let until = started + until.duration_since(started) / 2;
        match timeout_at(until, send(call.body(), &mut line)).await {
            Ok(Err(refusal)) if refusal.class() != Class::Permanent => {
                replica.suspicion.raise(Trouble::Lost);
                None
            }
            Ok(answer) => Some(answer),
            Err(_) => {
                replica.suspicion.raise(Trouble::Silent);
                None
            }
        }
    }

    fn pick(&self) -> Option<Arc<Replica>> {
        let ready = self.ready.load();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let sound = |replica: &&Arc<Replica>| replica.suspicion.trouble().is_none();
        (0..ready.len())
            .map(|at| &ready[(turn + at) % ready.len()])
            .find(sound)
            .cloned()
    }

    fn add(&self, replica: &Arc<Replica>) {
        self.ready.rcu(|ready| {
            let mut ready = Vec::clone(ready);
            ready.push(Arc::clone(replica));
            ready
        });
    }

    fn remove(&self, replica: &Arc<Replica>) {
        self.ready.rcu(|ready| {
            let mut ready = Vec::clone(ready);
            ready.retain(|other| !Arc::ptr_eq(other, replica));
            ready
        });
    }
}

/// Keeps a connection to each replica that the sentinels call healthy. Runs until it is dropped, and
/// so do the connections.
pub(super) async fn keep(shared: &Arc<Shared>, sentinels: &Arc<Sentinels>) {
    let mut tasks = JoinSet::new();
    let mut kept = HashSet::new();
    let mut listed = sentinels.replicas();
    loop {
        let replicas: Vec<Endpoint> = listed.borrow_and_update().clone();
        for at in replicas {
            if kept.len() < MOST_REPLICAS && kept.insert(at.clone()) {
                tasks.spawn(follow(Arc::clone(shared), Arc::clone(sentinels), at));
            }
        }
        tokio::select! {
            // The sender is in `sentinels`.
            _ = listed.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(at) = ended {
                    kept.remove(&at);
                }
            }
        }
    }
}

/// A group has one to five of them.
const MOST_REPLICAS: usize = 16;

/// Offers one replica whenever it follows its master, until it can't be reached and the sentinels do
/// not name it any more.
async fn follow(shared: Arc<Shared>, sentinels: Arc<Sentinels>, at: Endpoint) -> Endpoint {
    let options = &shared.options;
    let address = at.clone().address(sentinels.tls());
    let mut pace = Pace::new(options.reconnect_first, options.reconnect_longest);
    loop {
        let suspicion = Arc::new(Suspicion::default());
        let cut = CancellationToken::new();
        let _closed_with_us = cut.clone().drop_guard();
        let lost = {
            let suspicion = Arc::clone(&suspicion);
            move || suspicion.raise(Trouble::Lost)
        };
        let since = Instant::now();
        let delay = if let Ok(line) = shared.dialer.replica(&address, cut, lost).await {
            let replica = Arc::new(Replica { line, suspicion });
            let _offered = Offered::new(&shared, &replica);
            tokio::select! {
                _ = replica.suspicion.raised() => {}
                () = watch(&shared, replica.line.clone()) => {}
            }
            pace.after_loss(since.elapsed(), rand::random())
        } else if sentinels.replicas().borrow().contains(&at) {
            pace.after_failure(rand::random())
        } else {
            return at;
        };
        sleep(delay).await;
    }
}

/// Until the replica does not answer in time, or follows its master no more.
async fn watch(shared: &Shared, mut line: MultiplexedConnection) {
    let (interval, limit) = (shared.options.probe_interval, shared.options.probe_timeout);
    loop {
        sleep(interval).await;
        let asked = shared.dialer.verify_replica(&mut line);
        if !matches!(timeout(limit, asked).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A replica among those that can be read from.
struct Offered<'a> {
    shared: &'a Shared,
    replica: &'a Arc<Replica>,
}

impl<'a> Offered<'a> {
    fn new(shared: &'a Shared, replica: &'a Arc<Replica>) -> Self {
        shared.replicas.add(replica);
        Self { shared, replica }
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.shared.replicas.remove(self.replica);
    }
}

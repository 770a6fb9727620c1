//! The task that keeps the map of the slots.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::select_all,
    stream::{self, FuturesUnordered},
};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Status, Trouble, deployment::Endpoint, pace::Pace},
    Shared, is_up,
    map::{Range, View, most_common},
    terms,
};

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = keep(&shared) => {}
        () = terms::watch(&shared) => {}
    }
}

async fn keep(shared: &Shared) {
    let options = &shared.options;
    let unhurried = || {
        let first = options.reconnect_first;
        Pace::new(first, options.reconnect_longest.min(LONGEST).max(first))
    };
    let mut pace = unhurried();
    let mut stock = Stock::default();
    loop {
        let found = find(shared).await;
        let serves = match &found {
            Ok(view) => {
                install(shared, view);
                view.serves
            }
            Err(_) => stock.serves,
        };
        stock.serves = serves;
        stock.missing = found.err();
        let is_well = stock.missing.is_none() && serves;
        let mut again = Instant::now() + POLL;
        if !is_well || !shared.layout.load().is_whole(is_up) {
            again = Instant::now() + pace.after_failure(rand::random());
        } else {
            pace = unhurried();
        }
        stock.take(shared);
        wait(shared, &mut stock, again).await;
    }
}

/// Waits until the map has to be read: for a reason, or at the time `again`.
async fn wait(shared: &Shared, stock: &mut Stock, again: Instant) {
    let mut nodes: Vec<watch::Receiver<Status>> = shared
        .layout
        .load()
        .nodes()
        .iter()
        .map(|node| node.server.shared.status())
        .collect();
    // What changed before this moment has to be seen as well.
    stock.take(shared);
    loop {
        let lost = tokio::select! {
            () = sleep_until(again) => return,
            () = shared.is_wrong.notified() => true,
            is_up = changed(&mut nodes) => !is_up,
        };
        stock.take(shared);
        if lost {
            // One reason seldom comes alone, and the nodes need a moment to agree.
            sleep(GAP).await;
            return;
        }
    }
}

/// How often the map is read without a reason.
const POLL: Duration = Duration::from_secs(10);
const GAP: Duration = Duration::from_millis(10);
/// The longest between two readings while a primary is away: none tells of its successor.
const LONGEST: Duration = Duration::from_millis(250);

/// Waits until one of them has something new, and says whether that one is up.
async fn changed(nodes: &mut [watch::Receiver<Status>]) -> bool {
    if nodes.is_empty() {
        return pending().await;
    }
    let (_, at, _) = select_all(nodes.iter_mut().map(|node| Box::pin(node.changed()))).await;
    nodes[at].borrow().up
}

/// What is known of the nodes, and told to those who watch.
#[derive(Default)]
struct Stock {
    serves: bool,
    /// Why there is no map, or no new one.
    missing: Option<Trouble>,
}

impl Stock {
    fn take(&mut self, shared: &Shared) {
        let layout = shared.layout.load();
        if let Some(next) = shared.term.load().next(&layout) {
            let (number, history) = (next.number, next.history());
            shared.term.store(Arc::new(next));
            let expects = shared.has_replicas.load(Relaxed);
            shared.teller.begin_term(number, history, expects);
            shared.meters.generation.inc();
        }
        let number = shared.term.load().number;
        let mut trouble = None;
        let mut any = false;
        for node in layout.primaries() {
            let status = *node.server.shared.status().borrow();
            any |= status.up;
            if !status.up {
                trouble = trouble.or(status.trouble);
            }
        }
        let up = any && self.serves;
        let trouble = match (any, self.serves) {
            (true, false) => Some(Trouble::ClusterDown),
            (false, _) => self.missing.or(trouble),
            (true, true) => trouble,
        };
        shared.meters.up.set(up.into());
        shared.status.send_if_modified(|status| {
            let before = *status;
            if up != status.up {
                status.up = up;
                status.since = Instant::now();
            }
            status.generation = number;
            status.trouble = trouble.or(status.trouble);
            if before.up != up || (trouble.is_some() && before.trouble != trouble) {
                tell(shared, status, trouble);
            }
            *status != before
        });
        let whole = up && layout.is_whole(is_up);
        shared.is_whole.send_if_modified(|before| {
            let is_news = *before != whole;
            *before = whole;
            is_news
        });
    }
}

/// Once for each change.
fn tell(shared: &Shared, status: &Status, trouble: Option<Trouble>) {
    let address = &shared.options.deployment;
    let generation = status.generation;
    match trouble {
        Some(trouble) => tracing::warn!(
            %address,
            reason = trouble.as_str(),
            up = status.up,
            "the cluster is not whole: {trouble}"
        ),
        None if status.up => tracing::info!(%address, generation, "connected to the cluster"),
        None => {}
    }
}

fn install(shared: &Shared, view: &View) {
    let replicated = |range: &Range| !range.replicas.is_empty();
    if view.ranges.iter().all(replicated) && !shared.has_replicas.swap(true, Relaxed) {
        shared.teller.expect_replicas(true);
    }
    shared.change(|layout| layout.by(view, Instant::now(), |endpoint| shared.connect(endpoint)));
}

/// The map that most nodes have; if no node that is connected has one, that of the first stranger who
/// has.
async fn find(shared: &Shared) -> Result<View, Trouble> {
    let layout = shared.layout.load_full();
    let mut asked = 0;
    let mut answers: FuturesUnordered<_> = layout
        .nodes()
        .iter()
        .filter_map(|node| {
            let mut line = node.server.shared.current().ok()?.line();
            asked += 1;
            Some(async move { ask(shared, &mut line, &node.endpoint).await })
        })
        .collect();
    let mut views = Vec::new();
    while let Some(answer) = answers.next().await {
        views.extend(answer);
        // One that does not answer must not hold up what the others agree on.
        if let Some((view, votes)) = most_common(&views)
            && votes * 2 > asked
        {
            return Ok(view.clone());
        }
    }
    match most_common(&views) {
        Some((view, _)) => Ok(view.clone()),
        None => find_among_strangers(shared, layout.known().cloned()).await,
    }
}

async fn find_among_strangers(
    shared: &Shared,
    known: impl Iterator<Item = Endpoint>,
) -> Result<View, Trouble> {
    let mut endpoints = shared.seeds.clone();
    for endpoint in known {
        if !endpoints.contains(&endpoint) && endpoints.len() < MOST_ASKED {
            endpoints.push(endpoint);
        }
    }
    let visits = stream::iter(endpoints)
        .map(|endpoint| async move {
            let cut = CancellationToken::new();
            let _end = cut.clone().drop_guard();
            let address = endpoint.clone().address(shared.tls);
            let mut line = shared.dialer.visit(&address, cut).await?;
            ask(shared, &mut line, &endpoint)
                .await
                .ok_or(Trouble::NoCluster)
        })
        .buffer_unordered(AT_ONCE);
    let mut visits = std::pin::pin!(visits);
    let mut trouble = Trouble::Unreachable;
    while let Some(answer) = visits.next().await {
        match answer {
            Ok(view) => return Ok(view),
            Err(why) => trouble = why,
        }
    }
    shared.meters.connects_failed.inc();
    Err(trouble)
}

const MOST_ASKED: usize = 256;
const AT_ONCE: usize = 32;

async fn ask(
    shared: &Shared,
    line: &mut MultiplexedConnection,
    endpoint: &Endpoint,
) -> Option<View> {
    let mut questions = redis::Pipeline::with_capacity(2);
    questions
        .cmd("CLUSTER")
        .arg("SLOTS")
        .cmd("CLUSTER")
        .arg("INFO");
    let answers = line.send_packed_commands(&questions, 0, 2);
    let answers = timeout(shared.options.probe_timeout, answers)
        .await
        .ok()?
        .ok()?;
    let [slots, info] = answers.as_slice() else {
        return None;
    };
    View::read(slots, info, endpoint)
}

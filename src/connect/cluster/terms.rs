//! Which connections there are to which primaries, and how far the replicas of all of them are: for
//! [`crate::replicas`].

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{
        generation::Generation,
        readings::{INTERVAL, Progress, Role, SHORTEST, press, roles},
        service::Inner,
    },
    Shared,
    layout::Layout,
};

/// The time of one connection to each of the primaries that there are.
///
/// A node lets calls through as soon as it is connected, which is before the term with that connection
/// begins. So what is acknowledged meanwhile belongs to the term before; and a reading of a term only
/// counts if the connections are still those that it began with.
pub(super) struct Term {
    pub(super) number: u64,
    members: Vec<Member>,
    /// Each slot's primary was connected.
    is_whole: bool,
}

struct Member {
    server: Arc<Inner>,
    generation: Option<Arc<Generation>>,
}

impl Term {
    pub(super) fn none() -> Self {
        Self {
            number: 0,
            members: Vec::new(),
            is_whole: false,
        }
    }

    /// The one after this, if there is a connection that this one has not, or if a node has come or gone.
    pub(super) fn next(&self, layout: &Layout<Arc<Inner>>) -> Option<Self> {
        let now: Vec<_> = layout
            .nodes()
            .iter()
            .map(|node| Member::of(&node.server))
            .collect();
        let same_nodes = now.len() == self.members.len()
            && now
                .iter()
                .all(|member| self.member(&member.server).is_some());
        let is_news = |member: &Member| match &member.generation {
            Some(generation) => !self.has(generation),
            None => false,
        };
        if same_nodes && !now.iter().any(is_news) {
            return None;
        }
        let mut next = Self {
            number: self.number + 1,
            members: now,
            is_whole: false,
        };
        let is_up = |server: &Arc<Inner>| {
            let member = next.member(server);
            member.is_some_and(|member| member.generation.is_some())
        };
        next.is_whole = layout.is_whole(is_up);
        Some(next)
    }

    /// Whether this connection is of this term.
    pub(super) fn has(&self, generation: &Arc<Generation>) -> bool {
        let mut generations = self.generations();
        generations.any(|known| Arc::ptr_eq(known, generation))
    }

    /// The histories of all primaries together.
    pub(super) fn history(&self) -> Option<Arc<str>> {
        if !self.is_whole {
            return None;
        }
        let mut histories = self
            .generations()
            .map(|generation| generation.history.as_deref())
            .collect::<Option<Vec<_>>>()?;
        histories.sort_unstable();
        Some(histories.join(", ").into())
    }

    fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.members
            .iter()
            .filter_map(|member| member.generation.as_ref())
    }

    fn member(&self, server: &Arc<Inner>) -> Option<&Member> {
        let mut members = self.members.iter();
        members.find(|member| Arc::ptr_eq(&member.server, server))
    }

    /// Whether nothing can have been acknowledged by another connection than those of this term.
    fn is_complete(&self, layout: &Layout<Arc<Inner>>) -> bool {
        self.is_whole
            && layout.nodes().iter().all(|node| {
                let now = Member::of(&node.server);
                now.generation
                    .is_some_and(|generation| self.has(&generation))
            })
    }
}

impl Member {
    fn of(server: &Arc<Inner>) -> Self {
        Self {
            server: Arc::clone(server),
            generation: server.shared.current().ok(),
        }
    }
}

/// Takes readings for as long as somebody wants them.
pub(super) async fn watch(shared: &Shared) {
    let teller = &shared.teller;
    let mut of_term = 0;
    let mut progress = Progress::default();
    let mut waiters = Vec::new();
    loop {
        teller.wanted().await;
        let hurried = teller.is_hurried();
        let reading = teller.begin_reading();
        let term = shared.term.load_full();
        if of_term != term.number {
            of_term = term.number;
            progress = Progress::default();
            waiters.clear();
        }
        // A primary that is away may have acknowledged what no replica has.
        if term.is_complete(&shared.layout.load())
            && let Some(roles) = ask(shared, &term).await
            && let Some((reading, replicas)) = progress.note(reading, roles, Instant::now())
            && shared.term.load().number == of_term
        {
            teller.reached(reading, replicas);
        }
        if hurried && progress.has_replicas() {
            waiters.resize_with(term.members.len(), || None);
            join_all(
                term.generations()
                    .zip(&mut waiters)
                    .map(|(generation, waiter)| press(&shared.dialer, generation, waiter)),
            )
            .await;
        } else {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = teller.hurried() => sleep(SHORTEST).await,
            }
        }
    }
}

/// What all primaries of the term say of themselves, always in the same order.
async fn ask(shared: &Shared, term: &Term) -> Option<Vec<Role>> {
    let within = shared.options.probe_timeout;
    let answers = term.generations().map(|generation| async move {
        let answers = timeout(within, roles(generation)).await.ok()?.ok()?;
        Role::read(answers.first()?).ok()
    });
    join_all(answers).await.into_iter().collect()
}

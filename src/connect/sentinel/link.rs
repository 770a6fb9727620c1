//! The small connections to the sentinels, one each.

use std::{collections::HashMap, sync::Arc};

use redis::{PushInfo, PushKind, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Sentinels,
    answers::{self, Answers, Said, is_switch, names, questions},
};
use crate::connect::{
    deployment::Endpoint, generation::Suspicion, pace::Pace, shared::Shared, status::Trouble,
};

/// Keeps a link to each sentinel that is known. Runs until it is dropped, and so do the links.
pub(in crate::connect) async fn keep(shared: &Arc<Shared>, sentinels: &Arc<Sentinels>) {
    let mut tasks = JoinSet::new();
    let mut linked: HashMap<Endpoint, AbortHandle> = HashMap::new();
    let mut beliefs = sentinels.beliefs.subscribe();
    loop {
        let known: Vec<_> = beliefs.borrow_and_update().sentinels().cloned().collect();
        linked.retain(|at, task| {
            let stays = known.contains(at);
            if !stays {
                task.abort();
            }
            stays
        });
        for at in known {
            linked.entry(at).or_insert_with_key(|at| {
                let link = Link {
                    shared: Arc::clone(shared),
                    sentinels: Arc::clone(sentinels),
                    at: at.clone(),
                    rounds: sentinels.round.subscribe(),
                    subscribes: true,
                };
                tasks.spawn(link.run())
            });
        }
        tokio::select! {
            // The sender is ours.
            _ = beliefs.changed() => {}
            // One that was aborted is done with.
            Some(_) = tasks.join_next() => {}
        }
    }
}

struct Link {
    shared: Arc<Shared>,
    sentinels: Arc<Sentinels>,
    at: Endpoint,
    rounds: watch::Receiver<u64>,
    /// Whether this sentinel lets us hear its announcements.
    subscribes: bool,
}

impl Link {
    async fn run(mut self) {
        let options = &self.shared.options;
        let mut pace = Pace::new(options.reconnect_first, options.reconnect_longest);
        let mut last = None;
        loop {
            let mut round = *self.rounds.borrow_and_update();
            let (trouble, worked) = self.session(&mut round, &mut last).await;
            self.say(Said::Failed(trouble), round);
            if last != Some(trouble) {
                last = Some(trouble);
                tracing::warn!(
                    sentinel = %self.at,
                    reason = trouble.as_str(),
                    "a sentinel does not answer: {trouble}"
                );
            }
            if worked {
                let options = &self.shared.options;
                pace = Pace::new(options.reconnect_first, options.reconnect_longest);
            }
            tokio::select! {
                () = sleep(pace.after_failure(rand::random())) => {}
                // A search has a pace of its own.
                _ = self.rounds.changed() => {}
            }
        }
    }

    /// Connects, and asks again and again until there is no answer: why, and whether there ever was.
    async fn session(&mut self, round: &mut u64, last: &mut Option<Trouble>) -> (Trouble, bool) {
        let suspicion = Arc::new(Suspicion::default());
        let announced = Arc::new(Notify::new());
        let cut = CancellationToken::new();
        let _closed_with_us = cut.clone().drop_guard();
        let mut connection = match self.connect(cut, &suspicion, &announced).await {
            Ok(connection) => connection,
            Err(trouble) => return (trouble, false),
        };
        let mut worked = false;
        loop {
            let limit = self.shared.options.probe_timeout;
            let asked = timeout(limit, self.ask(&mut connection)).await;
            let said = asked.unwrap_or(Said::Failed(Trouble::Probe));
            if let Said::Failed(trouble) = said {
                return (trouble, worked);
            }
            self.say(said, *round);
            worked = true;
            if last.take().is_some() {
                tracing::info!(sentinel = %self.at, "a sentinel answers again");
            }
            // Not all clients in step.
            let pause = self
                .sentinels
                .poll
                .mul_f64(0.75 + rand::random::<f64>() / 2.0);
            tokio::select! {
                () = sleep(pause) => {}
                () = announced.notified() => {}
                _ = self.rounds.changed() => {}
                trouble = suspicion.raised() => return (trouble, worked),
            }
            *round = *self.rounds.borrow_and_update();
        }
    }

    async fn connect(
        &mut self,
        cut: CancellationToken,
        suspicion: &Arc<Suspicion>,
        announced: &Arc<Notify>,
    ) -> Result<MultiplexedConnection, Trouble> {
        let switched = {
            let (master, announced) = (Arc::clone(&self.sentinels.master), Arc::clone(announced));
            move |push: PushInfo| -> Result<(), ()> {
                if push.kind == PushKind::Message && is_switch(&push.data, &master) {
                    // What it says is not believed but asked about.
                    announced.notify_one();
                }
                Ok(())
            }
        };
        let suspicion = Arc::clone(suspicion);
        let lost = move || suspicion.raise(Trouble::Lost);
        let address = self.at.clone().address(self.sentinels.sentinel_tls);
        let dialer = &self.shared.dialer;
        let mut connection = dialer.sentinel(&address, cut, switched, lost).await?;
        let limit = self.shared.options.probe_timeout;
        let greeting = async {
            let heard = connection.subscribe("+switch-master").await;
            let id = redis::cmd("SENTINEL").arg("MYID").take();
            (heard, connection.send_packed_command(&id).await)
        };
        let (heard, id) = timeout(limit, greeting).await.map_err(|_| Trouble::Probe)?;
        if let Some(id) = id.as_ref().ok().and_then(answers::text) {
            let id = id.into();
            self.sentinels
                .beliefs
                .send_if_modified(|beliefs| beliefs.identify(&self.at, &id));
        }
        if heard.is_err() && std::mem::take(&mut self.subscribes) {
            tracing::warn!(
                sentinel = %self.at,
                "this sentinel does not let us subscribe to +switch-master: \
                 a failover is noticed at the next poll"
            );
        }
        Ok(connection)
    }

    async fn ask(&self, connection: &mut MultiplexedConnection) -> Said {
        let questions = questions(&self.sentinels.master, self.sentinels.wants_replicas);
        let answers = connection
            .send_packed_commands(&questions, 0, questions.len())
            .await;
        let Ok(answers) = answers else {
            return Said::Failed(Trouble::Lost);
        };
        let Answers {
            said,
            peers,
            replicas,
        } = answers::read(&answers);
        self.sentinels
            .beliefs
            .send_if_modified(|beliefs| beliefs.learn(peers));
        let Some(said) = said else {
            let all = redis::cmd("SENTINEL").arg("MASTERS").take();
            return match connection.send_packed_command(&all).await {
                Ok(masters) => Said::Unknown(names(&masters)),
                Err(_) => Said::Failed(Trouble::Lost),
            };
        };
        if self.sentinels.wants_replicas && matches!(said, Said::Master(_)) {
            self.sentinels.replicas.send_if_modified(|known| {
                let is_news = *known != replicas;
                *known = replicas;
                is_news
            });
        }
        said
    }

    fn say(&self, said: Said, round: u64) {
        self.sentinels
            .beliefs
            .send_if_modified(|beliefs| beliefs.hear(&self.at, said, round));
        let (answering, silent) = self.sentinels.beliefs.borrow().count();
        self.shared.meters.sentinels(answering, silent);
    }
}

//! The reconnect loop: the one task that makes, probes and replaces the connection.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    deployment::Address,
    generation::{Generation, Suspicion},
    pace::Pace,
    readings, replicas,
    route::{Finder, Route},
    sentinel,
    shared::Shared,
    status::Trouble,
};

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    match &shared.route {
        Route::Fixed(_) => serve(&shared).await,
        Route::Sentinel(sentinels) => tokio::select! {
            () = serve(&shared) => {}
            () = sentinel::keep(&shared, sentinels) => {}
            () = replicas::keep(&shared, sentinels), if shared.options.replica_reads => {}
        },
    }
}

async fn serve(shared: &Shared) {
    let options = &shared.options;
    let mut pace = Pace::new(options.reconnect_first, options.reconnect_longest);
    let mut finder = Finder::new(shared);
    loop {
        let delay = match finder.find().await {
            Ok(generation) => {
                let (last, trouble) = use_up(shared, generation, &mut finder).await;
                shared.teller.interrupt();
                let delay = pace.after_loss(last.since.elapsed(), rand::random());
                shared.retire(&last, trouble, delay);
                finder.lost();
                delay
            }
            Err(trouble) => {
                let delay = pace.after_failure(rand::random());
                shared.fail(trouble, delay);
                delay
            }
        };
        tokio::select! {
            () = sleep(delay) => {}
            () = finder.news() => {}
        }
    }
}

/// Serves with one generation, and with those that are better, until one has to be given up.
async fn use_up(
    shared: &Shared,
    mut generation: Arc<Generation>,
    finder: &mut Finder<'_>,
) -> (Arc<Generation>, Trouble) {
    loop {
        let (history, expects) = (generation.history.clone(), shared.expects_replicas());
        // Before anything can be acknowledged by this one.
        let number = generation.number;
        shared.teller.begin_term(number, history, expects);
        shared.publish(&generation);
        tokio::select! {
            biased;
            trouble = attend(shared, &generation) => return (generation, trouble),
            better = finder.better() => {
                generation.suspect(Trouble::Moved);
                shared.retire(&generation, Trouble::Moved, Duration::ZERO);
                generation = better;
            }
        }
    }
}

/// Makes all connections of a generation, to a server that has to be a master.
pub(super) async fn open_at(
    shared: &Shared,
    address: &Address,
) -> Result<Arc<Generation>, Trouble> {
    let suspicion = Arc::new(Suspicion::default());
    let cut = CancellationToken::new();
    let half_made = cut.clone().drop_guard();
    let lines = try_join_all((0..shared.options.connections).map(|_| {
        let suspicion = Arc::clone(&suspicion);
        let lost = move || suspicion.raise(Trouble::Lost);
        shared.dialer.dial(address, cut.child_token(), lost)
    }))
    .await?;
    let history = readings::history(lines[0].clone(), shared.options.probe_timeout).await;
    Ok(Arc::new(Generation::new(
        shared.next_number(),
        address.clone(),
        history,
        lines,
        shared.options.suspect_after,
        suspicion,
        half_made.disarm(),
    )))
}

/// Waits until the generation has to be replaced.
async fn attend(shared: &Shared, generation: &Generation) -> Trouble {
    tokio::select! {
        biased;
        trouble = generation.suspected() => trouble,
        trouble = readings::watch(shared, generation) => {
            generation.suspect(trouble);
            trouble
        }
        trouble = probe(shared, generation) => {
            // From here on no call goes onto it.
            generation.suspect(trouble);
            trouble
        }
    }
}

/// Asks the server whether it is there, and still the master, until the answer is no.
async fn probe(shared: &Shared, generation: &Generation) -> Trouble {
    loop {
        sleep(shared.options.probe_interval).await;
        let mut is_news = false;
        for line in generation.lines() {
            let mut line = line.clone();
            let answer = shared.dialer.verify(&mut line);
            match timeout(shared.options.probe_timeout, answer).await {
                Ok(Ok(())) => is_news |= generation.speaks_again(),
                Ok(Err(trouble)) => return trouble,
                Err(_) => {
                    shared.meters.probes_failed.inc();
                    return Trouble::Probe;
                }
            }
        }
        if is_news {
            shared.awakenings.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;
    use crate::{
        connect::{ConnectOptions, Connection, Trouble},
        metrics::ConnectMetrics,
    };

    /// A unix socket that is not there refuses at once, so nothing but the clock passes.
    #[tokio::test(start_paused = true)]
    async fn attempts_become_rarer_while_redis_is_away() {
        let metrics = ConnectMetrics::default();
        let options = ConnectOptions::from_url("unix:///seawall/no/such/socket").unwrap();
        let connection = Connection::open(options.with_metrics(metrics.clone())).unwrap();
        let failed = || metrics.connects_failed.get();
        tokio::time::sleep(Duration::from_secs(2)).await;
        // 50, 100, 200, 400 and 800 ms at the longest, half of each at the shortest.
        assert!((5..=8).contains(&failed()), "{}", failed());
        tokio::time::sleep(Duration::from_secs(8)).await;
        let before = failed();
        tokio::time::sleep(Duration::from_secs(200)).await;
        // From 0.5 to 1 s each.
        let attempts = failed() - before;
        assert!((200..=400).contains(&attempts), "{attempts}");
        let trouble = connection.status().borrow().trouble;
        assert_eq!(trouble, Some(Trouble::Unreachable));
    }

    /// They all lose their server in the same moment.
    #[tokio::test(start_paused = true)]
    async fn five_hundred_clients_spread_their_attempts() {
        let metrics = ConnectMetrics::default();
        let options = ConnectOptions::from_url("unix:///seawall/no/such/socket").unwrap();
        let options = options.with_metrics(metrics.clone());
        let open = |_| Connection::open(options.clone()).unwrap();
        let clients: Vec<_> = (0..500).map(open).collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut steps = Vec::new();
        for _ in 0..100 {
            let before = metrics.connects_failed.get();
            tokio::time::sleep(Duration::from_millis(100)).await;
            steps.push(metrics.connects_failed.get() - before);
        }
        // 667 a second on average, and 1000 at most if all drew the shortest delay.
        let busiest = steps.windows(10).map(|second| second.iter().sum::<u64>());
        assert!(busiest.max().unwrap() < 1000, "{steps:?}");
        assert!(
            steps.iter().all(|step| (20..150).contains(step)),
            "{steps:?}"
        );
        drop(clients);
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_follows_the_last_clone() {
        let metrics = ConnectMetrics::default();
        let options = ConnectOptions::from_url("unix:///seawall/no/such/socket").unwrap();
        let connection = Connection::open(options.with_metrics(metrics.clone())).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(connection);
        let before = metrics.connects_failed.get();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(metrics.connects_failed.get(), before);
    }

    #[test]
    fn outside_a_runtime_opening_is_an_error() {
        let options = ConnectOptions::from_url("unix:///seawall/no/such/socket").unwrap();
        assert!(Connection::open(options).is_err());
    }
}

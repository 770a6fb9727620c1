//! The reconnect loop: the one task that makes, probes and replaces the connection.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    generation::{Generation, Suspicion},
    pace::Pace,
    shared::Shared,
    status::Trouble,
};

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let options = &shared.options;
    let mut pace = Pace::new(options.reconnect_first, options.reconnect_longest);
    loop {
        let delay = match open(&shared).await {
            Ok(generation) => {
                shared.publish(&generation);
                let trouble = attend(&shared, &generation).await;
                let delay = pace.after_loss(generation.since.elapsed(), rand::random());
                shared.retire(&generation, trouble, delay);
                delay
            }
            Err(trouble) => {
                let delay = pace.after_failure(rand::random());
                shared.fail(trouble, delay);
                delay
            }
        };
        sleep(delay).await;
    }
}

async fn open(shared: &Shared) -> Result<Arc<Generation>, Trouble> {
    let suspicion = Arc::new(Suspicion::default());
    let cut = CancellationToken::new();
    let half_made = cut.clone().drop_guard();
    let lines = try_join_all((0..shared.options.connections).map(|_| {
        let suspicion = Arc::clone(&suspicion);
        let lost = move || suspicion.raise(Trouble::Lost);
        shared.dialer.dial(cut.child_token(), lost)
    }))
    .await?;
    Ok(Arc::new(Generation::new(
        shared.next_number(),
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
        for line in generation.lines() {
            let mut line = line.clone();
            let answer = shared.dialer.verify(&mut line);
            match timeout(shared.options.probe_timeout, answer).await {
                Ok(Ok(())) => generation.answered(),
                Ok(Err(trouble)) => return trouble,
                Err(_) => {
                    shared.meters.probes_failed.inc();
                    return Trouble::Probe;
                }
            }
        }
    }
}

//! Opens what a crash has left, twice, and holds what comes out of it against the books.

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng as _, rngs::SmallRng};
use seawall::spool::{OpenError, Spool, SpoolLayer};
use tokio::time::timeout;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{
    PLENTY,
    facts::{Facts, Violation},
    note::{LIFE, Note},
    worker::{LARGE, SMALL, options},
};

/// Opens the spool in `dir`, takes a part of it, adds a few records, and drops it; opens it again
/// and takes all. Says what was wrong.
pub(crate) async fn judge(dir: &Path, mut facts: Facts, dice: &mut SmallRng) -> Vec<Violation> {
    let panics = PANICS.load(Relaxed);
    facts.takes = 0;
    let facts = Arc::new(Mutex::new(facts));
    let ordered = dice.random_bool(0.5);
    let generation = if dice.random_bool(0.5) { SMALL } else { LARGE };
    let some = dice.random_range(0..4);
    let opened = timeout(2 * PLENTY, async {
        first(dir, &facts, some, ordered, generation).await?;
        second(dir, &facts, generation).await
    });
    let mut found = match opened.await {
        Ok(Ok(())) => {
            facts.lock().settle();
            Vec::new()
        }
        Ok(Err(violation)) => vec![violation],
        Err(_) => vec![Violation::Hangs(facts.lock().stage)],
    };
    found.append(&mut facts.lock().violations);
    if PANICS.load(Relaxed) > panics {
        found.push(Violation::Panicked);
    }
    found
}

/// The far end takes `some` batches and is out then; three records are added.
async fn first(
    dir: &Path,
    facts: &Arc<Mutex<Facts>>,
    some: u64,
    ordered: bool,
    generation: u64,
) -> Result<(), Violation> {
    facts.lock().stage = "opening";
    let spool = open(dir, facts, generation).await?;
    let far = facts.clone();
    let service = service_fn(move |batch| std::future::ready(far.lock().take(&batch)));
    let spooling = SpoolLayer::new(&spool).layer(service);
    facts.lock().takes = some;
    facts.lock().stage = "appending";
    let begin = facts.lock().next_life() * LIFE;
    for id in begin..begin + 3 {
        facts.lock().call(id);
        match spooling.clone().oneshot(Note::usual(id)).await {
            Ok(_) => facts.lock().acknowledge(id),
            Err(error) => return Err(Violation::DoesNotWork(format!("{error:?}"))),
        }
    }
    facts.lock().stage = "draining a part";
    while facts.lock().takes > 0 && spool.stats().records > 0 {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    facts.lock().takes = 0;
    facts.lock().stage = "closing";
    if ordered {
        let closed = spool.shutdown(Duration::ZERO).await;
        closed.map_err(|error| Violation::DoesNotWork(format!("{error:?}")))?;
    }
    Ok(())
}

async fn second(dir: &Path, facts: &Arc<Mutex<Facts>>, generation: u64) -> Result<(), Violation> {
    facts.lock().stage = "opening again";
    let spool = open(dir, facts, generation).await?;
    facts.lock().takes = u64::MAX;
    facts.lock().stage = "draining";
    let far = facts.clone();
    let service = service_fn(move |batch| std::future::ready(far.lock().take(&batch)));
    let spooling = SpoolLayer::new(&spool).layer(service);
    if timeout(PLENTY, spool.flush()).await.is_err() {
        return Err(Violation::Stuck(spool.stats().records));
    }
    let stats = spool.stats();
    let left = spool.shutdown(PLENTY).await;
    drop(spooling);
    match left {
        Ok(0) if stats.parked == 0 => Ok(()),
        Ok(0) => Err(Violation::Parked(stats.parked)),
        Ok(left) => Err(Violation::Left(left)),
        Err(error) => Err(Violation::DoesNotWork(format!("{error:?}"))),
    }
}

/// As soon as the one before has let go.
async fn open(dir: &Path, facts: &Mutex<Facts>, generation: u64) -> Result<Spool<Note>, Violation> {
    loop {
        match Spool::open(options(dir, generation)).await {
            Ok(spool) => {
                let lost = spool.stats().lost;
                if lost > 0 {
                    facts.lock().violations.push(Violation::SaidLost(lost));
                }
                return Ok(spool);
            }
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(Violation::DoesNotOpen(format!("{error:?}"))),
        }
    }
}

/// Counts panics from now on, caught or not, but for those of tests; and when states are kept, shows
/// what the spool has to say.
pub(crate) fn watch() {
    use std::{panic, sync::Once};

    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let usual = panic::take_hook();
        if env::var_os("SEAWALL_KEEP").is_some() {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .init();
        }
        panic::set_hook(Box::new(move |info| {
            // A test that fails has a thread of its own name.
            let own = std::thread::current();
            if !own.name().is_some_and(|name| name.contains("::")) {
                PANICS.fetch_add(1, Relaxed);
            }
            usual(info);
        }));
    });
}

static PANICS: AtomicU64 = AtomicU64::new(0);

//! A slot that is taken over, seen from inside the process that does it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use seawall::{
    Error,
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    metrics::Metrics,
    spool::{
        Applied, Batch, Replay, Spool, SpoolDir, SpoolLayer, SpoolOptions, Spoolable, Spooling,
        Undecodable,
    },
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::PLENTY;

/// `READS` says whether it can be read back.
struct Note<const READS: bool>;

impl<const READS: bool> Spoolable for Note<READS> {
    fn queue(&self) -> &str {
        "notes"
    }

    fn size(&self) -> usize {
        1
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.push(0);
    }

    fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
        if READS {
            Ok(Self)
        } else {
            Err(Undecodable::new("of a version that is not known"))
        }
    }
}

/// A spool that looks for slots without end, and a way out that is open when `up`.
struct Bench {
    up: Arc<AtomicBool>,
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        Self {
            up: Arc::default(),
            registry: Registry::new(),
        }
    }

    async fn open<const READS: bool>(
        &self,
        dir: SpoolDir,
    ) -> (Spool<Note<READS>>, Spooling<Note<READS>>) {
        let millis = Duration::from_millis;
        let options = SpoolOptions::new(dir)
            .with_spool_after(millis(5))
            .with_replay(Replay::unpaced().with_delays(millis(1), millis(5)))
            .with_metrics(Metrics::register(&self.registry).unwrap().spool);
        let spool = Spool::open(options).await.unwrap();
        let up = self.up.clone();
        let way_out = service_fn(move |_: Batch<Note<READS>>| {
            let up = up.load(Relaxed);
            async move {
                let outage = Verdict::new(Class::Outage, Landed::No);
                up.then(Applied::all)
                    .ok_or_else(|| Error::foreign(outage, "out"))
            }
        });
        let spooling = SpoolLayer::new(&spool).layer(way_out);
        (spool, spooling)
    }

    async fn comes_to_show(&self, sample: &str) {
        wait_until(sample, PLENTY, || async { self.shows(sample) })
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
    }

    fn shows(&self, sample: &str) -> bool {
        self.text().lines().any(|line| line == sample)
    }

    fn text(&self) -> String {
        let families = self.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap()
    }
}

fn shared(dir: &Path) -> SpoolDir {
    SpoolDir::shared(dir).with_adoption_interval(Duration::from_millis(10))
}

/// Leaves as many records in a slot of its own.
async fn leave(dir: &Path, count: usize) {
    let (spool, spooling) = Bench::new().open::<true>(shared(dir)).await;
    for _ in 0..count {
        let receipt = spooling.clone().oneshot(Note).await.unwrap();
        assert!(receipt.is_spooled());
    }
    let left = spool.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(left, count as u64);
}

/// Counts what is in a slot that nobody has.
async fn left_in(slot: &Path) -> Option<u64> {
    let spool = Spool::<Note<true>>::open(SpoolOptions::new(slot)).await;
    let records = spool.as_ref().ok()?.stats().records;
    spool.ok()?.shutdown(Duration::ZERO).await.unwrap();
    Some(records)
}

#[tokio::test]
async fn an_adopted_slot_has_counts_of_its_own_and_is_given_back_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    // It has slot 1 while the other one leaves its records in slot 2.
    let (spool, spooling) = bench.open::<true>(shared(dir.path())).await;
    leave(dir.path(), 7).await;
    bench
        .comes_to_show("seawall_spool_adopting_records 7")
        .await;
    assert!(bench.shows("seawall_spool_adopted_slots_total 1"));
    assert!(bench.shows("seawall_spool_records{state=\"waiting\"} 0"));
    assert_eq!(spool.stats().records, 0);
    bench.up.store(true, Relaxed);
    // No record of its own goes to disk because of it.
    let receipt = spooling.clone().oneshot(Note).await.unwrap();
    assert!(receipt.is_delivered());
    bench
        .comes_to_show("seawall_spool_adopted_records_total 7")
        .await;
    bench
        .comes_to_show("seawall_spool_adopting_records 0")
        .await;
    wait_until("slot 2 to be idle", PLENTY, || async {
        dir.path().join("slot-2.idle").exists()
    })
    .await
    .unwrap();
    wait_until("slot 2 to be free", PLENTY, || async {
        left_in(&dir.path().join("slot-2")).await == Some(0)
    })
    .await
    .unwrap();

    bench.up.store(false, Relaxed);
    leave(dir.path(), 5).await;
    bench
        .comes_to_show("seawall_spool_adopting_records 5")
        .await;
    assert_eq!(spool.shutdown(Duration::from_secs(1)).await.unwrap(), 0);
    assert!(bench.shows("seawall_spool_adopting_records 0"));
    assert_eq!(left_in(&dir.path().join("slot-2")).await, Some(5));
}

#[tokio::test]
async fn a_slot_that_cannot_be_delivered_is_given_back_and_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    bench.up.store(true, Relaxed);
    leave(dir.path(), 3).await;
    // This one can't read what others write, and takes over all the same.
    let blocked = dir.path().join("slot-9");
    std::fs::rename(dir.path().join("slot-1"), &blocked).unwrap();
    let patience = Duration::from_millis(50);
    let own = shared(dir.path()).with_adoption_patience(patience);
    let (spool, _spooling) = bench.open::<false>(own).await;
    bench
        .comes_to_show("seawall_spool_adopting_records 3")
        .await;
    bench
        .comes_to_show("seawall_spool_adopting_records 0")
        .await;
    // Somebody who can finds it free.
    wait_until("the slot to be free", PLENTY, || async {
        left_in(&blocked).await == Some(3)
    })
    .await
    .unwrap();
    assert!(!dir.path().join("slot-9.idle").exists());
    assert_eq!(spool.shutdown(Duration::from_secs(1)).await.unwrap(), 0);
}

/// The handles are dropped without a word in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_is_dropped_lets_go_of_what_it_has_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    let (spool, spooling) = bench.open::<true>(shared(dir.path())).await;
    leave(dir.path(), 4).await;
    bench
        .comes_to_show("seawall_spool_adopting_records 4")
        .await;
    drop((spool, spooling));
    for (slot, records) in [("slot-1", 0), ("slot-2", 4)] {
        wait_until("the slot to be free", PLENTY, || async {
            left_in(&dir.path().join(slot)).await == Some(records)
        })
        .await
        .unwrap();
    }
    bench
        .comes_to_show("seawall_spool_adopting_records 0")
        .await;
}

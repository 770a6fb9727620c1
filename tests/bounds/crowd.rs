//! Sixteen producers and every policy: no bound is ever passed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use seawall::{
    error::ErrorKind,
    spool::{Overflow, Place, QueueLimits, SpoolOptions},
};
use tokio::task::JoinSet;

use super::far::{Far, Run, Way};

const PRODUCERS: u64 = 16;
const EACH: u64 = 60;

/// What became of the records of all producers.
#[derive(Debug, Default)]
struct Told {
    spooled: u64,
    dropped: u64,
    refused: u64,
}

/// Each producer waits for one answer before its next record. Looks at the spool all the while, and
/// says the most it ever held.
async fn crowd(run: Run) -> (Run, Told, u64, u64) {
    let run = Arc::new(run);
    let done = Arc::new(AtomicBool::new(false));
    let looking = std::thread::spawn({
        let (spool, done) = (run.spool.clone(), done.clone());
        move || {
            let mut most = (0, 0);
            while !done.load(Relaxed) {
                let stats = spool.stats();
                most = (stats.records.max(most.0), stats.bytes.max(most.1));
                std::thread::yield_now();
            }
            most
        }
    });
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let run = run.clone();
        producers.spawn(async move {
            let mut told = Told::default();
            for number in 0..EACH {
                let padding = (number * 37 % 300) as usize;
                let number = producer * EACH + number;
                match run.hand_in("notes", number, padding).await {
                    Ok(receipt) if receipt.place() == Place::Dropped => told.dropped += 1,
                    Ok(_) => told.spooled += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::SpoolFull, "{error:?}");
                        told.refused += 1;
                    }
                }
            }
            told
        });
    }
    let mut all = Told::default();
    for told in producers.join_all().await {
        all.spooled += told.spooled;
        all.dropped += told.dropped;
        all.refused += told.refused;
    }
    done.store(true, Relaxed);
    let (records, bytes) = looking.join().unwrap();
    let run = Arc::into_inner(run).expect("the producers have ended");
    (run, all, records, bytes)
}

type Bounds = fn(SpoolOptions) -> SpoolOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_producers_pass_no_bound_under_any_policy() {
    let bounds: [(Bounds, u64, u64); 4] = [
        (|options| options.with_max_records(50), 50, u64::MAX),
        (
            |options| options.with_max_bytes(16 << 10),
            u64::MAX,
            16 << 10,
        ),
        (
            |options| {
                let own = QueueLimits::new().with_max_records(40);
                options.with_queue_limits("notes", own)
            },
            40,
            u64::MAX,
        ),
        (
            |options| {
                let own = QueueLimits::new().with_max_bytes(12 << 10);
                options.with_default_queue_limits(own)
            },
            u64::MAX,
            12 << 10,
        ),
    ];
    let brief = Duration::from_millis(1);
    let policies = [
        Overflow::Reject,
        Overflow::Block { timeout: brief },
        Overflow::DropOldest,
        Overflow::DropNewest,
    ];
    for (bound, max_records, max_bytes) in bounds {
        for policy in policies {
            let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
            let run = Run::open(&dir, &far, |options| bound(options).with_overflow(policy)).await;
            let (run, told, records, bytes) = crowd(run).await;
            let what = format!("{policy:?}, {max_records}, {max_bytes}: {told:?}");
            assert!(
                records <= max_records && bytes <= max_bytes,
                "{what}: {records}, {bytes}"
            );
            let held = run.spool.stats().records;
            let (oldest, newest) = (run.dropped("oldest"), run.dropped("newest"));
            assert_eq!(held + oldest, told.spooled, "{what}");
            assert_eq!(newest, told.dropped, "{what}");
            match policy {
                Overflow::DropOldest => assert_eq!((newest, told.refused), (0, 0), "{what}"),
                Overflow::DropNewest => assert_eq!((oldest, told.refused), (0, 0), "{what}"),
                _ => assert_eq!((oldest, newest), (0, 0), "{what}"),
            }
            if max_records < u64::MAX {
                assert_eq!(held, max_records, "{what}");
            }
            far.is(Way::Up);
            run.drain().await;
            assert_eq!(far.has("notes").len() as u64, held, "{what}");
        }
    }
}

//! Drops and expiry while the far end comes and goes: the sums are exact all the same.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use seawall::{
    error::ErrorKind,
    spool::{Ack, Overflow, Place, QueueLimits, WhenOld},
};
use tokio::{task::JoinSet, time::sleep};

use super::far::{Far, Run, Way};

const PRODUCERS: u64 = 3;
const EACH: u64 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_and_not_delivered_is_what_was_counted() {
    for seed in 0..12 {
        run(seed).await;
    }
}

/// The far end never does what it does not say, so nothing is in doubt.
async fn run(seed: u64) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let millis = Duration::from_millis;
    let (dir, far) = (tempfile::tempdir().unwrap(), Far::new());
    let policy = [Overflow::DropOldest, Overflow::DropNewest][dice.random_range(0..2)];
    let age = dice
        .random_bool(0.5)
        .then(|| millis(dice.random_range(1..30)));
    let own = QueueLimits::new().with_max_records(dice.random_range(1..40));
    let (ack, batch) = (dice.random_bool(0.5), dice.random_range(1..20));
    let run = Run::open(&dir, &far, |options| {
        let options = options
            .with_ack(if ack { Ack::Primary } else { Ack::Spooled })
            .with_spool_after(millis(2))
            .with_max_batch(batch, 1 << 20)
            .with_max_records(dice.random_range(20..60))
            .with_overflow(policy)
            .with_queue_limits("notes", own);
        match age {
            Some(age) => options.with_max_age(age, WhenOld::Expire),
            None => options,
        }
    })
    .await;
    let run = Arc::new(run);
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let run = run.clone();
        let mut dice = SmallRng::seed_from_u64(seed * 100 + producer);
        producers.spawn(async move {
            let numbers: Vec<_> = (producer * EACH..(producer + 1) * EACH).collect();
            let mut taken = Vec::new();
            for some in numbers.chunks(dice.random_range(1..12)) {
                let receipts: Vec<_> = some.iter().map(|n| run.hand_in("notes", *n, 0)).collect();
                for (number, receipt) in some.iter().zip(receipts) {
                    match receipt.await {
                        Ok(receipt) if receipt.place() == Place::Dropped => {}
                        Ok(_) => taken.push(*number),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::SpoolFull),
                    }
                }
                sleep(millis(dice.random_range(0..3))).await;
            }
            taken
        });
    }
    let weather = tokio::spawn({
        let far = far.clone();
        async move {
            loop {
                far.is([Way::Up, Way::Down, Way::Hangs][dice.random_range(0..3)]);
                sleep(millis(dice.random_range(0..8))).await;
            }
        }
    });
    let taken: Vec<u64> = producers.join_all().await.concat();
    weather.abort();
    let _ = weather.await;
    far.is(Way::Up);
    run.drain().await;
    let has = far.has("notes");
    let once: HashSet<_> = has.iter().copied().collect();
    assert_eq!(once.len(), has.len(), "seed {seed}: twice");
    for producer in 0..PRODUCERS {
        let of_one = has.iter().filter(|number| **number / EACH == producer);
        assert!(of_one.is_sorted(), "seed {seed}: {has:?}");
    }
    let taken: HashSet<_> = taken.into_iter().collect();
    let missing = taken.difference(&once).count() as u64;
    let counted = run.dropped("oldest") + run.counted("seawall_expired_total", &[]);
    assert_eq!(missing, counted, "seed {seed}");
    let refused: Vec<_> = once.difference(&taken).collect();
    assert!(refused.is_empty(), "seed {seed}: {refused:?}");
}

//! The whole spool, in a process that is killed, against nothing but a deque for each queue.
//!
//! Where [`model`](super::model) looks at a lane between a failing far end and a failing app, this one looks
//! at the store: what is appended, of any size, what is delivered, parked and expired, whatever is closed,
//! killed, rotated and opened again in between. The far end is here and not in the process, so that it
//! remembers what the process has forgotten.
//!
//! Wall clocks cannot be set here: it is the records that say they expire so many hours earlier or later, which
//! is what a clock that jumps does to them. When a chunk was written is told by the true clock.

mod far_end;
mod process;
mod world;

use std::path::Path;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use self::{process::Settings, world::World};
use super::seeds;

#[test]
fn whatever_is_done_to_the_spool_it_holds_what_a_deque_for_each_queue_would() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in seeds(5) {
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 30,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let run = |(bound, settings, steps): (_, _, Vec<Step>)| {
            let dir = tempfile::tempdir().unwrap();
            runtime.block_on(run(seed, dir.path(), bound, settings, &steps));
            Ok(())
        };
        if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&steps(), run) {
            panic!("seed {seed}: {failure}");
        }
    }
}

async fn run(seed: u64, dir: &Path, bound: Option<u64>, settings: Settings, steps: &[Step]) {
    let mut world = World::new(seed, dir, bound, settings).await;
    for step in steps {
        world.step(step).await;
    }
    // And all is as it was when it is opened once more.
    world.step(&Step::Close(settings)).await;
    world.step(&Step::Drain).await;
    world.step(&Step::Close(settings)).await;
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<(u8, u32, Option<i64>)>,
        /// How many records the far end takes meanwhile.
        taking: u64,
    },
    Deliver {
        most: u64,
        /// One of so many batches lands without a reply.
        lossy: Option<u64>,
    },
    Drain,
    Jump(i64),
    Close(Settings),
    Crash(Settings),
    /// While records are on their way, so many microseconds after they were handed in.
    CrashAppending {
        records: Vec<(u8, u32, Option<i64>)>,
        after_us: u64,
        settings: Settings,
    },
}

fn steps() -> impl Strategy<Value = (Option<u64>, Settings, Vec<Step>)> {
    let size = prop_oneof![
        6 => 0..300_u32,
        3 => 300..20_000_u32,
        1 => 20_000..200_000_u32,
    ];
    let expires =
        prop_oneof![8 => Just(None), 1 => Just(Some(-1)), 1 => Just(Some(1)), 1 => Just(Some(3))];
    let record = (
        prop_oneof![4 => Just(0_u8), 2 => Just(1_u8), 1 => Just(2_u8)],
        size,
        expires,
    );
    let records = prop::collection::vec(record, 1..50);
    let settings = (any::<bool>(), prop::bool::weighted(0.8), 1..100_usize).prop_map(
        |(spooled, fast, max_batch)| Settings {
            spooled,
            fast,
            max_batch,
        },
    );
    let step = prop_oneof![
        6 => (records.clone(), prop_oneof![3 => Just(0), 1 => 1..60_u64])
            .prop_map(|(records, taking)| Step::Append { records, taking }),
        4 => (1..60_u64, prop::option::of(2..5_u64))
            .prop_map(|(most, lossy)| Step::Deliver { most, lossy }),
        1 => Just(Step::Drain),
        1 => prop::sample::select(vec![-2, 0, 2, 4]).prop_map(Step::Jump),
        1 => settings.clone().prop_map(Step::Close),
        2 => settings.clone().prop_map(Step::Crash),
        1 => (records, 0..30_000_u64, settings.clone()).prop_map(|(records, after_us, settings)| {
            Step::CrashAppending { records, after_us, settings }
        }),
    ];
    let bound = prop::option::weighted(0.3, 10..100_u64);
    (bound, settings, prop::collection::vec(step, 1..20))
}

//! The lives of a worker that the power is cut in.

use rand::{Rng as _, rngs::SmallRng};

use super::{
    log::{self, Entry},
    worker::{Place, SMALL, Setting, Step},
};

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// Appends and partial replay, one life.
    Steady,
    /// Several lives, each with its end, in order or not.
    Restarts,
    /// More than a generation holds.
    Rotation,
    /// No room any more, and the next life has none either.
    FullDisk,
}

pub(crate) const SCENES: [Scene; 4] = [
    Scene::Steady,
    Scene::Restarts,
    Scene::Rotation,
    Scene::FullDisk,
];
pub(crate) const GROUPS: [usize; 3] = [1, 8, 32];

/// Lets a worker play the scene, and says what happened.
pub(crate) fn play(
    scene: Scene,
    group: usize,
    dice: &mut SmallRng,
    set: &[Setting<'_>],
) -> (Place, Vec<Entry>) {
    let mut place = Place::new();
    let some = 12 * group as u64;
    let part = |dice: &mut SmallRng, bytes| {
        vec![
            Step::Append(dice.random_range(some / 4..some), bytes),
            Step::Take(dice.random_range(0..6)),
            Step::Append(dice.random_range(1..some), bytes),
            Step::Take(dice.random_range(0..4)),
        ]
    };
    match scene {
        Scene::Steady => {
            let mut steps = part(dice, 0);
            steps.extend(part(dice, 0));
            steps.push(Step::Close);
            let orders = place.orders(group, &steps);
            place.run(&orders, set);
        }
        Scene::Restarts => {
            for _ in 0..4 {
                let mut steps = part(dice, 0);
                if dice.random_bool(0.2) {
                    steps.push(Step::Take(u64::MAX));
                }
                steps.push(if dice.random_bool(0.5) {
                    Step::Close
                } else {
                    Step::Exit
                });
                let orders = place.orders(group, &steps);
                place.run(&orders, set);
            }
        }
        Scene::Rotation => {
            // A few such records are more than a generation holds.
            let bulk = (SMALL / 4) as usize / group;
            let mut steps = part(dice, bulk);
            steps.extend(part(dice, 0));
            steps.extend(part(dice, bulk));
            if dice.random_bool(0.3) {
                steps.push(Step::Take(u64::MAX));
                steps.extend(part(dice, bulk));
            }
            steps.push(if dice.random_bool(0.5) {
                Step::Close
            } else {
                Step::Exit
            });
            let orders = place.orders(group, &steps).with_generation(SMALL);
            place.run(&orders, set);
        }
        Scene::FullDisk => {
            let full = dice.random_range(FULL).to_string();
            let mut limited = set.to_vec();
            limited.push(("POWERCUT_FULL", &full));
            for end in [Step::Exit, Step::Close] {
                let mut steps = part(dice, 0);
                steps.push(Step::Append(1 << 10, FILLING));
                steps.extend(part(dice, 0));
                steps.push(Step::Take(u64::MAX));
                steps.extend(part(dice, 0));
                steps.push(end);
                let orders = place.orders(group, &steps);
                place.run(&orders, &limited);
            }
        }
    }
    let entries = log::read(place.log());
    (place, entries)
}

/// The disk's bytes.
const FULL: std::ops::Range<u64> = 2 << 20..20 << 20;
/// Records that fill it.
const FILLING: usize = 30_000;

//! The writes that Redis acknowledges and loses: with their repair, and as a control without.

use std::{path::Path, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use seawall::{chaos::Target, error::BoxError};
use tokio::time::sleep;

use crate::{
    fleet::{self, Load},
    outcome::{self, Outcome},
    produce::{Level, Order},
    world::{Topology, World},
};

/// How Redis comes to lose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The replicas are cut off from the primary, which goes on acknowledging; it is killed, and one of
    /// them is promoted.
    LostWrites,
    /// The primary and its clients are on one side, all the rest on the other, where a replica is
    /// promoted; the old primary goes on acknowledging until the partition heals.
    SplitBrain,
}

/// Plays it with each seed, once with the repair and once without. Prints a line for each, and says whether
/// all came out as they must.
#[allow(clippy::print_stdout, reason = "a program, not the library")]
pub(crate) async fn play(
    scene: Scene,
    seeds: u64,
    seed: u64,
    rate: f64,
    dir: &Path,
) -> Result<bool, BoxError> {
    let mut as_it_must = true;
    for repair in [true, false] {
        let mut world = World::start(Topology::Sentinel).await?;
        for seed in seed..seed + seeds {
            let outcome = once(scene, &mut world, seed, rate, repair, dir).await?;
            println!(
                "{}: repair={repair} seed={seed} {} repaired={} lost_by_redis={}",
                scene.name(),
                outcome.total(),
                outcome.count("repaired"),
                outcome.count("lost_by_redis"),
            );
            if repair {
                as_it_must &= outcome.violations.is_empty();
                outcome.tell();
            } else if outcome.total().lost == 0 {
                as_it_must = false;
                println!("VIOLATION the control has lost nothing: the scene shows nothing");
            }
        }
    }
    Ok(as_it_must)
}

async fn once(
    scene: Scene,
    world: &mut World,
    seed: u64,
    rate: f64,
    repair: bool,
    dir: &Path,
) -> Result<Outcome, BoxError> {
    let load = Load {
        url: world.url(),
        rate,
        repair,
        order: Order::WORK,
    };
    let (role, levels) = if repair {
        ("repaired", &Level::ALL[..])
    } else {
        ("control", &[Level::Primary][..])
    };
    let prefix = format!("{role}-{seed}-");
    let mut producers = fleet::start(&load, &prefix, levels, false, dir).await?;
    let mut dice = StdRng::seed_from_u64(seed);
    let mut random = |millis| Duration::from_millis(dice.random_range(millis));
    let World::Sentinel(set, _) = &mut *world else {
        return Err("these are scenes of Sentinel's".into());
    };
    sleep(random(500..1_500)).await;
    let old = match scene {
        Scene::LostWrites => {
            let primary = set.primary().await;
            set.cut_replication(primary.ok_or("no majority of the sentinels names a primary")?);
            sleep(random(300..1_500)).await;
            set.kill_primary().await?
        }
        Scene::SplitBrain => set.split_brain().await?,
    };
    set.wait_for_primary_other_than(old).await?;
    sleep(random(0..1_000)).await;
    world.recover().await?;
    sleep(random(1_000..2_000)).await;
    fleet::finish(&mut producers).await?;
    outcome::judge(&producers, world).await
}

impl Scene {
    fn name(self) -> &'static str {
        match self {
            Self::LostWrites => "lost-writes",
            Self::SplitBrain => "split-brain",
        }
    }
}

//! The writes that Redis acknowledges and loses: with their repair, and as a control without.

use std::{path::Path, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use seawall::error::BoxError;
use tokio::time::sleep;

use crate::{
    fleet::{self, Load},
    outcome::{self, Outcome},
    produce::{Level, Order},
    sentinel::Sentinel,
    world::World,
};

/// The replicas are cut off from the primary, which goes on acknowledging; it is killed, and one of them
/// is promoted. Once with the repair and once without, for each seed. Prints a line for each, and says
/// whether all came out as they must.
#[allow(clippy::print_stdout, reason = "a program, not the library")]
pub(crate) async fn lost_writes(
    seeds: u64,
    seed: u64,
    rate: f64,
    dir: &Path,
) -> Result<bool, BoxError> {
    let mut as_it_must = true;
    for repair in [true, false] {
        let mut world = World::Sentinel(Sentinel::start().await?);
        for seed in seed..seed + seeds {
            let outcome = lose(&mut world, seed, rate, repair, dir).await?;
            println!(
                "lost-writes: repair={repair} seed={seed} {} repaired={} lost_by_redis={}",
                outcome.total(),
                outcome.count("repaired"),
                outcome.count("lost_by_redis"),
            );
            let lost = outcome.total().lost;
            if repair {
                as_it_must &= outcome.violations.is_empty();
                outcome.tell();
            } else if lost == 0 {
                as_it_must = false;
                println!("VIOLATION the control has lost nothing: the scene shows nothing");
            }
        }
    }
    Ok(as_it_must)
}

async fn lose(
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
    let levels = if repair {
        &Level::ALL[..]
    } else {
        &[Level::Primary]
    };
    let prefix = format!("{}-{seed}-", if repair { "repaired" } else { "control" });
    let mut producers = fleet::start(&load, &prefix, levels, false, dir).await?;
    let mut dice = StdRng::seed_from_u64(seed);
    let mut random = |millis| Duration::from_millis(dice.random_range(millis));
    let World::Sentinel(sentinel) = &mut *world else {
        return Err("this is a scene of Sentinel's".into());
    };
    sleep(random(500..1_500)).await;
    sentinel.cut_replicas().await?;
    sleep(random(300..1_500)).await;
    sentinel.kill().await?;
    sentinel.heal().await?;
    sleep(random(1_000..2_000)).await;
    fleet::finish(&mut producers).await?;
    outcome::judge(&producers, world).await
}

//! One kind of failover after the other, again and again, idle and under load.

use std::{path::Path, time::Duration};

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::StdRng};
use seawall::{chaos::Target, error::BoxError};
use tokio::time::sleep;

use crate::{
    fleet::{self, Load, Producer},
    outcome::{self, Outcome},
    produce::{Level, Order},
    world::{Topology, World},
};

/// How the primary stops being it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    Kill,
    Freeze,
    Command,
    /// From the other servers, the sentinels and the clients.
    Partition,
}

/// Each way, idle and under load, with so many seeds, on one Sentinel set. Prints a line for each of them,
/// and says whether all were clean.
#[allow(clippy::print_stdout, reason = "a program, not the library")]
pub(crate) async fn run(seeds: u64, seed: u64, rate: f64, dir: &Path) -> Result<bool, BoxError> {
    let mut world = World::start(Topology::Sentinel).await?;
    let mut clean = true;
    for how in How::value_variants().iter().copied() {
        for load in [false, true] {
            let (line, outcome) = many(&mut world, how, load, seeds, seed, rate, dir).await?;
            println!("{line}");
            clean &= outcome.violations.is_empty();
            outcome.tell();
        }
    }
    Ok(clean)
}

async fn many(
    world: &mut World,
    how: How,
    load: bool,
    seeds: u64,
    seed: u64,
    rate: f64,
    dir: &Path,
) -> Result<(String, Outcome), BoxError> {
    let name = format!("{}-{}", how.name(), if load { "load" } else { "idle" });
    let order = if load { Order::WORK } else { Order::IDLE };
    let producers = Load {
        url: world.url(),
        rate,
        repair: true,
        order,
    };
    let mut producers =
        fleet::start(&producers, &format!("{name}-"), &Level::ALL, false, dir).await?;
    let before = world.switches().len();
    for seed in seed..seed + seeds {
        once(
            world,
            how,
            order,
            StdRng::seed_from_u64(seed),
            &mut producers,
        )
        .await?;
    }
    sleep(AFTERWARDS).await;
    fleet::finish(&mut producers).await?;
    let mut outcome = outcome::judge(&producers, world).await?;
    let delays = outcome.delays(&world.switches()[before..]);
    if delays.none > 0 {
        let none = format!("{name}: {} switches with no answer after them", delays.none);
        outcome.violations.push(none);
    }
    let line = format!(
        "failover: how={} load={load} seed={seed} seeds={seeds} first_success {delays} \
         slowest_call_ms={} late={} {}",
        how.name(),
        outcome.count("slowest_call_us") / 1_000,
        outcome.late,
        outcome.total(),
    );
    Ok((line, outcome))
}

async fn once(
    world: &mut World,
    how: How,
    order: Order,
    mut dice: StdRng,
    producers: &mut [Producer],
) -> Result<(), BoxError> {
    let World::Sentinel(set, switches) = &mut *world else {
        return Err("these are failovers of Sentinel's".into());
    };
    sleep(Duration::from_millis(dice.random_range(0..500))).await;
    let before = switches.seen().len();
    match how {
        How::Kill => drop(set.kill_primary().await?),
        How::Freeze => drop(set.freeze_primary().await?),
        How::Command => set.failover().await?,
        How::Partition => {
            let primary = set.primary().await;
            set.cut_off(primary.ok_or("no majority of the sentinels names a primary")?);
        }
    }
    let switch = switches.after(before).await?;
    // Those who were idle until now have one call after the other.
    for producer in &mut *producers {
        producer
            .order(Order {
                calls: true,
                ..order
            })
            .await?;
    }
    for producer in &mut *producers {
        producer.served_by(switch.port).await?;
    }
    for producer in producers {
        producer.order(order).await?;
    }
    Ok(world.recover().await?)
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Command => "command",
            Self::Partition => "partition",
        }
    }
}

const AFTERWARDS: Duration = Duration::from_secs(2);

//! One run of the nemesis against one topology.

use std::{
    collections::BTreeMap, fs::File, future::ready, io::Write, path::Path, sync::Arc,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use seawall::{
    chaos::{Attack, Nemesis, Target, wait_until},
    error::BoxError,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    fleet::{self, Load, Producer},
    outcome::{self, Outcome},
    produce::Order,
    world::{Disturbing, Topology, World},
};

pub(crate) struct Run {
    pub(crate) topology: Topology,
    pub(crate) seed: u64,
    pub(crate) span: Duration,
    pub(crate) rate: f64,
}

impl Run {
    /// Where there is a primary to lose, some of the attacks on the network are left out, or they would be
    /// most of it.
    fn nemesis(&self, known: &[Attack]) -> Nemesis {
        let mut network: Vec<_> = Attack::on_the_network().collect();
        network.shuffle(&mut StdRng::seed_from_u64(self.seed));
        if self.topology.loses_writes() {
            network.truncate(NETWORK_ATTACKS);
        }
        let others = known.iter().filter(|attack| attack.fault(0).is_none());
        Nemesis::new(self.seed)
            .with_attacks(network.into_iter().chain(others.copied()))
            .with_strikes(u64::MAX)
            .with_limit(self.span)
            .with_pause(millis(50), millis(1_000))
            .with_lasts(millis(50), millis(4_000))
    }

    /// Attacks until the time is up, heals, waits until the producers have drained, and judges.
    #[allow(clippy::print_stdout, reason = "a program, not the library")]
    pub(crate) async fn run(&self, dir: &Path) -> Result<Outcome, BoxError> {
        println!(
            "== {}, seed {}, {:.0?}, {:.0} jobs a second",
            self.topology.name(),
            self.seed,
            self.span,
            self.rate
        );
        let mut world = World::start(self.topology).await?;
        let load = Load {
            url: world.url(),
            rate: self.rate,
            repair: true,
            order: Order::WORK,
        };
        let mut producers = fleet::start(&load, "", self.topology.levels(), true, dir).await?;
        let end = Instant::now() + self.span;
        let calm = Arc::new(Mutex::new(()));
        let mut target = Disturbing::new(&mut world, calm.clone());
        let mut deeds = File::create(dir.join("deeds.log"))?;
        let nemesis = self.nemesis(&target.attacks());
        let attacking = async {
            let struck = nemesis.run(&mut target, |deed| {
                let _ = writeln!(deeds, "{deed}");
            });
            Ok(struck.await?)
        };
        let dice = StdRng::seed_from_u64(self.seed);
        let killing = kill(&mut producers, self.topology, dice, end, &calm);
        tokio::try_join!(attacking, killing)?;
        let faults = target.attacks;
        // So that each lane has had to do with the Redis that is judged.
        sleep(AFTERWARDS).await;
        fleet::finish(&mut producers).await?;
        let outcome = outcome::judge(&producers, &world).await?;
        println!("faults: {}", counted(&faults));
        let killed: Vec<_> = producers
            .iter()
            .filter(|producer| producer.victim)
            .map(|producer| format!("{} {}", producer.setup.name, producer.kills))
            .collect();
        println!("producers killed: {}", killed.join(", "));
        println!("{}", outcome.summary());
        let switches = world.switches();
        if !switches.is_empty() {
            println!(
                "first success after +switch-master, {} times: {}",
                switches.len(),
                outcome.delays(&switches)
            );
        }
        Ok(outcome)
    }
}

/// Kills the victims with SIGKILL, one at a time, and starts them again on their spools.
///
/// What a primary has acknowledged and its replicas lack may be in the memory of its producer alone. If
/// both die it is lost, which is a limit and no fault: such a producer dies in the calm, and once replicas have it
/// all.
async fn kill(
    producers: &mut [Producer],
    topology: Topology,
    mut dice: StdRng,
    end: Instant,
    calm: &Mutex<()>,
) -> Result<(), BoxError> {
    let mut victims: Vec<_> = producers
        .iter_mut()
        .filter(|producer| producer.victim)
        .collect();
    while !victims.is_empty() {
        let at = Instant::now() + millis(dice.random_range(BETWEEN_KILLS));
        if at >= end {
            break;
        }
        sleep_until(at).await;
        let number = dice.random_range(0..victims.len());
        let victim = &mut victims[number];
        let tail_in_memory = topology.loses_writes() && victim.setup.level.keeps_tail_in_memory();
        let held = if tail_in_memory {
            let held = calm.lock().await;
            victim
                .order(Order {
                    jobs: false,
                    ..Order::WORK
                })
                .await?;
            let what = "replicas that have all that was acknowledged";
            let counts = victim.counts_written()? + 1;
            wait_until(what, REPAIRED_WITHIN, || {
                ready(victim.has_no_tail_since(counts).unwrap_or(false))
            })
            .await?;
            victim.order(Order::WORK).await?;
            sleep(millis(dice.random_range(DEAD))).await;
            Some(held)
        } else {
            None
        };
        victim.kill().await?;
        sleep(millis(dice.random_range(DEAD))).await;
        victim.begin().await?;
        drop(held);
    }
    Ok(())
}

const NETWORK_ATTACKS: usize = 4;
const BETWEEN_KILLS: std::ops::Range<u64> = 500..4_000;
const DEAD: std::ops::Range<u64> = 0..800;
const REPAIRED_WITHIN: Duration = Duration::from_secs(60);
const AFTERWARDS: Duration = Duration::from_secs(2);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn counted(faults: &BTreeMap<&'static str, u32>) -> String {
    let counted: Vec<_> = faults
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    counted.join(" ")
}

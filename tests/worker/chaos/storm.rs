//! Everything at once, at random: workers killed, frozen and cut off, and Redis killed and frozen.

use std::time::Duration;

use rand::{Rng as _, rngs::SmallRng};
use seawall::chaos::{Fault, FaultProxy, RedisServer};
use tokio::time::sleep;

use super::{
    crew::{
        Plan::{self, Fails, Hopeless, Takes},
        Worker,
    },
    diary::now,
    judge::Cause,
    scene::Scene,
    seeds::{dice, seeds},
};

#[tokio::test]
async fn every_job_ends_whatever_happens_to_workers_and_redis() {
    for seed in seeds(2) {
        let mut storm = Storm::new(seed).await;
        for _ in 0..STRIKES {
            storm.enqueue().await;
            storm.strike().await;
        }
        storm.scene.settled().await;
        for berth in storm.berths {
            berth.worker.stop().await;
        }
        let balance = storm.scene.balance().await;
        balance.must_be_clean(&format!("storm, seed {seed}, {}", storm.log.join(", ")));
        assert_eq!(balance.dead, storm.hopeless, "seed {seed}: {balance}");
        let all = balance.succeeded + balance.dead;
        assert_eq!(all, balance.acknowledged, "seed {seed}: {balance}");
    }
}

const STRIKES: usize = 8;
const JOBS_A_STRIKE: usize = 40;

struct Storm {
    dice: SmallRng,
    redis: RedisServer,
    scene: Scene,
    berths: Vec<Berth>,
    hopeless: usize,
    log: Vec<String>,
}

/// A place for a worker, with its way to Redis. A killed one is replaced by another with the same disk.
struct Berth {
    proxy: FaultProxy,
    worker: Worker,
    spool: std::path::PathBuf,
    taken: usize,
}

impl Storm {
    async fn new(seed: u64) -> Self {
        let redis = RedisServer::builder().durable().start().await.unwrap();
        let mut scene = Scene::new(&redis.url(), "jobs").await;
        let mut berths = Vec::new();
        for at in 0..3 {
            let proxy = FaultProxy::start(redis.addr()).await.unwrap();
            let mut orders = scene.orders(&format!("{at}.0"));
            (orders.url, orders.goes) = (proxy.url(), true);
            berths.push(Berth {
                spool: orders.spool.clone(),
                worker: scene.start(orders).await,
                proxy,
                taken: 0,
            });
        }
        Self {
            dice: dice(seed),
            redis,
            scene,
            berths,
            hopeless: 0,
            log: Vec::new(),
        }
    }

    async fn enqueue(&mut self) {
        let plans: Vec<Plan> = (0..JOBS_A_STRIKE)
            .map(|_| match self.dice.random_range(0..20) {
                0 => Hopeless,
                1..4 => Fails(self.dice.random_range(1..3)),
                // Longer than a lease.
                4 => Takes(self.dice.random_range(500..1_500)),
                _ => Takes(self.dice.random_range(0..60)),
            })
            .collect();
        self.hopeless += plans.iter().filter(|plan| **plan == Hopeless).count();
        self.scene.enqueue(plans).await;
    }

    async fn strike(&mut self) {
        let which = self.dice.random_range(0..self.berths.len());
        let lasts = Duration::from_millis(self.dice.random_range(50..1_800));
        let strike = self.dice.random_range(0..6);
        sleep(Duration::from_millis(self.dice.random_range(0..200))).await;
        let berth = &mut self.berths[which];
        let what = match strike {
            0 | 1 => {
                berth.worker.kill().await;
                berth.taken += 1;
                let mut orders = self.scene.orders(&format!("{which}.{}", berth.taken));
                orders.url = berth.proxy.url();
                orders.spool = berth.spool.clone();
                berth.worker = self.scene.start(orders).await;
                "killed"
            }
            2 => {
                let since = berth.worker.freeze();
                sleep(lasts).await;
                berth.worker.thaw(since);
                "frozen"
            }
            3 => {
                let faults = [
                    Fault::BlackHole,
                    Fault::Stall,
                    Fault::Reset,
                    Fault::DropReplies,
                    Fault::DropNextReply,
                ];
                let since = now();
                berth
                    .proxy
                    .set(faults[self.dice.random_range(0..faults.len())]);
                sleep(lasts).await;
                berth.proxy.heal();
                berth.worker.did(Cause::LeaseTaken, since, now());
                "cut off"
            }
            4 => {
                self.redis.kill().await.unwrap();
                sleep(lasts).await;
                self.redis.restart().await.unwrap();
                "Redis killed"
            }
            _ => {
                self.redis.freeze().await.unwrap();
                sleep(lasts).await;
                self.redis.thaw().unwrap();
                "Redis frozen"
            }
        };
        self.log.push(format!("{which} {what}"));
    }
}

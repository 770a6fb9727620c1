//! Random operations, takes, claims and lost writes, against a model that says what a job's life is.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};
use seawall::sequence::Write;

use crate::{
    queue::{Contents, Queue, id, key, operation},
    seeds::{dice, seeds},
};

/// Where a job is, and how often it has failed.
#[derive(Clone, Debug, PartialEq)]
struct Life {
    place: Place,
    tries: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Ready,
    Later(i64),
    Running(u32, String),
    Dead(i64),
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<u8, Life>,
    results: BTreeMap<u8, String>,
}

const FUTURE: i64 = 4_000_000_000_000;
const MOST_DEAD: usize = 3;

impl Model {
    fn add(&mut self, id: u8, due: i64) {
        if self.jobs.contains_key(&id) {
            return;
        }
        let place = if due > 0 {
            Place::Later(due)
        } else {
            Place::Ready
        };
        self.jobs.insert(id, Life { place, tries: 0 });
        self.results.remove(&id);
    }

    fn end(&mut self, id: u8, attempt: u32, token: &str, keep: bool) {
        let Some(life) = self.jobs.get(&id) else {
            return;
        };
        let mine = life.place == Place::Running(attempt, token.to_owned());
        if mine || life.tries < attempt {
            self.jobs.remove(&id);
            if keep {
                self.results.insert(id, format!("s{attempt}"));
            }
        }
    }

    /// Whether this execution still decides, and if so where its job is put.
    fn put(&mut self, id: u8, attempt: u32, token: &str, tries: Option<u32>, place: Place) {
        let Some(life) = self.jobs.get_mut(&id) else {
            return;
        };
        let decides = match &life.place {
            Place::Running(by, owner) => *by == attempt && owner == token,
            _ => life.tries < attempt,
        };
        if decides {
            *life = Life {
                place,
                tries: tries.unwrap_or(life.tries),
            };
        }
        self.trim();
    }

    fn trim(&mut self) {
        let mut dead: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(id, life)| match life.place {
                Place::Dead(expires) => Some((expires, *id)),
                _ => None,
            })
            .collect();
        dead.sort_unstable();
        let over = dead.len().saturating_sub(MOST_DEAD);
        for (_, id) in dead.drain(..over) {
            self.jobs.remove(&id);
        }
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents {
            results: self.results.clone(),
            ..Contents::default()
        };
        for (id, life) in &self.jobs {
            contents.jobs.insert(*id, format!("job {id}"));
            if life.tries > 0 {
                contents.failures.insert(*id, format!("{} 0", life.tries));
            }
            match &life.place {
                Place::Ready => drop(contents.ready.insert(*id)),
                Place::Later(due) => drop(contents.later.insert(*id, *due)),
                Place::Running(attempt, token) => {
                    drop(contents.running.insert(*id, format!("{attempt} {token}")));
                }
                Place::Dead(expires) => drop(contents.dead.insert(*id, *expires)),
            }
        }
        contents
    }
}

struct World {
    queue: Queue,
    model: Model,
    dice: SmallRng,
    pending: Vec<Write>,
    clock: i64,
}

impl World {
    fn id(&mut self) -> u8 {
        self.dice.random_range(1..=6)
    }

    fn token(&mut self) -> &'static str {
        ["ann", "bob"].choose(&mut self.dice).unwrap()
    }

    /// An execution that exists, mostly.
    fn execution(&mut self) -> (u8, u32, String) {
        let id = self.id();
        match self.model.jobs.get(&id).map(|life| life.place.clone()) {
            Some(Place::Running(attempt, token)) if self.dice.random_bool(0.7) => {
                (id, attempt, token)
            }
            _ => (id, self.dice.random_range(1..=3), self.token().to_owned()),
        }
    }

    fn operate(&mut self) {
        self.clock += 1;
        let write = match self.dice.random_range(0..10) {
            0..4 => {
                let id = self.id();
                let due = if self.dice.random_bool(0.3) {
                    FUTURE + self.clock
                } else {
                    0
                };
                self.model.add(id, due);
                operation("A", id, &[&format!("job {id}"), &due.to_string()])
            }
            4..6 => {
                let (id, attempt, token) = self.execution();
                let keep = self.dice.random_bool(0.5);
                self.model.end(id, attempt, &token, keep);
                let (attempt, ttl) = (attempt.to_string(), if keep { "9000000" } else { "0" });
                operation("E", id, &[&attempt, &token, "s", ttl, &attempt])
            }
            6..8 => {
                let (id, attempt, token) = self.execution();
                // At once, alone, or at its time.
                let due = match self.dice.random_range(0..10) {
                    0..3 => 0,
                    3 => -1,
                    _ => FUTURE + self.clock,
                };
                let place = if due == 0 {
                    Place::Ready
                } else {
                    Place::Later(due)
                };
                self.model.put(id, attempt, &token, Some(attempt), place);
                let failures = format!("{attempt} 0");
                operation(
                    "R",
                    id,
                    &[&attempt.to_string(), &token, &due.to_string(), &failures],
                )
            }
            8 => {
                let (id, attempt, token) = self.execution();
                let expires = FUTURE + self.clock;
                self.model
                    .put(id, attempt, &token, Some(attempt), Place::Dead(expires));
                let (failures, most) = (format!("{attempt} 0"), MOST_DEAD.to_string());
                let attempt = attempt.to_string();
                operation(
                    "D",
                    id,
                    &[&attempt, &token, &expires.to_string(), &most, &failures],
                )
            }
            _ => {
                let (id, attempt, token) = self.execution();
                self.model.put(id, attempt, &token, None, Place::Ready);
                operation("G", id, &[&attempt.to_string(), &token])
            }
        };
        self.pending.push(write);
    }

    async fn settle(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.queue.apply(pending).await;
        let (found, wanted) = (self.queue.contents().await, self.model.contents());
        // An id may be left in the list of a job that has been put elsewhere: who takes it looks.
        let stale: BTreeSet<_> = found.ready.difference(&wanted.ready).copied().collect();
        let missing: Vec<_> = wanted.ready.difference(&found.ready).collect();
        assert!(missing.is_empty(), "not in the list: {missing:?}");
        for id in stale {
            let place = self.model.jobs.get(&id).map(|life| &life.place);
            assert_ne!(place, Some(&Place::Ready));
        }
        let ready = wanted.ready.clone();
        assert_eq!(Contents { ready, ..found }, wanted);
    }

    /// A worker takes a job that is ready, or another worker takes over a running one.
    async fn take_or_claim(&mut self) {
        let id = self.id();
        let token = self.token();
        let Some(life) = self.model.jobs.get_mut(&id) else {
            return;
        };
        let attempt = match &life.place {
            Place::Ready => life.tries + 1,
            Place::Running(attempt, _) => *attempt,
            _ => return,
        };
        life.place = Place::Running(attempt, token.to_owned());
        let mut remove = redis::cmd("LREM");
        remove
            .arg(key("ready"))
            .arg(0)
            .arg(&crate::queue::id(id).as_bytes()[..]);
        let _: i64 = self.queue.tell(&remove).await;
        let mut start = redis::cmd("HSET");
        start
            .arg(key("running"))
            .arg(&crate::queue::id(id).as_bytes()[..]);
        let _: i64 = self
            .queue
            .tell(start.arg(format!("{attempt} {token}")))
            .await;
    }

    /// A failover loses that a job was started.
    async fn lose_a_start(&mut self) {
        let number = self.id();
        let Some(life) = self.model.jobs.get_mut(&number) else {
            return;
        };
        if matches!(life.place, Place::Running(..)) {
            life.place = Place::Ready;
            let id = id(number);
            let _: i64 = self
                .queue
                .tell(
                    redis::cmd("HDEL")
                        .arg(key("running"))
                        .arg(&id.as_bytes()[..]),
                )
                .await;
            let _: i64 = self
                .queue
                .tell(
                    redis::cmd("LPUSH")
                        .arg(key("ready"))
                        .arg(&id.as_bytes()[..]),
                )
                .await;
        }
    }
}

#[tokio::test]
async fn whatever_comes_in_whatever_order_a_job_is_in_one_place() {
    let mut queue = Some(Queue::new().await);
    for seed in seeds(120) {
        println!("SEAWALL_SEED={seed}");
        let held = queue.take().unwrap();
        let _: () = held.tell(&redis::cmd("FLUSHALL")).await;
        let mut world = World {
            queue: held,
            model: Model::default(),
            dice: dice(seed),
            pending: Vec::new(),
            clock: 0,
        };
        for _ in 0..world.dice.random_range(4..14) {
            for _ in 0..world.dice.random_range(0..12) {
                world.operate();
            }
            world.settle().await;
            for _ in 0..3 {
                world.take_or_claim().await;
            }
            if world.dice.random_bool(0.3) {
                world.lose_a_start().await;
            }
            world.settle().await;
        }
        queue = Some(world.queue);
    }
}

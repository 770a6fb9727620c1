//! What is done to Redis, and when.

use std::{io, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use seawall::chaos::RedisServer;
use tokio::time::{Instant, sleep_until};

use crate::timeline::{Redis, Timeline};

/// One misfortune.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    kind: Kind,
    /// Since the first job.
    at: Duration,
    lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `kill -9`, and started again with what its append-only file holds.
    Kill,
    /// `kill -STOP`: its sockets stay open, and nothing answers.
    Freeze,
}

/// Two kills and a freeze within `span`, some way apart, and over before it ends.
pub(crate) fn plan(seed: u64, span: Duration) -> Vec<Fault> {
    let mut dice = StdRng::seed_from_u64(seed);
    let frozen = dice.random_range(0..3);
    [0.12, 0.42, 0.70]
        .into_iter()
        .enumerate()
        .map(|(place, begin)| {
            let kind = if place == frozen {
                Kind::Freeze
            } else {
                Kind::Kill
            };
            Fault {
                kind,
                at: span.mul_f64(begin + dice.random_range(0.0..0.08)),
                lasts: span.mul_f64(dice.random_range(0.09..0.14)),
            }
        })
        .collect()
}

/// Carries it out.
pub(crate) async fn inflict(
    faults: &[Fault],
    redis: &mut RedisServer,
    timeline: &Timeline,
) -> io::Result<()> {
    for Fault { kind, at, lasts } in faults.iter().copied() {
        sleep_until(timeline.begun() + at).await;
        let until = Instant::now() + lasts;
        match kind {
            Kind::Kill => {
                redis.kill().await?;
                timeline.redis_is(Redis::Killed, "Redis killed (SIGKILL)");
                sleep_until(until).await;
                timeline.redis_is(Redis::Starting, "Redis started again; it reads its data");
                redis.restart().await.map_err(io::Error::other)?;
                timeline.redis_is(Redis::Up, "Redis answers again");
            }
            Kind::Freeze => {
                redis.freeze().await?;
                timeline.redis_is(Redis::Frozen, "Redis frozen (SIGSTOP)");
                sleep_until(until).await;
                redis.thaw()?;
                timeline.redis_is(Redis::Up, "Redis goes on (SIGCONT)");
            }
        }
    }
    Ok(())
}

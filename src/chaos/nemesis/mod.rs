//! Attacks in an order that a seed decides, each of them healed before the next.

mod attack;
mod redis_cluster;
mod schedule;
mod sentinel_set;
mod standalone;

pub use attack::Attack;
pub use schedule::Strike;
pub use standalone::ProxiedServer;

use std::{
    fmt, io,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::{NotMet, StartError};
use schedule::Schedule;

/// Attacks a server, or a set of them, again and again, and always ends with it healed.
///
/// The same seed and settings give the same [`strikes`](Self::strikes), of which a
/// [`run`](Self::run) carries out as many as it has time for. Each attack is used once before any
/// comes again. Keep the seed with the result: it is all that is needed to see the run again.
///
/// # Default
///
/// - `attacks`: all that the target knows
/// - `strikes`: 10
/// - `pause` before each of them: 200 ms to 2 s
/// - `lasts`: 100 ms to 4 s, which is shorter than some failovers take and longer than others
/// - no time limit
///
/// ```no_run
/// # async fn client_of(url: &str) {}
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use seawall::chaos::{Nemesis, SentinelSet};
///
/// let mut set = SentinelSet::builder().durable().proxied().start().await?;
/// let url = set.url();
/// let nemesis = Nemesis::new(7).with_strikes(5);
/// let (attacked, ()) = tokio::join!(
///     nemesis.run(&mut set, |deed| println!("{deed}")),
///     client_of(&url),
/// );
/// attacked?;
/// // Now judge what the client was told by what the set holds: it is healthy again.
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it attacks nothing until it is run"]
pub struct Nemesis {
    seed: u64,
    attacks: Option<Vec<Attack>>,
    strikes: u64,
    pause: RangeInclusive<Duration>,
    lasts: RangeInclusive<Duration>,
    limit: Option<Duration>,
}

impl Nemesis {
    /// The default settings with this seed.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            attacks: None,
            strikes: 10,
            pause: Duration::from_millis(200)..=Duration::from_secs(2),
            lasts: Duration::from_millis(100)..=Duration::from_secs(4),
            limit: None,
        }
    }

    /// Only these, of those that the target knows.
    pub fn with_attacks(mut self, attacks: impl IntoIterator<Item = Attack>) -> Self {
        self.attacks = Some(attacks.into_iter().collect());
        self
    }

    /// How many strikes there are.
    pub const fn with_strikes(mut self, strikes: u64) -> Self {
        self.strikes = strikes;
        self
    }

    /// How long all is well before each strike; drawn from between the two.
    pub const fn with_pause(mut self, shortest: Duration, longest: Duration) -> Self {
        self.pause = shortest..=longest;
        self
    }

    /// How long an attack lasts until it is healed; drawn from between the two.
    pub const fn with_lasts(mut self, shortest: Duration, longest: Duration) -> Self {
        self.lasts = shortest..=longest;
        self
    }

    /// No strike begins later than this. It makes how many there are a matter of the machine.
    pub const fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What a target that knows these attacks has to expect. There are none if none of those
    /// allowed is among them.
    pub fn strikes(&self, known: &[Attack]) -> impl Iterator<Item = Strike> + use<> {
        let allowed = |attack: &Attack| {
            let allowed = self.attacks.as_ref();
            allowed.is_none_or(|allowed| allowed.contains(attack))
        };
        let attacks: Vec<Attack> = known.iter().copied().filter(allowed).collect();
        let strikes = usize::try_from(self.strikes).unwrap_or(usize::MAX);
        Schedule::new(self.seed, attacks, self.pause.clone(), self.lasts.clone()).take(strikes)
    }

    /// Carries the strikes out one after the other, and waits after each until the target is well
    /// again. Says what it does to `tell`, and as a `tracing` event at level `info`. Returns how
    /// many strikes there were.
    ///
    /// # Errors
    ///
    /// An attack failed, or the target did not recover. In the first case it has recovered since.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it leaves the target as it is at that moment:
    /// [`recover`](Target::recover) it.
    pub async fn run<T: Target>(
        &self,
        target: &mut T,
        mut tell: impl FnMut(&Deed),
    ) -> Result<u64, AttackError> {
        let began = Instant::now();
        let mut struck = 0;
        let mut report = |strike: &Strike, what: String| {
            let deed = Deed {
                at: SystemTime::now(),
                since_start: began.elapsed(),
                strike: *strike,
                what,
            };
            tracing::info!(seed = self.seed, "nemesis: {deed}");
            tell(&deed);
        };
        for strike in self.strikes(&target.attacks()) {
            sleep(strike.after).await;
            if self.limit.is_some_and(|limit| began.elapsed() > limit) {
                break;
            }
            let attacked = target.strike(&strike).await;
            if let Ok(what) = &attacked {
                report(&strike, what.clone());
                struck += 1;
                sleep(strike.lasts).await;
            }
            report(&strike, "it is to recover".to_owned());
            target.recover().await?;
            report(&strike, "it has recovered".to_owned());
            attacked?;
        }
        Ok(struck)
    }
}

/// What a [`Nemesis`] can attack.
pub trait Target {
    /// The attacks that make sense here.
    fn attacks(&self) -> Vec<Attack>;

    /// Begins an attack, and says in a few words what was done to what. Where several things could
    /// be attacked, [`Strike::draw`] decides.
    ///
    /// # Errors
    ///
    /// It could not be done.
    fn strike(
        &mut self,
        strike: &Strike,
    ) -> impl Future<Output = Result<String, AttackError>> + Send;

    /// Undoes whatever was done to it, and waits until it is well.
    ///
    /// # Errors
    ///
    /// It is not well, and will not be.
    fn recover(&mut self) -> impl Future<Output = Result<(), AttackError>> + Send;
}

/// Something that a [`Nemesis`] did, and when. Its [`Display`](fmt::Display) is one line:
/// `12.345s kill: node 1 was killed (for 2.1s)`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Deed {
    /// By the clock on the wall, to compare with what other processes write down.
    pub at: SystemTime,
    /// Since the run began.
    pub since_start: Duration,
    /// The strike of which this is a part.
    pub strike: Strike,
    /// What was done to what.
    pub what: String,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strike { attack, lasts, .. } = self.strike;
        let (since_start, what) = (self.since_start.as_secs_f64(), &self.what);
        write!(f, "{since_start:.3}s {attack}: {what} (for {lasts:?})")
    }
}

/// Why an attack failed, or a target did not recover from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The target does not know this attack.
    #[error("there is no {0} here")]
    Unknown(Attack),
    /// What was to come about did not.
    #[error(transparent)]
    NotMet(#[from] NotMet),
    /// A server did not start again.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process could not be killed, frozen or thawed.
    #[error("a process could not be attacked")]
    Io(#[from] io::Error),
    /// A server did not do what it was told.
    #[error("a server did not obey")]
    Redis(#[from] redis::RedisError),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what is done to it; fails at one kind of attack.
    #[derive(Default)]
    struct Noted {
        calls: Vec<String>,
        fails_at: Option<Attack>,
    }

    impl Target for Noted {
        fn attacks(&self) -> Vec<Attack> {
            vec![Attack::Kill, Attack::Freeze]
        }

        async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
            self.calls.push(strike.attack.to_string());
            match self.fails_at {
                Some(attack) if attack == strike.attack => Err(AttackError::Unknown(attack)),
                _ => Ok("done".to_owned()),
            }
        }

        async fn recover(&mut self) -> Result<(), AttackError> {
            self.calls.push("recover".to_owned());
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_strike_is_healed_before_the_next_and_told_of() {
        let mut target = Noted::default();
        let mut deeds = Vec::new();
        let nemesis = Nemesis::new(1).with_strikes(4);
        let run = nemesis.run(&mut target, |deed| deeds.push(deed.to_string()));
        assert_eq!(run.await.unwrap(), 4);
        let expected: Vec<String> = nemesis
            .strikes(&target.attacks())
            .flat_map(|strike| [strike.attack.to_string(), "recover".to_owned()])
            .collect();
        assert_eq!(target.calls, expected);
        assert_eq!(deeds.len(), 12);
        let first = nemesis.strikes(&target.attacks()).next().unwrap();
        let told = format!(
            "{:.3}s {}: done (for {:?})",
            first.after.as_secs_f64(),
            first.attack,
            first.lasts
        );
        // Paused time goes in whole milliseconds.
        assert_eq!(deeds[0][6..], told[6..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_attack_ends_the_run_healed() {
        let mut target = Noted {
            fails_at: Some(Attack::Freeze),
            ..Noted::default()
        };
        let nemesis = Nemesis::new(1);
        let run = nemesis.run(&mut target, |_| {});
        let error = run.await.unwrap_err();
        assert_eq!(error.to_string(), "there is no freeze here");
        assert_eq!(target.calls.last().unwrap(), "recover");
    }

    #[tokio::test(start_paused = true)]
    async fn no_strike_begins_after_the_limit() {
        let mut target = Noted::default();
        let second = Duration::from_secs(1);
        let nemesis = Nemesis::new(1)
            .with_strikes(100)
            .with_pause(second, second)
            .with_lasts(second, second)
            .with_limit(second * 10);
        let struck = nemesis.run(&mut target, |_| {}).await.unwrap();
        assert_eq!(struck, 5);
        assert_eq!(target.calls.last().unwrap(), "recover");
    }
}

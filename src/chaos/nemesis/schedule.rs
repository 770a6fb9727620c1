//! What to do when, from a seed alone.

use std::{ops::RangeInclusive, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::Attack;

/// One attack of a [`Nemesis`](super::Nemesis), and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Strike {
    /// How long all is well before it.
    pub after: Duration,
    /// What is done.
    pub attack: Attack,
    /// How long it lasts until it is undone.
    pub lasts: Duration,
    /// Decides what else there is to decide, such as which of the replicas is meant.
    pub draw: u64,
}

impl Strike {
    /// Which one of `choices`, by its place. 0 if there are none.
    #[must_use]
    pub const fn pick(&self, choices: usize) -> usize {
        match choices {
            0 => 0,
            choices => (self.draw % choices as u64) as usize,
        }
    }
}

/// Strikes without an end.
#[derive(Debug)]
pub(super) struct Schedule {
    draws: SmallRng,
    attacks: Vec<Attack>,
    /// Those of this round that are still to come.
    deck: Vec<Attack>,
    pause: RangeInclusive<Duration>,
    lasts: RangeInclusive<Duration>,
}

impl Schedule {
    pub(super) fn new(
        seed: u64,
        attacks: Vec<Attack>,
        pause: RangeInclusive<Duration>,
        lasts: RangeInclusive<Duration>,
    ) -> Self {
        Self {
            draws: SmallRng::seed_from_u64(seed),
            attacks,
            deck: Vec::new(),
            pause,
            lasts,
        }
    }

    fn within(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let (one, other) = (*range.start(), *range.end());
        self.draws.random_range(one.min(other)..=one.max(other))
    }
}

impl Iterator for Schedule {
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.attacks);
            self.deck.shuffle(&mut self.draws);
        }
        let attack = self.deck.pop()?;
        let (pause, lasts) = (self.pause.clone(), self.lasts.clone());
        Some(Strike {
            after: self.within(&pause),
            attack,
            lasts: self.within(&lasts),
            draw: self.draws.random(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::chaos::Nemesis;

    fn strikes(nemesis: &Nemesis) -> Vec<Strike> {
        nemesis.strikes(&Attack::ALL).collect()
    }

    #[test]
    fn a_seed_gives_the_same_strikes_and_another_seed_others() {
        let nemesis = |seed| Nemesis::new(seed).with_strikes(100);
        assert_eq!(strikes(&nemesis(7)), strikes(&nemesis(7)));
        assert_ne!(strikes(&nemesis(7)), strikes(&nemesis(8)));
        let longer = strikes(&nemesis(7).with_strikes(200));
        assert_eq!(strikes(&nemesis(7)), longer[..100]);
    }

    #[test]
    fn each_attack_comes_once_before_any_comes_again() {
        let all = strikes(&Nemesis::new(3).with_strikes(4 * Attack::ALL.len() as u64));
        for round in all.chunks(Attack::ALL.len()) {
            let different: HashSet<Attack> = round.iter().map(|strike| strike.attack).collect();
            assert_eq!(different.len(), Attack::ALL.len());
        }
    }

    #[test]
    fn only_what_is_allowed_and_known_comes_and_within_its_bounds() {
        let (shortest, longest) = (Duration::from_millis(5), Duration::from_millis(9));
        let nemesis = Nemesis::new(1)
            .with_attacks([Attack::Kill, Attack::Freeze, Attack::Failover])
            .with_pause(longest, shortest)
            .with_lasts(shortest, shortest)
            .with_strikes(50);
        let known = [Attack::Freeze, Attack::Kill, Attack::Stall];
        let all: Vec<Strike> = nemesis.strikes(&known).collect();
        assert_eq!(all.len(), 50);
        for strike in all {
            assert!([Attack::Kill, Attack::Freeze].contains(&strike.attack));
            assert!((shortest..=longest).contains(&strike.after));
            assert_eq!(strike.lasts, shortest);
            assert!(strike.pick(3) < 3 && strike.pick(0) == 0);
        }
        assert_eq!(nemesis.strikes(&[Attack::Stall]).count(), 0);
    }
}

//! What a failover decides: each rule by itself, and a property of all histories.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    threshold: Duration::from_secs(10),
    grace: Some(Duration::from_secs(60)),
    longest_hold: Duration::from_secs(600),
};

/// Plays a history: `step(seconds, health)`, and what was decided at which second.
struct Play {
    start: Instant,
    failover: Failover,
    now: Instant,
    health: Vec<bool>,
    decided: Vec<(u64, usize)>,
}

impl Play {
    fn new(rules: Rules, health: &[bool]) -> Self {
        let start = Instant::now();
        let mut play = Self {
            start,
            failover: Failover::new(rules, health.len(), start),
            now: start,
            health: health.to_vec(),
            decided: Vec::new(),
        };
        play.observe();
        play
    }

    fn observe(&mut self) {
        if let Some(switch) = self.failover.observe(&self.health, self.now) {
            assert_eq!(switch.to, self.failover.active());
            let at = (self.now - self.start).as_secs();
            self.decided.push((at, switch.to));
        }
    }

    /// Lets time pass as the one who drives it does: from one due moment to the next.
    fn pass(&mut self, seconds: u64) -> &mut Self {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.failover.due().filter(|due| *due < until) {
            assert!(due > self.now, "it would spin");
            self.now = due;
            self.observe();
        }
        self.now = until;
        self.observe();
        self
    }

    fn pass_until_decided(&mut self) -> Instant {
        let before = self.decided.len();
        while self.decided.len() == before {
            self.now = self.failover.due().expect("something is to be decided");
            self.observe();
        }
        self.now
    }

    fn health(&mut self, health: &[bool]) -> &mut Self {
        self.health = health.to_vec();
        self.observe();
        self
    }
}

#[test]
fn the_standby_is_used_after_the_threshold_and_not_before() {
    let mut play = Play::new(RULES, &[true, true]);
    play.pass(100).health(&[false, true]).pass(9);
    assert_eq!(play.decided, []);
    play.pass(1000);
    assert_eq!(play.decided, [(110, 1)]);
    assert_eq!(play.failover.due(), None, "nothing to wait for");
}

#[test]
fn a_primary_that_is_down_at_the_start_gets_the_threshold_too() {
    let mut play = Play::new(RULES, &[false, true]);
    play.pass(30);
    assert_eq!(play.decided, [(10, 1)]);
}

#[test]
fn the_primary_is_gone_back_to_once_it_was_healthy_for_the_grace_without_a_break() {
    let mut play = Play::new(RULES, &[true, true]);
    play.health(&[false, true]).pass(20);
    play.health(&[true, true]).pass(59);
    play.health(&[false, true]).health(&[true, true]).pass(59);
    assert_eq!(play.decided, [(10, 1)]);
    play.pass(1);
    assert_eq!(play.decided, [(10, 1), (139, 0)]);
}

#[test]
fn without_failback_the_standby_stays_until_it_fails_itself() {
    let rules = Rules {
        grace: None,
        ..RULES
    };
    let mut play = Play::new(rules, &[true, true]);
    play.health(&[false, true]).pass(10);
    play.health(&[true, true]).pass(100_000);
    assert_eq!(play.decided, [(10, 1)]);
    play.health(&[true, false]).pass(10);
    assert_eq!(play.decided.len(), 2);
}

#[test]
fn with_nobody_healthy_it_stays_where_it_is_and_goes_to_the_first_that_comes_back() {
    let mut play = Play::new(RULES, &[true, true, true]);
    play.health(&[false, false, false]).pass(1000);
    assert_eq!(play.decided, []);
    assert_eq!(play.failover.due(), None);
    play.health(&[false, false, true]);
    assert_eq!(play.decided, [(1000, 2)]);
}

#[test]
fn an_active_one_that_recovers_first_is_kept() {
    let mut play = Play::new(RULES, &[true, true]);
    play.health(&[false, false]).pass(1000);
    play.health(&[true, false]).health(&[true, true]).pass(1000);
    assert_eq!(play.decided, []);
}

#[test]
fn one_that_comes_and_goes_is_left_and_short_disturbances_are_forgiven() {
    let mut flapping = Play::new(RULES, &[true, true]);
    for _ in 0..30 {
        flapping.health(&[false, true]).pass(1);
        flapping.health(&[true, true]).pass(1);
    }
    assert_eq!(flapping.decided.first(), Some(&(25, 1)));

    let mut disturbed = Play::new(RULES, &[true, true]);
    for _ in 0..1000 {
        disturbed.health(&[false, true]).pass(3);
        disturbed.health(&[true, true]).pass(12);
    }
    assert_eq!(disturbed.decided, []);
}

#[test]
fn each_soon_relapse_doubles_the_hold_and_a_long_service_forgives() {
    let mut play = Play::new(RULES, &[true, true]);
    let mut waits = Vec::new();
    for _ in 0..6 {
        play.health(&[false, true]).pass_until_decided();
        let recovered = play.health(&[true, true]).now;
        // It fails again just after it was gone back to.
        let back = play.pass_until_decided();
        waits.push((back - recovered).as_secs());
    }
    assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
    play.pass(601).health(&[false, true]).pass_until_decided();
    let recovered = play.health(&[true, true]).now;
    let back = play.pass_until_decided();
    assert_eq!((back - recovered).as_secs(), 60);
}

#[test]
fn one_that_comes_and_goes_is_the_last_choice() {
    let mut play = Play::new(RULES, &[true, true, true]);
    // The second has just come back from a long outage; the third has not been out.
    play.health(&[true, false, true]).pass(100);
    play.health(&[false, true, true]).pass(1);
    assert_eq!(play.decided, []);
    play.health(&[false, false, true]).pass(8);
    play.health(&[false, true, true]).pass(2);
    assert_eq!(play.decided, [(110, 2)]);
}

proptest! {
    /// Whatever happens: it is never left while healthy except for a better one that has been healthy for the
    /// grace, nobody unhealthy is gone to, and with a healthy one somewhere the wait is bounded.
    #[test]
    fn every_switch_has_its_reason(
        steps in proptest::collection::vec((0u64..40, proptest::collection::vec(any::<bool>(), 3)), 1..200),
    ) {
        let mut play = Play::new(RULES, &[true, true, true]);
        let mut healthy_since: Vec<Option<Instant>> = vec![Some(play.now); 3];
        let mut active_out_since: Option<Instant> = None;
        for (seconds, health) in steps {
            let until = play.now + Duration::from_secs(seconds);
            play.health = health;
            loop {
                for (since, healthy) in healthy_since.iter_mut().zip(&play.health) {
                    *since = healthy.then(|| since.unwrap_or(play.now));
                }
                let before = play.failover.active();
                if let Some(switch) = play.failover.observe(&play.health, play.now) {
                    prop_assert_eq!(switch.from, before);
                    prop_assert_ne!(switch.to, before);
                    let since = healthy_since[switch.to];
                    prop_assert!(since.is_some(), "went to one that is out");
                    match switch.reason {
                        Reason::Unhealthy => prop_assert!(healthy_since[before].is_none()),
                        Reason::Recovered => {
                            prop_assert!(switch.to < before);
                            let healthy_for = play.now - since.unwrap_or(play.now);
                            prop_assert!(healthy_for >= Duration::from_secs(60));
                        }
                    }
                    active_out_since = None;
                }
                let stuck = healthy_since[play.failover.active()].is_none()
                    && healthy_since.iter().any(Option::is_some);
                active_out_since = stuck.then(|| active_out_since.unwrap_or(play.now));
                if let Some(since) = active_out_since {
                    prop_assert!(play.now - since <= RULES.threshold);
                }
                match play.failover.due().filter(|due| *due <= until && *due > play.now) {
                    Some(due) => play.now = due,
                    None if play.now < until => play.now = until,
                    None => break,
                }
            }
        }
    }
}

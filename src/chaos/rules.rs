//! What a [`FaultProxy`](super::FaultProxy) does to the connections through it, decided without a
//! socket.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::fault::Fault;

/// Which connection: they are numbered as they are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId {
    number: u64,
    source: IpAddr,
}

/// What to do with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// After this delay.
    Serve(ConnectionId, Duration),
    Reset,
}

/// What to do with some bytes that were just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Pass,
    /// Later by this much.
    Delay(Duration),
    Swallow,
    /// Let this many pass, then reset the connection.
    Cut(usize),
}

/// The faults in force and what they and those before did to the open connections.
///
/// A source is an address that connections come from. While it has a fault of its own, that one is
/// in force for it, in place of the one for all.
#[derive(Debug, Default)]
pub(super) struct Rules {
    next: u64,
    all: Weather,
    by_source: HashMap<IpAddr, Weather>,
}

impl Rules {
    /// For everybody.
    pub(super) fn set(&mut self, fault: Fault) {
        self.all.set(fault, self.next);
    }

    /// For those that come from `source`.
    pub(super) fn set_from(&mut self, source: IpAddr, fault: Fault) {
        let own = self.by_source.entry(source).or_default();
        own.set(fault, self.next);
    }

    /// No fault for anybody.
    pub(super) fn heal(&mut self) {
        for weather in self.by_source.values_mut().chain([&mut self.all]) {
            weather.set(Fault::None, self.next);
        }
    }

    /// Resets the connections open now.
    pub(super) fn cut(&mut self) {
        self.all.cut_below = self.next;
    }

    /// Resets those that come from `source`.
    pub(super) fn cut_from(&mut self, source: IpAddr) {
        self.by_source.entry(source).or_default().cut_below = self.next;
    }

    pub(super) fn admit(&mut self, source: IpAddr) -> Admission {
        let delay = match self.in_force(source).fault {
            Fault::Reset | Fault::Refuse => return Admission::Reset,
            Fault::SlowAccept(delay) => delay,
            _ => Duration::ZERO,
        };
        let number = self.next;
        self.next += 1;
        Admission::Serve(ConnectionId { number, source }, delay)
    }

    /// For `length` bytes, more than none, on their way to Redis.
    pub(super) fn request(&mut self, id: ConnectionId, length: usize, now: Instant) -> Passage {
        if let Some(lost) = self.lost(id) {
            return lost;
        }
        let weather = self.in_force(id.source);
        match &mut weather.fault {
            Fault::CutRequestAfter(budget) => spend(budget, length).unwrap_or_else(|allowed| {
                weather.fault = Fault::None;
                Passage::Cut(allowed)
            }),
            Fault::Throttle(rate) => Passage::Delay(weather.to_redis.take(length, *rate, now)),
            _ => Passage::Pass,
        }
    }

    /// For `length` bytes, more than none, on their way back to the client.
    pub(super) fn reply(&mut self, id: ConnectionId, length: usize, now: Instant) -> Passage {
        if let Some(lost) = self.lost(id) {
            return lost;
        }
        let weather = self.in_force(id.source);
        match &mut weather.fault {
            Fault::DropReplies => Passage::Swallow,
            Fault::DropNextReply => {
                weather.fault = Fault::None;
                Passage::Cut(0)
            }
            Fault::CutReplyAfter(budget) => spend(budget, length).unwrap_or_else(|allowed| {
                weather.fault = Fault::None;
                Passage::Cut(allowed)
            }),
            Fault::Latency(delay) => Passage::Delay(*delay),
            Fault::Jitter { .. } => Passage::Delay(weather.draw()),
            Fault::Throttle(rate) => Passage::Delay(weather.to_client.take(length, *rate, now)),
            _ => Passage::Pass,
        }
    }

    /// Whether this connection's peers must not learn anything, not even that the other closed.
    pub(super) fn is_silent(&self, id: ConnectionId) -> bool {
        self.fault_for(id.source) == Fault::BlackHole
            || self.reaches(id, |weather| weather.silent_below)
    }

    /// Whether what was read from this connection is to wait.
    pub(super) fn holds(&self, id: ConnectionId) -> bool {
        self.fault_for(id.source) == Fault::Stall && !self.is_cut(id)
    }

    /// Whether what comes next would pass at once.
    pub(super) fn is_healthy(&self, id: ConnectionId) -> bool {
        self.fault_for(id.source) == Fault::None
    }

    /// Whether nobody at all is let in.
    pub(super) fn refuses(&self) -> bool {
        self.all.fault == Fault::Refuse
    }

    /// The fault for everybody.
    pub(super) const fn fault(&self) -> Fault {
        self.all.fault
    }

    /// The fault in force for `source`.
    pub(super) fn fault_for(&self, source: IpAddr) -> Fault {
        let own = self.by_source.get(&source).map(|own| own.fault);
        own.filter(|own| *own != Fault::None)
            .unwrap_or(self.all.fault)
    }

    fn in_force(&mut self, source: IpAddr) -> &mut Weather {
        let own = self.by_source.get_mut(&source);
        own.filter(|own| own.fault != Fault::None)
            .unwrap_or(&mut self.all)
    }

    /// What is left to do for a connection that is not served any more.
    fn lost(&self, id: ConnectionId) -> Option<Passage> {
        if self.is_cut(id) {
            return Some(Passage::Cut(0));
        }
        self.is_silent(id).then_some(Passage::Swallow)
    }

    fn is_cut(&self, id: ConnectionId) -> bool {
        self.reaches(id, |weather| weather.cut_below)
    }

    fn reaches(&self, id: ConnectionId, mark: impl Fn(&Weather) -> u64) -> bool {
        let own = self.by_source.get(&id.source).map_or(0, &mark);
        id.number < own.max(mark(&self.all))
    }
}

/// A fault and its traces.
#[derive(Debug)]
struct Weather {
    fault: Fault,
    /// Connections with a lower number than this are silent for ever.
    silent_below: u64,
    /// Connections with a lower number than this are to be reset.
    cut_below: u64,
    draws: SmallRng,
    to_redis: Pace,
    to_client: Pace,
}

impl Weather {
    /// `next` is the number of the next connection.
    fn set(&mut self, fault: Fault, next: u64) {
        if self.fault == Fault::BlackHole {
            self.silent_below = next;
        }
        match fault {
            Fault::SilenceOld => self.silent_below = next,
            Fault::Reset => self.cut_below = next,
            Fault::Jitter { seed, .. } => self.draws = SmallRng::seed_from_u64(seed),
            Fault::Throttle(_) => (self.to_redis, self.to_client) = Default::default(),
            _ => {}
        }
        self.fault = fault;
    }

    fn draw(&mut self) -> Duration {
        match self.fault {
            Fault::Jitter { least, most, .. } => {
                self.draws.random_range(least.min(most)..=most.max(least))
            }
            _ => Duration::ZERO,
        }
    }
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            fault: Fault::None,
            silent_below: 0,
            cut_below: 0,
            draws: SmallRng::seed_from_u64(0),
            to_redis: Pace::default(),
            to_client: Pace::default(),
        }
    }
}

/// A line that carries so many bytes a second, one piece after the other.
#[derive(Debug, Default)]
struct Pace {
    free_at: Option<Instant>,
}

impl Pace {
    /// How long it takes until a piece that waits now is through.
    fn take(&mut self, length: usize, rate: u64, now: Instant) -> Duration {
        let begins = self.free_at.map_or(now, |free_at| free_at.max(now));
        let takes = Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
        let ends = begins + takes;
        self.free_at = Some(ends);
        ends - now
    }
}

/// Takes `length` from the budget: passes while some of it is left after that, else says how many
/// bytes are still in it.
fn spend(budget: &mut u64, length: usize) -> Result<Passage, usize> {
    match budget.checked_sub(length as u64) {
        Some(left) if left > 0 => {
            *budget = left;
            Ok(Passage::Pass)
        }
        _ => Err(usize::try_from(*budget).map_or(length, |budget| budget.min(length))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    fn admit(rules: &mut Rules) -> ConnectionId {
        admit_from(rules, HERE)
    }

    fn admit_from(rules: &mut Rules, source: IpAddr) -> ConnectionId {
        let Admission::Serve(id, Duration::ZERO) = rules.admit(source) else {
            panic!("was reset or made to wait")
        };
        id
    }

    fn request(rules: &mut Rules, id: ConnectionId, length: usize) -> Passage {
        rules.request(id, length, Instant::now())
    }

    fn reply(rules: &mut Rules, id: ConnectionId) -> Passage {
        rules.reply(id, 1, Instant::now())
    }

    #[test]
    fn silencing_the_old_leaves_the_new_alone_and_outlives_the_healing() {
        let mut rules = Rules::default();
        let old = admit(&mut rules);
        rules.set(Fault::SilenceOld);
        let new = admit(&mut rules);
        for fault in [Fault::SilenceOld, Fault::None] {
            assert_eq!(request(&mut rules, old, 1), Passage::Swallow, "{fault:?}");
            assert_eq!(reply(&mut rules, old), Passage::Swallow, "{fault:?}");
            assert_eq!(request(&mut rules, new, 1), Passage::Pass, "{fault:?}");
            rules.set(Fault::None);
        }
    }

    #[test]
    fn what_a_black_hole_has_swallowed_it_keeps() {
        let mut rules = Rules::default();
        let before = admit(&mut rules);
        rules.set(Fault::BlackHole);
        let during = admit(&mut rules);
        assert_eq!(request(&mut rules, before, 1), Passage::Swallow);
        rules.set(Fault::None);
        let after = admit(&mut rules);
        assert_eq!(reply(&mut rules, before), Passage::Swallow);
        assert_eq!(request(&mut rules, during, 1), Passage::Swallow);
        assert_eq!(request(&mut rules, after, 1), Passage::Pass);
    }

    #[test]
    fn a_reply_is_dropped_once_and_then_all_is_well() {
        let mut rules = Rules::default();
        let id = admit(&mut rules);
        rules.set(Fault::DropNextReply);
        assert_eq!(request(&mut rules, id, 9), Passage::Pass);
        assert_eq!(reply(&mut rules, id), Passage::Cut(0));
        assert_eq!(rules.fault(), Fault::None);
    }

    #[test]
    fn a_cut_comes_right_after_the_last_byte_that_may_pass() {
        for (budget, reads, cut) in [(0, &[5][..], 0), (5, &[5], 5), (7, &[5, 5], 2)] {
            let mut rules = Rules::default();
            let id = admit(&mut rules);
            rules.set(Fault::CutRequestAfter(budget));
            let (last, before) = reads.split_last().unwrap();
            for read in before {
                assert_eq!(request(&mut rules, id, *read), Passage::Pass);
            }
            assert_eq!(request(&mut rules, id, *last), Passage::Cut(cut));
            assert_eq!(rules.fault(), Fault::None);
        }
    }

    #[test]
    fn a_reset_takes_the_open_ones_and_turns_the_new_away() {
        let mut rules = Rules::default();
        let id = admit(&mut rules);
        rules.set(Fault::Reset);
        assert_eq!(request(&mut rules, id, 1), Passage::Cut(0));
        assert_eq!(rules.admit(HERE), Admission::Reset);
        rules.set(Fault::None);
        assert_eq!(
            reply(&mut rules, id),
            Passage::Cut(0),
            "what was cut stays cut"
        );
        let new = admit(&mut rules);
        assert_eq!(reply(&mut rules, new), Passage::Pass);
    }

    #[test]
    fn a_reply_is_cut_right_after_the_last_byte_that_may_pass() {
        let mut rules = Rules::default();
        let (one, other) = (admit(&mut rules), admit(&mut rules));
        rules.set(Fault::CutReplyAfter(7));
        let now = Instant::now();
        assert_eq!(rules.request(one, 100, now), Passage::Pass);
        assert_eq!(rules.reply(one, 5, now), Passage::Pass);
        assert_eq!(rules.reply(other, 5, now), Passage::Cut(2));
        assert_eq!(rules.fault(), Fault::None);
    }

    #[test]
    fn what_stalls_is_not_lost_unless_it_is_cut() {
        let mut rules = Rules::default();
        let (goes_on, is_cut) = (admit(&mut rules), admit_from(&mut rules, THERE));
        rules.set(Fault::Stall);
        assert!(rules.holds(goes_on) && rules.holds(is_cut));
        rules.cut_from(THERE);
        assert!(!rules.holds(is_cut));
        assert_eq!(reply(&mut rules, is_cut), Passage::Cut(0));
        rules.heal();
        assert!(!rules.holds(goes_on));
        assert_eq!(request(&mut rules, goes_on, 1), Passage::Pass);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_repeats_with_its_seed() {
        let draws = |seed| {
            let mut rules = Rules::default();
            let id = admit(&mut rules);
            let (least, most) = (Duration::from_millis(2), Duration::from_millis(9));
            rules.set(Fault::Jitter { least, most, seed });
            let draw = |_| match reply(&mut rules, id) {
                Passage::Delay(delay) => delay,
                other => panic!("{other:?}"),
            };
            let draws: Vec<Duration> = (0..100).map(draw).collect();
            assert!(draws.iter().all(|draw| (least..=most).contains(draw)));
            draws
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn a_throttled_line_is_shared_and_has_two_ways() {
        let mut rules = Rules::default();
        let (one, other) = (admit(&mut rules), admit(&mut rules));
        rules.set(Fault::Throttle(1_000));
        let now = Instant::now();
        let takes = |millis| Passage::Delay(Duration::from_millis(millis));
        assert_eq!(rules.request(one, 100, now), takes(100));
        assert_eq!(rules.request(other, 50, now), takes(150));
        assert_eq!(rules.reply(one, 200, now), takes(200));
        let later = now + Duration::from_secs(1);
        assert_eq!(rules.request(one, 100, later), takes(100), "it had a rest");
    }

    #[test]
    fn a_slow_door_makes_the_new_wait_and_not_the_open() {
        let mut rules = Rules::default();
        let open = admit(&mut rules);
        rules.set(Fault::SlowAccept(Duration::from_secs(1)));
        assert_eq!(request(&mut rules, open, 1), Passage::Pass);
        let admission = rules.admit(HERE);
        assert!(
            matches!(admission, Admission::Serve(_, delay) if delay == Duration::from_secs(1)),
            "{admission:?}"
        );
    }

    #[test]
    fn a_source_has_its_own_fault_and_the_others_do_not() {
        let mut rules = Rules::default();
        let (here, there) = (admit(&mut rules), admit_from(&mut rules, THERE));
        rules.set_from(THERE, Fault::BlackHole);
        assert_eq!(request(&mut rules, there, 1), Passage::Swallow);
        assert_eq!(request(&mut rules, here, 1), Passage::Pass);
        assert_eq!(rules.fault_for(THERE), Fault::BlackHole);

        rules.set(Fault::DropReplies);
        rules.set_from(THERE, Fault::None);
        assert_eq!(reply(&mut rules, here), Passage::Swallow);
        assert_eq!(
            request(&mut rules, there, 1),
            Passage::Swallow,
            "it lost a byte"
        );
        let new = admit_from(&mut rules, THERE);
        assert_eq!(
            reply(&mut rules, new),
            Passage::Swallow,
            "the fault for all"
        );

        rules.set_from(THERE, Fault::Refuse);
        assert_eq!(rules.admit(THERE), Admission::Reset);
        assert!(!rules.refuses());
        admit(&mut rules);
        rules.cut_from(THERE);
        assert_eq!(request(&mut rules, new, 1), Passage::Cut(0));
        assert_eq!(request(&mut rules, here, 1), Passage::Pass);

        rules.heal();
        let healed = admit_from(&mut rules, THERE);
        assert!(rules.is_healthy(healed) && rules.is_healthy(here));
    }
}

//! When a worker says that it is alive, and when it may take over what dead ones have left: [`Lease`].
//!
//! No clock: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of one worker's standing with one queue.
#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    /// From 0 to 1: workers that were started together do not look at the same moments.
    skew: f64,
    renewed: Option<Instant>,
    told: Option<Instant>,
    looked: Option<Instant>,
    compared: Option<Instant>,
    /// The connection's number, and since when it has been up without a break.
    up: Option<(u64, Instant)>,
    /// Since when the lease has been renewed without a break.
    held: Option<Instant>,
}

impl Lease {
    pub(super) fn new(length: Duration, skew: f64) -> Self {
        Self {
            length,
            skew,
            renewed: None,
            told: None,
            looked: None,
            compared: None,
            up: None,
            held: None,
        }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Notes how the connection is; whether it is another one than the last time it was up.
    pub(super) fn observe(&mut self, up: bool, generation: u64, now: Instant) -> bool {
        match (up, self.up) {
            (true, Some((known, _))) if known == generation => false,
            (true, known) => {
                self.up = Some((generation, now));
                known.is_some() || self.renewed.is_some()
            }
            (false, _) => {
                self.up = None;
                false
            }
        }
    }

    /// A turn has been answered that was sent at `sent`: the lease counts from no later than that.
    pub(super) fn renewed(&mut self, sent: Instant, told: bool) {
        if !self.holds(sent) {
            self.held = Some(sent);
        }
        self.renewed = Some(sent);
        self.compared.get_or_insert(sent);
        if told {
            self.told = Some(sent);
        }
    }

    /// It has looked for what dead workers have left. If there may be `more`, the next look is due at once.
    pub(super) fn looked(&mut self, now: Instant, more: bool) {
        self.looked = (!more).then_some(now);
    }

    /// The worker has another token, which nobody knows.
    pub(super) fn begin_anew(&mut self) {
        self.renewed = None;
        self.told = None;
        self.compared = None;
    }

    /// The executions that Redis and the worker know of have been compared.
    pub(super) fn compared(&mut self, now: Instant) {
        self.compared = Some(now);
    }

    /// When to compare them again, though there is no reason to think that they differ: should they ever, a job
    /// must not stay with a worker that does not know of it.
    pub(super) fn comparison_due(&self) -> Option<Instant> {
        self.compared.map(|at| at + self.length)
    }

    /// Whether the worker's own lease lasts.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now < at + self.length)
    }

    /// When a turn is due for the lease alone. At once, if Redis has never heard of the worker.
    pub(super) fn renewal_due(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.length / 3)
    }

    /// Whether the next turn is to tell about the worker.
    pub(super) fn tells(&self, now: Instant) -> bool {
        self.told.is_none_or(|at| now >= at + self.length / 3)
    }

    /// When to look for what dead workers have left.
    ///
    /// Only after a whole lease without a break in the connection, nor in the worker's own lease: Redis may have been
    /// there and have refused to be written to. After an outage each worker that lives first gets the time to renew
    /// its own lease, and to deliver what it has finished meanwhile.
    pub(super) fn look_due(&self) -> Option<Instant> {
        let (_, since) = self.up?;
        let allowed = since.max(self.held?) + self.length;
        let interval = self.length / 3 + (self.length / 6).mul_f64(self.skew);
        Some(match self.looked {
            Some(looked) => allowed.max(looked + interval),
            None => allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_three_times_while_it_lasts() {
        let start = Instant::now();
        let mut lease = Lease::new(LENGTH, 0.0);
        assert_eq!(lease.renewal_due(), None);
        assert!(lease.tells(start));
        lease.renewed(start, true);
        assert_eq!(lease.renewal_due(), Some(at(start, 10)));
        assert!(!lease.tells(at(start, 9)) && lease.tells(at(start, 10)));
        lease.renewed(at(start, 7), false);
        assert_eq!(lease.renewal_due(), Some(at(start, 17)));
        assert!(lease.tells(at(start, 10)));
    }

    #[test]
    fn nothing_is_claimed_before_the_connection_has_been_up_for_a_lease() {
        let start = Instant::now();
        let mut lease = Lease::new(LENGTH, 0.0);
        assert_eq!(lease.look_due(), None);
        assert!(!lease.observe(true, 1, start));
        assert_eq!(lease.look_due(), None);
        lease.renewed(start, false);
        assert_eq!(lease.look_due(), Some(at(start, 30)));
        lease.renewed(at(start, 29), false);
        // The same connection, seen again, is no break.
        assert!(!lease.observe(true, 1, at(start, 29)));
        assert_eq!(lease.look_due(), Some(at(start, 30)));
        lease.looked(at(start, 30), false);
        assert_eq!(lease.look_due(), Some(at(start, 40)));
        lease.looked(at(start, 40), true);
        assert_eq!(lease.look_due(), Some(at(start, 30)));
        // A new connection begins a new count, whether it was seen to be down or not.
        assert!(lease.observe(true, 2, at(start, 50)));
        assert_eq!(lease.look_due(), Some(at(start, 80)));
        lease.observe(false, 2, at(start, 60));
        assert_eq!(lease.look_due(), None);
    }

    #[test]
    fn nothing_is_claimed_before_the_workers_own_lease_has_been_held_for_as_long() {
        let start = Instant::now();
        let mut lease = Lease::new(LENGTH, 0.0);
        lease.observe(true, 1, start);
        for seconds in [5, 15, 25, 35] {
            lease.renewed(at(start, seconds), false);
            assert_eq!(lease.look_due(), Some(at(start, 35)));
        }
        // Redis has refused the others.
        assert!(lease.holds(at(start, 64)) && !lease.holds(at(start, 65)));
        lease.renewed(at(start, 70), false);
        assert_eq!(lease.look_due(), Some(at(start, 100)));
        lease.begin_anew();
        lease.renewed(at(start, 80), false);
        assert_eq!(lease.look_due(), Some(at(start, 110)));
    }

    #[test]
    fn a_new_connection_is_noticed_also_after_it_was_seen_to_be_down() {
        let start = Instant::now();
        let mut lease = Lease::new(LENGTH, 0.0);
        lease.observe(true, 1, start);
        lease.renewed(start, true);
        assert!(!lease.observe(false, 1, start));
        assert!(lease.observe(true, 2, start));
    }
}

//! How far Redis' replicas are: told by whoever watches them, heard by whoever keeps what they lack.
//!
//! A write that only the primary has is lost if the primary dies. [`connect`](crate::connect) asks the
//! primary again and again how far it is and how far its replicas are, and says here what they have by
//! now; [`spool`](crate::spool) keeps every acknowledged record until then.
//!
//! # Terms and readings
//!
//! A *term* is the time of one connection to one set of primaries. It ends with the connection, and when
//! another server turns out to be the primary behind it. What was acknowledged in an earlier term may be
//! unknown to the server of this one.
//!
//! A *reading* is one look at the primary's offset in its replication stream, and at those of its replicas.
//! Whatever was acknowledged before a reading began is before the offset it finds. So once the replicas
//! have passed that offset, they have all of it. No offset of a single write is needed, which Redis does
//! not tell. Redis' own WAIT would do the same, and hold up a connection for it.
//!
//! # Default
//!
//! ```no_run
//! use seawall::{connect::{ConnectOptions, Connection}, spool::{Spool, SpoolOptions}, sequence::Write};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let redis = Connection::open(ConnectOptions::from_url("redis://localhost")?)?;
//! let options = SpoolOptions::new("/var/lib/app/spool").with_replicas(redis.replicas());
//! let spool: Spool<Write> = Spool::open(options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//!
//! A leaf of your own that knows its replicas:
//!
//! ```
//! use seawall::replicas;
//!
//! let (teller, replicas) = replicas::channel();
//! teller.begin_term(1, Some("server 7".into()), true);
//! let stamp = replicas.stamp(); // a write has just been acknowledged
//! let reading = teller.begin_reading();
//! // .. all replicas are where the primary was then:
//! teller.reached(reading, 1);
//! assert!(replicas.view().covers(1, stamp, 1));
//! ```

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

use tokio::sync::{Notify, watch};

/// Begins to tell of the replicas of one deployment.
pub fn channel() -> (Teller, Replicas) {
    let view = watch::Sender::new(View::default());
    let shared = Arc::new(Shared::default());
    let replicas = Replicas {
        shared: shared.clone(),
        view: view.subscribe(),
    };
    (Teller { shared, view }, replicas)
}

/// What is known of the replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// The term: 0 before the first.
    pub term: u64,
    /// The number of the connection that the term is of, for
    /// [`RedisCall::with_generation`](crate::RedisCall::with_generation).
    pub generation: u64,
    /// Names the server and its data: two terms with the same one have been served by the same process, which
    /// has been a primary all the time, and has lost nothing. `None` if that is not known.
    pub history: Option<Arc<str>>,
    /// Replicas are expected: what they lack is worth keeping for as long as it takes. Without them a
    /// write is as safe as it gets, and only a restart without its data can lose it.
    pub expects_replicas: bool,
    /// The connection is gone, and the term ends with the next one. The server may be gone as well.
    pub interrupted: bool,
    /// What was acknowledged in this term before this reading began is on the replicas.
    reached: u64,
    /// How many those were.
    replicas: usize,
}

impl View {
    /// Whether the replicas, and at least `least` of them, have what was acknowledged in `term`, with `stamp`
    /// as of then.
    #[must_use]
    pub fn covers(&self, term: u64, stamp: u64, least: usize) -> bool {
        term == self.term && stamp < self.reached && self.replicas >= least
    }
}

/// Hears of the replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replicas {
    shared: Arc<Shared>,
    view: watch::Receiver<View>,
}

impl Replicas {
    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// The term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.view.borrow().term
    }

    /// What is known, as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// How many readings have begun: to be taken when an acknowledgement has come, for
    /// [`View::covers`].
    #[must_use]
    pub fn stamp(&self) -> u64 {
        // Adding nothing reads the latest there is, where a plain load may be late. A stamp that is too
        // low would take a reading from before the acknowledgement for one from after it.
        self.shared.begun.fetch_add(0, AcqRel)
    }

    /// Something waits for the replicas until this is dropped. While nothing does, nobody is asked.
    #[must_use]
    pub fn want(&self) -> Want {
        if self.shared.wanted.fetch_add(1, AcqRel) == 0 {
            self.shared.asked.notify_one();
        }
        Want(self.shared.clone())
    }

    /// The next reading had better be soon.
    pub fn hurry(&self) {
        if !self.shared.hurry.swap(true, AcqRel) {
            self.shared.asked.notify_one();
        }
    }
}

/// Something waits for the replicas: see [`Replicas::want`].
#[derive(Debug)]
pub struct Want(Arc<Shared>);

impl Drop for Want {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, AcqRel);
    }
}

/// Tells of the replicas.
#[derive(Debug)]
pub struct Teller {
    shared: Arc<Shared>,
    view: watch::Sender<View>,
}

impl Teller {
    /// Another reader of what is told here.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        Replicas {
            shared: self.shared.clone(),
            view: self.view.subscribe(),
        }
    }

    /// Begins a term, over the connection with the number `generation`. To be said before anything can be
    /// acknowledged in it.
    pub fn begin_term(&self, generation: u64, history: Option<Arc<str>>, expects_replicas: bool) {
        self.view.send_modify(|view| {
            *view = View {
                term: view.term + 1,
                generation,
                history,
                expects_replicas,
                interrupted: false,
                reached: 0,
                replicas: 0,
            };
        });
    }

    /// The connection is gone, and another one is to be made: until it has been asked, nothing is old enough to
    /// be let go, since the server may be gone as well.
    pub fn interrupt(&self) {
        self.view.send_modify(|view| view.interrupted = true);
    }

    /// Begins a reading, and says its number. To be said before the primary is asked.
    #[must_use]
    pub fn begin_reading(&self) -> u64 {
        self.shared
            .hurry
            .store(false, std::sync::atomic::Ordering::Release);
        self.shared.begun.fetch_add(1, AcqRel) + 1
    }

    /// So many replicas, which are all there are, have all that the primary had when `reading`, which is of
    /// this term, began.
    pub fn reached(&self, reading: u64, replicas: usize) {
        self.view.send_if_modified(|view| {
            let before = (view.reached, view.replicas);
            view.reached = view.reached.max(reading);
            view.replicas = replicas;
            before != (view.reached, view.replicas)
        });
    }

    /// Whether replicas are expected from now on.
    pub fn expect_replicas(&self, expected: bool) {
        self.view.send_if_modified(|view| {
            std::mem::replace(&mut view.expects_replicas, expected) != expected
        });
    }

    /// Whether somebody is in a hurry.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.shared.hurry.load(Acquire)
    }

    /// Waits until something waits for the replicas.
    ///
    /// Cancel safe, for one who waits.
    pub async fn wanted(&self) {
        while self.shared.wanted.load(Acquire) == 0 {
            self.shared.asked.notified().await;
        }
    }

    /// Waits until somebody is in a hurry.
    ///
    /// Cancel safe, for one who waits.
    pub async fn hurried(&self) {
        while !self.is_hurried() {
            self.shared.asked.notified().await;
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicU64,
    wanted: AtomicUsize,
    hurry: AtomicBool,
    asked: Notify,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_covers_what_was_acknowledged_before_it_and_in_its_term() {
        let (teller, replicas) = channel();
        teller.begin_term(1, None, true);
        let before = replicas.stamp();
        let reading = teller.begin_reading();
        let during = replicas.stamp();
        teller.reached(reading, 1);
        assert!(replicas.view().covers(1, before, 1));
        assert!(!replicas.view().covers(1, during, 1));
        teller.begin_term(2, None, true);
        assert!(!replicas.view().covers(1, before, 1));
        assert!(!replicas.view().covers(2, before, 1));
        let reading = teller.begin_reading();
        teller.reached(reading, 1);
        assert!(replicas.view().covers(2, during, 1));
        assert!(!replicas.view().covers(1, before, 1), "of another server");
    }

    #[tokio::test]
    async fn nobody_is_asked_while_nothing_waits() {
        let (teller, replicas) = channel();
        let mut waiting = tokio_test::task::spawn(teller.wanted());
        assert!(waiting.poll().is_pending());
        let want = replicas.want();
        assert!(waiting.is_woken());
        assert!(waiting.poll().is_ready());
        drop((waiting, want));
        let mut waiting = tokio_test::task::spawn(teller.wanted());
        assert!(waiting.poll().is_pending());
    }
}

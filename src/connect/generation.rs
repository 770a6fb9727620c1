//! One published connection, and the suspicion against it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use redis::{RedisError, Value, aio::MultiplexedConnection};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{deployment::Address, status::Trouble};
use crate::classify;

/// The connections that were made together and are given up together.
///
/// Whatever goes wrong on one of them is reported here, so an error that comes late, from a
/// generation that has been replaced, cannot touch its successor.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) address: Address,
    /// Names the server and its data, if that is known.
    pub(super) history: Option<Arc<str>>,
    pub(super) since: Instant,
    lines: Box<[MultiplexedConnection]>,
    next: AtomicUsize,
    timeouts: AtomicU32,
    suspect_after: u32,
    /// A call has waited in vain since the last probe.
    fell_silent: AtomicBool,
    suspicion: Arc<Suspicion>,
    cut: CancellationToken,
}

impl Generation {
    pub(super) fn new(
        number: u64,
        address: Address,
        history: Option<Arc<str>>,
        lines: Vec<MultiplexedConnection>,
        suspect_after: u32,
        suspicion: Arc<Suspicion>,
        cut: CancellationToken,
    ) -> Self {
        debug_assert!(!lines.is_empty());
        Self {
            number,
            address,
            history,
            since: Instant::now(),
            lines: lines.into(),
            next: AtomicUsize::new(0),
            timeouts: AtomicU32::new(0),
            suspect_after,
            fell_silent: AtomicBool::new(false),
            suspicion,
            cut,
        }
    }

    /// A handle for one call.
    pub(super) fn line(&self) -> MultiplexedConnection {
        match &*self.lines {
            [only] => only.clone(),
            several => several[self.next.fetch_add(1, Ordering::Relaxed) % several.len()].clone(),
        }
    }

    pub(super) fn lines(&self) -> &[MultiplexedConnection] {
        &self.lines
    }

    /// Cuts whatever was opened for this generation, once it is given up.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// An answer came, if only a refusal.
    pub(super) fn answered(&self) {
        // A load first: a store at each answer would bounce the line between cores.
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// A call waited for nothing; whether for the whole response timeout.
    pub(super) fn unanswered(&self, whole: bool) {
        self.fell_silent.store(true, Ordering::Relaxed);
        if whole && self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= self.suspect_after {
            self.suspect(Trouble::Silent);
        }
    }

    /// A probe has been answered; whether that is news, since calls before it were not.
    pub(super) fn speaks_again(&self) -> bool {
        self.answered();
        self.fell_silent.swap(false, Ordering::Relaxed)
    }

    /// Reads an error for what it says about the connection.
    pub(super) fn note(&self, error: &RedisError) {
        if classify::is_demoted(error) {
            self.suspect(Trouble::Replica);
        } else if classify::is_unauthenticated(error) {
            self.suspect(Trouble::Credentials);
        } else if error.is_connection_dropped() {
            self.suspect(Trouble::Lost);
        }
    }

    /// Looks for a refusal that a script has put in its answer.
    pub(super) fn note_answer(&self, answer: &Value) {
        match answer {
            Value::ServerError(refusal) if refusal.code() == "READONLY" => {
                self.suspect(Trouble::Replica);
            }
            Value::Array(items) => items.iter().for_each(|item| self.note_answer(item)),
            _ => {}
        }
    }

    /// Asks for this generation to be replaced. The first reason stands.
    pub(super) fn suspect(&self, trouble: Trouble) {
        self.suspicion.raise(trouble);
    }

    /// What is held against it, if anything: no new call goes onto it then.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.suspicion.trouble()
    }

    /// Waits until something is held against it.
    ///
    /// Cancel safe, for one waiter.
    pub(super) async fn suspected(&self) -> Trouble {
        self.suspicion.raised().await
    }
}

/// Nobody may go on using a socket that nobody watches.
impl Drop for Generation {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

/// What is held against a generation.
#[derive(Default)]
pub(super) struct Suspicion {
    trouble: OnceLock<Trouble>,
    news: Notify,
}

impl Suspicion {
    pub(super) fn raise(&self, trouble: Trouble) {
        if self.trouble.set(trouble).is_ok() {
            self.news.notify_one();
        }
    }

    /// What is held, if anything.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.get().copied()
    }

    /// Waits until something is held. Cancel safe, for one waiter.
    pub(super) async fn raised(&self) -> Trouble {
        loop {
            if let Some(trouble) = self.trouble() {
                return trouble;
            }
            self.news.notified().await;
        }
    }
}

//! Notices a disk that does not answer.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Condition, DiskOptions, Shared};
use crate::spool::{dir::failed, error::OpenError};

/// A thread beside the one that writes, which ends with this.
///
/// sled can sleep through the failure of a write that somebody else makes for it; any other write wakes
/// it up. So this not only tells, it also pokes.
pub(super) struct Watchdog(
    #[allow(dead_code, reason = "dropping it ends the thread")] mpsc::Sender<()>,
);

impl Watchdog {
    pub(super) fn start(shared: &Arc<Shared>, options: &DiskOptions) -> Result<Self, OpenError> {
        let (leash, held) = mpsc::channel();
        let (shared, after) = (Arc::downgrade(shared), options.stalled_after);
        let metrics = options.metrics.clone();
        let look = move || {
            let every = (after / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
            while held.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let Some(shared) = Weak::upgrade(&shared) else {
                    return;
                };
                let is_silent = || {
                    let silent = shared.pulse.silent_for();
                    silent.is_some_and(|silent| silent >= after)
                };
                if is_silent() {
                    let told = shared.condition.send_if_modified(|condition| {
                        // Asked under the lock under which the thread looks, when its step has ended,
                        // whether it has anything to take back.
                        let fresh =
                            is_silent() && matches!(condition, Condition::Fine | Condition::Low(_));
                        if fresh {
                            *condition = Condition::Stalled;
                            metrics.stalls.inc();
                        }
                        fresh
                    });
                    if told {
                        tracing::warn!(
                            seconds = after.as_secs_f64(),
                            "the spool's disk does not answer"
                        );
                    }
                    shared.pulse.poke();
                }
            }
        };
        std::thread::Builder::new()
            .name("seawall-watch".to_owned())
            .spawn(look)
            .map_err(failed("start a thread for", &options.path))?;
        Ok(Self(leash))
    }
}

/// Since when the thread that writes is at one step.
pub(super) struct Pulse {
    origin: Instant,
    /// In milliseconds since the origin, plus 1; 0 while it waits for work.
    since: AtomicU64,
    poke: Mutex<Option<Poke>>,
}

/// Does something small to the store, from any thread.
pub(super) type Poke = Arc<dyn Fn() + Send + Sync>;

impl Default for Pulse {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            since: AtomicU64::new(0),
            poke: Mutex::new(None),
        }
    }
}

impl Pulse {
    pub(super) fn begin(&self) {
        let since = self.origin.elapsed().as_millis() as u64 + 1;
        self.since.store(since, Relaxed);
    }

    pub(super) fn end(&self) {
        self.since.store(0, Relaxed);
    }

    pub(super) fn set_poke(&self, poke: Option<Poke>) {
        *self.poke.lock() = poke;
    }

    fn silent_for(&self) -> Option<Duration> {
        let since = self.since.load(Relaxed).checked_sub(1)?;
        Some(
            self.origin
                .elapsed()
                .saturating_sub(Duration::from_millis(since)),
        )
    }

    fn poke(&self) {
        let poke = self.poke.lock().clone();
        if let Some(poke) = poke {
            poke();
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

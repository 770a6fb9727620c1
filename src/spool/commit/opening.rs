//! Opening the store: at the start, and after each failure.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Condition, DiskOptions,
    ledger::{Draft, Ledger},
    thread::{Committer, Failed, State},
};
use crate::spool::{
    audit::{Recovery, Verdict},
    crypt::Ring,
    error::{OpenError, StoreError},
    store::{Opened, Store},
};

/// A store with what is known about it, ready to be written to.
pub(super) struct Ready<S> {
    pub(super) store: S,
    pub(super) ledger: Ledger,
    pub(super) verdict: Verdict,
}

/// Opens the store and looks through it. A store that panics over what it finds is damaged.
///
/// `failed` is what it is opened for, if it has been open before: the callers of that commit were told so.
pub(super) fn open<S: Store>(
    options: &DiskOptions,
    open: &mut impl FnMut() -> Result<Opened<S>, OpenError>,
    failed: Option<&Failed>,
) -> Result<Ready<S>, OpenError> {
    let look = || {
        let Opened {
            mut store,
            audit,
            clean,
            id,
            set_aside,
        } = read(&options.ring, open)?;
        let failed_commit = failed.and_then(|failed| failed.commit);
        let held = failed.and_then(|failed| failed.held.as_ref());
        let mut verdict = audit.conclude(held.or(clean.as_ref()), failed_commit);
        verdict.recovery.clean = clean.is_some();
        verdict.recovery.set_aside = set_aside;
        check_keys(options, &verdict)?;
        let lost = &verdict.recovery;
        if options.strict && failed.is_none() && lost.has_loss() {
            return Err(OpenError::Loss {
                path: options.path.clone(),
                records: lost.lost,
                parked: lost.lost_parked,
            });
        }
        if verdict.recovery.has_loss() {
            verdict.recovery.damaged_chunks += store.keep_damaged();
        }
        store.begin(&verdict.voids)?;
        let ledger = Ledger::new(id, &verdict);
        Ok(Ready {
            store,
            ledger,
            verdict,
        })
    };
    catch_unwind(AssertUnwindSafe(look)).map_err(|_| panicked(&options.path))?
}

/// Reads all there is; once more if altered chunks were taken for sound ones.
pub(super) fn read<S>(
    ring: &Ring,
    open: &mut impl FnMut() -> Result<Opened<S>, OpenError>,
) -> Result<Opened<S>, OpenError> {
    let opened = open()?;
    if ring.looks_again() {
        drop(opened);
        return open();
    }
    Ok(opened)
}

/// Whether what waits can be decrypted: to be known before anything is changed.
pub(super) fn check_keys(options: &DiskOptions, verdict: &Verdict) -> Result<(), OpenError> {
    let checked = options.ring.check(&verdict.keys);
    checked.map_err(|trouble| OpenError::key(&options.path, trouble))
}

fn panicked(path: &Path) -> OpenError {
    OpenError::Damaged {
        path: path.into(),
        what: "the store panicked while it was opened".to_owned(),
    }
}

impl<S: Store, O: FnMut() -> Result<Opened<S>, OpenError>> Committer<S, O> {
    /// The first failure is the one that is remembered.
    pub(super) fn fail(&mut self, error: StoreError, commit: Option<u64>) -> StoreError {
        let State::Open { store, ledger } = &self.state else {
            return error;
        };
        let held = commit.is_none().then(|| ledger.clean());
        let why = match &error {
            StoreError::Unknown(why) | StoreError::Unreadable(why) => Arc::clone(why),
            other => other.to_string().into(),
        };
        let is_tight = store
            .space()
            .is_some_and(|space| space.free < BALLAST_BELOW);
        if is_tight || matches!(error, StoreError::NoRoom(_)) {
            // A quota may be met where the file system has room.
            store.release_ballast();
        }
        // Nothing more is taken in before that room could be set aside again.
        self.ballast = false;
        self.options.metrics.poisoned.set(1);
        self.shared.pulse.set_poke(None);
        tracing::error!(%error, "the spool's disk has failed: it takes no more records until it is opened again");
        let failed = State::Failed(Failed {
            why: why.clone(),
            commit,
            held,
            again_at: Instant::now() + FIRST_DELAY,
            delay: FIRST_DELAY,
        });
        let was = std::mem::replace(&mut self.state, failed);
        // sled writes once more when it closes, and may panic over what it could not write.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(was)));
        self.shared.condition.send_replace(Condition::Failed(why));
        error
    }

    pub(super) fn open_again_if_due(&mut self) {
        if let State::Failed(failed) = &self.state
            && failed.again_at <= Instant::now()
        {
            let failed = failed.clone();
            self.open_again(failed);
        }
    }

    fn open_again(&mut self, failed: Failed) {
        let opened = open(&self.options, &mut self.open, Some(&failed));
        let ready = match opened {
            Ok(ready) => ready,
            Err(error) => {
                let delay = (failed.delay * 2).min(LONGEST_DELAY);
                tracing::warn!(%error, ?delay, "the spool cannot be opened again yet");
                self.state = State::Failed(Failed {
                    again_at: Instant::now() + delay,
                    delay,
                    ..failed
                });
                return;
            }
        };
        let Ready {
            store,
            ledger,
            verdict,
        } = ready;
        self.state = State::Open { store, ledger };
        let said = self.say_voids(&verdict).is_ok();
        if said {
            // Else it is found again the next time.
            tell(&self.options, &verdict.recovery);
            if verdict.recovery.has_loss() {
                self.shared.recovery.lock().clone_from(&verdict.recovery);
            }
        }
        if said && self.settle_in(&verdict).is_ok() {
            tracing::info!("the spool's disk works again");
        } else if let State::Failed(again) = &mut self.state {
            again.delay = (failed.delay * 2).min(LONGEST_DELAY);
            again.again_at = Instant::now() + again.delay;
            if !said {
                // Those of both are withdrawn. Once said, the first is, and what came after it counts.
                again.commit = failed.commit.into_iter().chain(again.commit).min();
                again.held = failed.held;
            }
        }
    }

    /// The first write to a store that has just been opened: alone, so that what is decided over the commits
    /// before it is said as a whole or not at all.
    pub(super) fn say_voids(&mut self, verdict: &Verdict) -> Result<(), StoreError> {
        if let State::Open { store, .. } = &self.state {
            self.shared.pulse.set_poke(store.poke());
        }
        self.write(Draft {
            voids: verdict.is_news,
            ..Draft::default()
        })
    }

    /// The other writes that come first, and the room that can be given back.
    pub(super) fn settle_in(&mut self, verdict: &Verdict) -> Result<(), StoreError> {
        self.write_noting(Draft {
            again: verdict.again.clone(),
            ..Draft::default()
        })?;
        self.reclaim()?;
        self.measure();
        Ok(())
    }
}

/// Below this the room that was set aside is given up.
const BALLAST_BELOW: u64 = 8 << 20;

/// How long until a store that has failed is opened again, doubling up to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Says what was found, if it is not as it should be.
pub(super) fn tell(options: &DiskOptions, recovery: &Recovery) {
    options
        .metrics
        .lost
        .with_label_values(&["waiting"])
        .inc_by(recovery.lost);
    options
        .metrics
        .lost
        .with_label_values(&["parked"])
        .inc_by(recovery.lost_parked);
    for lane in &recovery.lanes {
        tracing::error!(
            queue = &*lane.queue, lane = %lane.lane, records = lane.records,
            "records of the spool are lost"
        );
    }
    if recovery.has_loss() || recovery.set_aside > 0 {
        tracing::error!(
            lost = recovery.lost,
            lost_parked = recovery.lost_parked,
            damaged = recovery.damaged_chunks,
            set_aside = recovery.set_aside,
            "the spool was damaged: what is left is used, what was damaged is in quarantine"
        );
    }
}

//! Opening the store: at the start, and after each failure.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{DiskOptions, ledger::Ledger};
use crate::spool::{
    audit::{Recovery, Verdict},
    error::OpenError,
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
/// `withdraw_from` is the commit that has failed, if it is opened for that: its callers were told so.
pub(super) fn open<S: Store>(
    options: &DiskOptions,
    open: &mut impl FnMut() -> Result<Opened<S>, OpenError>,
    withdraw_from: Option<u64>,
) -> Result<Ready<S>, OpenError> {
    let look = || {
        let mut opened = open()?;
        if options.ring.looks_again() {
            opened = open()?;
        }
        let Opened {
            mut store,
            audit,
            clean,
            id,
            set_aside,
        } = opened;
        let mut verdict = audit.conclude(clean.as_ref(), withdraw_from);
        verdict.recovery.set_aside = set_aside;
        let keys = options.ring.check(&verdict.keys);
        keys.map_err(|trouble| OpenError::key(&options.path, trouble))?;
        let lost = &verdict.recovery;
        if options.strict && withdraw_from.is_none() && lost.has_loss() {
            return Err(OpenError::Loss {
                path: options.path.clone(),
                records: lost.lost,
                parked: lost.lost_parked,
            });
        }
        if verdict.recovery.has_loss() {
            verdict.recovery.damaged_chunks += store.keep_damaged();
        }
        store.begin()?;
        let ledger = Ledger::new(id, &verdict);
        Ok(Ready {
            store,
            ledger,
            verdict,
        })
    };
    catch_unwind(AssertUnwindSafe(look)).map_err(|_| panicked(&options.path))?
}

fn panicked(path: &Path) -> OpenError {
    OpenError::Damaged {
        path: path.into(),
        what: "the store panicked while it was opened".to_owned(),
    }
}

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

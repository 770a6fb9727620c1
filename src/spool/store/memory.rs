//! A store that forgets, notes what it was told, and fails or stalls when a test says so.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Changes, Store};
use crate::spool::{
    chunk::{Key, Kind},
    error::StoreError,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Call {
    Apply,
    Flush,
    Sync,
    Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Fault {
    Error,
    Panic,
    /// Waits until the fault is taken away.
    Stall,
}

/// The clones share one store.
#[derive(Clone, Default)]
pub(in crate::spool) struct MemoryStore(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub(in crate::spool) struct State {
    pub(in crate::spool) entries: BTreeMap<Key, Bytes>,
    /// All calls but scans.
    pub(in crate::spool) calls: Vec<Call>,
    fault: Option<(Call, Fault)>,
    stalled: bool,
}

impl MemoryStore {
    pub(in crate::spool) fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }

    pub(in crate::spool) fn set_fault(&self, fault: impl Into<Option<(Call, Fault)>>) {
        self.state().fault = fault.into();
        self.0.1.notify_all();
    }

    /// Until the thread stands in a call that stalls.
    pub(in crate::spool) fn await_stall(&self) {
        self.wait_until(|state| state.stalled);
    }

    pub(in crate::spool) fn wait_until(&self, mut reached: impl FnMut(&State) -> bool) {
        let mut state = self.state();
        let waited = self
            .0
            .1
            .wait_while_for(&mut state, |state| !reached(state), PATIENCE);
        assert!(!waited.timed_out(), "the thread does not get there");
    }

    fn enter(&self, call: Call) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        let fault = |state: &State| state.fault.filter(|(at, _)| *at == call);
        match fault(&state) {
            Some((_, Fault::Error)) => return Err(StoreError::Unknown("told to fail".into())),
            Some((_, Fault::Panic)) => panic!("told to panic"),
            Some((_, Fault::Stall)) => {
                state.stalled = true;
                self.0.1.notify_all();
                self.0
                    .1
                    .wait_while(&mut state, |state| fault(state).is_some());
                state.stalled = false;
            }
            None => {}
        }
        if call != Call::Scan {
            state.calls.push(call);
        }
        self.0.1.notify_all();
        Ok(state)
    }
}

/// So that a promise that is broken is a test that fails, and not one that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

impl Store for MemoryStore {
    fn apply(&mut self, changes: Changes) -> Result<(), StoreError> {
        let mut state = self.enter(Call::Apply)?;
        for key in changes.remove {
            state.entries.remove(&key);
        }
        let put = changes.put.into_iter();
        state
            .entries
            .extend(put.map(|chunk| (chunk.key, chunk.value.into())));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.enter(Call::Flush).map(drop)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.enter(Call::Sync).map(drop)
    }

    fn scan(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let state = self.enter(Call::Scan)?;
        for (key, value) in state.entries.range(from..=to) {
            if visit(*key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, from: Key, to: Key) -> Result<Option<Key>, StoreError> {
        let state = self.enter(Call::Scan)?;
        Ok(state
            .entries
            .range(from..=to)
            .next_back()
            .map(|(key, _)| *key))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self
            .state()
            .entries
            .values()
            .map(|value| value.len() as u64)
            .sum())
    }
}

impl State {
    pub(in crate::spool) fn keys(&self, kind: Kind) -> Vec<Key> {
        let range = Key::first_of(kind)..=Key::last_of(kind);
        self.entries.range(range).map(|(key, _)| *key).collect()
    }
}

//! A store that forgets, notes what it was told, and fails or stalls when a test says so.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Live, Opened, Reclaim, Store};
use crate::spool::{
    audit::Audit,
    chunk::{Chunk, Frame, Key, Kind, LaneId, SpoolId, Voids},
    dir::{Clean, Space},
    error::{OpenError, StoreError},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Call {
    Open,
    Apply,
    Flush,
    Sync,
    RollOver,
    Reclaim,
    Scan,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Fault {
    Error,
    /// The same, once.
    OneError,
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
    /// What was written and what was opened, in order.
    pub(in crate::spool) calls: Vec<Call>,
    /// When it was opened, each time that was tried.
    pub(in crate::spool) opened_at: Vec<Instant>,
    pub(in crate::spool) clean: Option<Clean>,
    pub(in crate::spool) space: Option<Space>,
    /// What is reclaimable next.
    pub(in crate::spool) reclaim: Option<Reclaim>,
    voids: Voids,
    faults: Vec<(Call, Fault)>,
    stalled: bool,
}

impl MemoryStore {
    pub(in crate::spool) fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }

    pub(in crate::spool) fn set_fault(&self, fault: impl Into<Option<(Call, Fault)>>) {
        self.state().faults = fault.into().into_iter().collect();
        self.0.1.notify_all();
    }

    pub(in crate::spool) fn add_fault(&self, call: Call, fault: Fault) {
        self.state().faults.push((call, fault));
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

    /// As often as there is reason to.
    pub(in crate::spool) fn open(&self) -> Result<Opened<Self>, OpenError> {
        let state = self.enter(Call::Open).map_err(|error| OpenError::Io {
            action: "open",
            path: "memory".into(),
            source: std::io::Error::other(error),
        })?;
        let mut audit = Audit::default();
        for (key, value) in &state.entries {
            if let Ok(frame) = Frame::parse(*key, value) {
                audit.see(&frame);
            }
        }
        audit.end_generation();
        Ok(Opened {
            store: self.clone(),
            audit,
            clean: state.clean.clone(),
            id: ID,
            set_aside: 0,
        })
    }

    fn enter(&self, call: Call) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        if call == Call::Open {
            state.opened_at.push(Instant::now());
        }
        if NOTED.contains(&call) {
            state.calls.push(call);
        }
        self.0.1.notify_all();
        let fault = |state: &State| state.faults.iter().copied().find(|(at, _)| *at == call);
        match fault(&state) {
            Some((_, fault @ (Fault::Error | Fault::OneError))) => {
                if fault == Fault::OneError {
                    state.faults.retain(|(at, _)| *at != call);
                }
                return Err(StoreError::Unknown("told to fail".into()));
            }
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
        Ok(state)
    }
}

const ID: SpoolId = SpoolId::from_bytes(*b"inmemory");

const NOTED: [Call; 5] = [
    Call::Open,
    Call::Apply,
    Call::Flush,
    Call::Sync,
    Call::Reclaim,
];

/// So that a promise that is broken is a test that fails, and not one that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

impl Store for MemoryStore {
    fn begin(&mut self, voids: &Voids) -> Result<(), OpenError> {
        let mut state = self.state();
        state.clean = None;
        state.voids.clone_from(voids);
        Ok(())
    }

    fn apply(&mut self, chunks: Vec<Chunk>) -> Result<(), StoreError> {
        let mut state = self.enter(Call::Apply)?;
        let chunks = chunks.into_iter();
        state
            .entries
            .extend(chunks.map(|chunk| (chunk.key, chunk.value.into())));
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
        kind: Kind,
        lane: LaneId,
        from: u64,
        visit: &mut dyn FnMut(Key, Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let state = self.enter(Call::Scan)?;
        let before = state.entries.range(Key::range(kind, lane, 0, from));
        let begin = before.last().map_or(from, |(key, _)| key.number());
        for (key, value) in state.entries.range(Key::range(kind, lane, begin, u64::MAX)) {
            let is_void =
                Frame::parse(*key, value).is_ok_and(|frame| !state.voids.let_count_frame(&frame));
            if !is_void && visit(*key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let state = self.state();
        Ok(state.entries.values().map(|value| value.len() as u64).sum())
    }

    fn space(&self) -> Option<Space> {
        self.state().space
    }

    fn roll_over(&mut self) -> Result<bool, StoreError> {
        self.enter(Call::RollOver).map(|_| false)
    }

    fn reclaimable(&self, _: &dyn Live) -> Option<Reclaim> {
        self.state().reclaim.clone()
    }

    fn reclaim(&mut self, _: &Reclaim, _: &dyn Live) -> Result<(), StoreError> {
        self.enter(Call::Reclaim)?.reclaim = None;
        Ok(())
    }

    fn has(&self, lane: LaneId) -> bool {
        self.state().entries.keys().any(|key| key.lane() == lane)
    }

    fn close(self, clean: &Clean) -> Result<(), StoreError> {
        self.enter(Call::Close)?.clean = Some(clean.clone());
        self.0.1.notify_all();
        Ok(())
    }
}

impl State {
    pub(in crate::spool) fn keys(&self, kind: Kind) -> Vec<Key> {
        let keys = self.entries.keys().copied();
        keys.filter(|key| key.kind() == kind).collect()
    }
}

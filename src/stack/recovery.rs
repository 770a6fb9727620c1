//! Tells the breaker and the spool that Redis is back, without waiting for a user's call to find out.

use tokio::{sync::watch, task::JoinHandle};

use crate::{breaker::BreakerHandle, connect::Status};

/// A task that lives as long as this value.
pub(super) struct Recovery {
    recoveries: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Recovery {
    /// Watches the connection and the breaker.
    pub(super) fn watch(mut connection: watch::Receiver<Status>, breaker: BreakerHandle) -> Self {
        let recoveries = watch::Sender::new(0);
        let mut closings = breaker.recoveries();
        let sender = recoveries.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = connection.changed() => match changed {
                        Ok(()) if connection.borrow_and_update().up => breaker.probe_now(),
                        Ok(()) => continue,
                        Err(_) => break,
                    },
                    changed = closings.changed() => if changed.is_err() { break },
                }
                announce(&sender);
            }
        });
        Self { recoveries, task }
    }

    /// A count that grows whenever Redis is back.
    pub(super) fn signal(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Has what waits look again now, since there is a way for it.
    pub(super) fn announce(&self) {
        announce(&self.recoveries);
    }
}

fn announce(recoveries: &watch::Sender<u64>) {
    recoveries.send_modify(|recoveries| *recoveries += 1);
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Tells the breaker and the spool that Redis is back, without waiting for a user's call to find out.

use tokio::{sync::watch, task::JoinHandle};

use crate::{breaker::BreakerHandle, connect::Status};

/// A task that lives as long as this value.
pub(super) struct Recovery {
    recoveries: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Recovery {
    /// Watches the connection and the breaker.
    pub(super) fn watch(mut connection: watch::Receiver<Status>, breaker: BreakerHandle) -> Self {
        let (sender, recoveries) = watch::channel(0);
        let mut closings = breaker.recoveries();
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
                sender.send_modify(|recoveries| *recoveries += 1);
            }
        });
        Self { recoveries, task }
    }

    /// A count that grows whenever Redis is back.
    pub(super) fn signal(&self) -> watch::Receiver<u64> {
        self.recoveries.clone()
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! The orderly end of a spool: its queues, then its disk.

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Spoolable, disk_failed, error::StoreError, queue::Control, shared::Shared};
use crate::{
    classify::{Class, Landed, Verdict},
    error::{Error, ErrorKind},
};

impl<T: Spoolable> Shared<T> {
    /// Waits until nothing is left in memory or on disk.
    pub(super) async fn flush(&self) {
        for queue in self.handles() {
            let (done, flushed) = oneshot::channel();
            if queue.control.send(Control::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        }
        let _ = self.disk.sync().await;
    }

    /// Takes no more records, delivers what it can until `deadline`, and has the rest written to disk.
    pub(super) async fn end_queues(&self, deadline: Instant) {
        let mut ends = Vec::new();
        for queue in self.close() {
            let (done, ended) = oneshot::channel();
            if queue
                .control
                .send(Control::Shutdown { deadline, done })
                .await
                .is_ok()
            {
                ends.push(ended);
            }
        }
        let latest = deadline + self.options.disk_timeout;
        for ended in ends {
            let _ = timeout_at(latest, ended).await;
        }
        // Who sends parked records again stops soon, and its count is to be in what is left.
        let _ = timeout_at(latest, self.unparking.acquire()).await;
    }

    /// Ends all tasks and gives the directory back, not much later than `deadline`. Says how many records
    /// are there for the next run.
    pub(super) async fn close_disk(&self, deadline: Instant) -> Result<u64, Error> {
        self.stop();
        if let Some(slot) = self.place.slot().cloned()
            && self.usage.left() == 0
            && matches!(
                timeout_at(deadline + self.options.disk_timeout, self.disk.sync()).await,
                Ok(Ok(()))
            )
        {
            // What is done with is noted, for good. Without the mark somebody takes a look, and that is all.
            let _ = tokio::task::spawn_blocking(move || slot.put_up_mark()).await;
        }
        let latest = deadline + self.options.disk_timeout * 2;
        match timeout_at(latest, self.disk.close()).await {
            // Closed by an earlier shutdown, it holds what that one has left.
            Ok(Ok(()) | Err(StoreError::Closed)) => Ok(self.usage.left()),
            Ok(Err(error)) => Err(disk_failed(&error)),
            Err(_) => Err(
                Error::new(ErrorKind::Spool, Verdict::new(Class::Outage, Landed::Maybe))
                    .with_cause("the disk has not answered in time"),
            ),
        }
    }
}

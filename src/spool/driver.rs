//! Gives a queue its turns: in its own task, and for a caller who comes alone, in the caller's.
//!
//! A record that meets an idle queue is sent off by the one who brings it: one switch between tasks less
//! on the way to Redis, which a caller who waits for each receipt notices. The lock is only ever held
//! for a turn, never over an await, and a caller never waits for it: whoever finds it taken leaves the
//! record to the one who has it.

use std::{
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::runtime;

use super::{Spoolable, queue::Queue};

pub(super) struct Driver<T>(Arc<Mutex<Seat<T>>>);

struct Seat<T> {
    /// Until it is over.
    queue: Option<Queue<T>>,
    /// Wakes the queue's task.
    task: Option<Waker>,
}

impl<T: Spoolable> Driver<T> {
    pub(super) fn new(queue: Queue<T>) -> Self {
        Self(Arc::new(Mutex::new(Seat {
            queue: Some(queue),
            task: None,
        })))
    }

    /// The queue's task. Dropping it ends the queue where it is.
    pub(super) fn task(&self) -> impl Future<Output = ()> + Send + 'static + use<T> {
        let seat = Empties(self.0.clone());
        async move {
            poll_fn(|cx| {
                let mut seat = seat.0.lock();
                if !seat
                    .task
                    .as_ref()
                    .is_some_and(|task| task.will_wake(cx.waker()))
                {
                    seat.task = Some(cx.waker().clone());
                }
                seat.turn(cx)
            })
            .await;
            let over = seat.0.lock().queue.take();
            if let Some(queue) = over {
                queue.end().await;
            }
        }
    }

    /// Gives the queue a turn in the caller's task, if nobody else is at it. Says whether it did.
    pub(super) fn turn_now(&self) -> bool {
        // A turn may set a timer, and that needs a runtime.
        if runtime::Handle::try_current().is_err() {
            return false;
        }
        let Some(mut seat) = self.0.try_lock() else {
            return false;
        };
        let Some(task) = seat.task.clone() else {
            return false;
        };
        if seat.turn(&mut Context::from_waker(&task)).is_ready() {
            task.wake();
        }
        true
    }
}

impl<T: Spoolable> Seat<T> {
    /// A panic in a record's own code ends the queue: those who wait hear that it is closed.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(queue) = &mut self.queue else {
            return Poll::Ready(());
        };
        let turn = catch_unwind(AssertUnwindSafe(|| queue.turn(cx)));
        if turn.is_err() {
            let queue = queue.name();
            tracing::error!(
                queue,
                "a record of this queue has panicked; the queue is closed"
            );
            self.queue = None;
        }
        turn.unwrap_or(Poll::Ready(()))
    }
}

/// The queue holds what holds this driver, so the task takes it out when it goes, however it goes.
struct Empties<T>(Arc<Mutex<Seat<T>>>);

impl<T> Drop for Empties<T> {
    fn drop(&mut self) {
        let queue = self.0.lock().queue.take();
        drop(queue);
    }
}

impl<T> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

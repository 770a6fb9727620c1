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
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::{runtime, task::unconstrained};

use super::{Spoolable, queue::Queue};

pub(super) struct Driver<T> {
    seat: Arc<Mutex<Seat<T>>>,
    /// Where the queue's task is.
    home: runtime::Handle,
}

struct Seat<T> {
    /// Until it is over.
    queue: Option<Queue<T>>,
    /// Wakes the queue's task.
    task: Option<Waker>,
}

impl<T: Spoolable> Driver<T> {
    /// The queue's task is to be spawned on `home`.
    pub(super) fn new(queue: Queue<T>, home: runtime::Handle) -> Self {
        let seat = Seat {
            queue: Some(queue),
            task: None,
        };
        Self {
            seat: Arc::new(Mutex::new(seat)),
            home,
        }
    }

    /// The queue's task. Dropping it ends the queue where it is.
    pub(super) fn task(&self) -> impl Future<Output = ()> + Send + 'static + use<T> {
        let seat = Empties(self.seat.clone());
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
        // Outside of any runtime, or in a thread at its end, it is left to the task.
        if runtime::Handle::try_current().is_err() {
            return false;
        }
        let Some(mut seat) = self.seat.try_lock() else {
            return false;
        };
        let Some(task) = seat.task.clone() else {
            return false;
        };
        // The caller's runtime may be another one, and end before the timers that a turn sets.
        let _home = self.home.enter();
        // A turn that ends for want of the caller's budget would be gone if the caller's runtime stops here.
        let turn = pin!(unconstrained(poll_fn(|cx| seat.turn(cx))));
        if turn.poll(&mut Context::from_waker(&task)).is_ready() {
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

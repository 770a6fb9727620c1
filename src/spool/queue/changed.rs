//! A watch that can be polled from a loop.

use std::task::{Context, Poll};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

/// A watch that can be polled from a loop without missing a change between two polls.
pub(super) struct Changed<V> {
    next: Option<BoxFuture<'static, Option<watch::Receiver<V>>>>,
}

impl<V: Send + Sync + 'static> Changed<V> {
    pub(super) fn new(receiver: watch::Receiver<V>) -> Self {
        Self {
            next: Some(next_change(receiver)),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = &mut self.next else {
            return Poll::Pending;
        };
        match next.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(receiver)) => {
                self.next = Some(next_change(receiver));
                Poll::Ready(())
            }
            // The sender is gone, and nothing will change any more.
            Poll::Ready(None) => {
                self.next = None;
                Poll::Pending
            }
        }
    }
}

fn next_change<V: Send + Sync + 'static>(
    mut receiver: watch::Receiver<V>,
) -> BoxFuture<'static, Option<watch::Receiver<V>>> {
    async move { receiver.changed().await.is_ok().then_some(receiver) }.boxed()
}

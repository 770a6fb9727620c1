//! The queues of workers, from a [`Seawall`] or one of its [`Target`]s.

use std::sync::Arc;

use super::{Seawall, Target};
use crate::{error::Error, worker::Queue};

impl Seawall {
    /// A queue of [workers](crate::worker), to look at it and to put it right: see [`Queue`]. Of several targets it is
    /// that of the one that is active now, and stays so; [`Target::queue`] is that of another.
    pub fn queue(&self, name: impl Into<Arc<str>>) -> Queue {
        Queue::new(name, self.arms.active().call.clone())
    }

    /// The names of the queues of workers that there are: see [`worker::queues`](crate::worker::queues), which says
    /// why this takes its time. Of several targets, those of the active one.
    ///
    /// # Errors
    ///
    /// Those of [`worker::queues`](crate::worker::queues).
    pub async fn queues(&self) -> Result<Vec<String>, Error> {
        crate::worker::queues(self.arms.active().call.clone()).await
    }
}

impl Target<'_> {
    /// A queue of [workers](crate::worker) of this target: see [`Queue`].
    pub fn queue(&self, name: impl Into<Arc<str>>) -> Queue {
        Queue::new(name, self.arm.call.clone())
    }
}

//! One call: to the node that has its keys, and on to where that one sends it.

use std::sync::Arc;

use super::{
    super::{
        deployment::Endpoint,
        exchange::{Limit, Manner, Outcome, Refusal, exchange, replaced},
        generation::Generation,
        service::Inner,
    },
    Cluster, Shared,
    layout::Node,
    map::{Redirect, redirect},
};
use crate::{
    RedisCall, Reply,
    call::{Body, keys},
    error::Error,
};

/// Sends a call, and follows redirections within the time of one attempt.
///
/// Nothing is sent a second time that the first node has not refused whole.
pub(in super::super) async fn attempt(
    cluster: Arc<Cluster>,
    call: RedisCall,
) -> Result<Reply, Error> {
    let shared = &*cluster.shared;
    let slot = keys::slot_of(call.body())
        .map_err(|keys::CrossSlot| Error::cross_slot().with_call(call.name()))?;
    let limit = Limit::of(&call, shared.options.response_timeout)?;
    let named = |error: Error| error.with_call(call.name());
    if call.is_exclusive() {
        let node = shared.owner(slot).map_err(named)?;
        let generation = shared.current(&node).map_err(named)?;
        shared.may_go_over(&call, &generation)?;
        let mut exclusive = node.server.exclusive().await.map_err(named)?;
        return exclusive.call(&call).await;
    }
    shared
        .send(&call, slot, limit)
        .await
        .map_err(named)?
        .conclude(&call, limit, &shared.meters)
}

impl Shared {
    /// # Errors
    ///
    /// Nothing was sent: there is no connection to the node.
    async fn send(
        &self,
        call: &RedisCall,
        slot: Option<u16>,
        limit: Limit,
    ) -> Result<Outcome, Error> {
        let body = call.body();
        let mut node = self.owner(slot)?;
        let mut manner = Manner::Plain;
        let mut refused: Option<Refusal> = None;
        for _ in 0..=MOST_REDIRECTS {
            let generation = match (self.current(&node), refused) {
                (Ok(generation), _) => generation,
                // Known for too short a time to be connected: the next attempt finds it.
                (Err(_), Some(refusal)) => return Ok(self.refused(refusal, &node.endpoint)),
                (Err(error), None) => return Err(error),
            };
            self.may_go_over(call, &generation)?;
            let refusal = match exchange(&generation, body, manner, limit).await {
                Outcome::Refused(refusal) => refusal,
                done => return Ok(done),
            };
            let Some(redirect) = redirect(&refusal.error, &node.endpoint) else {
                if refusal.error.code() == Some("CLUSTERDOWN") {
                    self.is_wrong.notify_one();
                }
                return Ok(self.refused(refusal, &node.endpoint));
            };
            let next = match redirect {
                Redirect::Moved { slot, to } => {
                    manner = Manner::Plain;
                    self.redirected(&to, Some(slot))
                }
                Redirect::Ask { to } => {
                    manner = Manner::Asking;
                    self.redirected(&to, None)
                }
            };
            let may_follow = manner == Manner::Plain || !matches!(body, Body::Pipeline(_));
            match next {
                Some(next) if may_follow && !refusal.has_landed() => node = next,
                _ => return Ok(self.refused(refusal, &node.endpoint)),
            }
            refused = Some(refusal);
        }
        match refused {
            Some(refusal) => Ok(self.refused(refusal, &node.endpoint)),
            None => Err(self.away(None)),
        }
    }

    fn current(&self, node: &Node<Arc<Inner>>) -> Result<Arc<Generation>, Error> {
        let current = node.server.shared.current();
        current.map_err(|error| self.away(Some((&node.endpoint, &error))))
    }

    /// Whether this is one of the connections that the call may go over.
    fn may_go_over(&self, call: &RedisCall, generation: &Arc<Generation>) -> Result<(), Error> {
        let Some(only) = call.generation() else {
            return Ok(());
        };
        let term = self.term.load();
        if term.number == only && term.has(generation) {
            Ok(())
        } else {
            Err(replaced(call))
        }
    }

    fn refused(&self, refusal: Refusal, by: &Endpoint) -> Outcome {
        Outcome::Refused(if self.serves_without(Some(by)) {
            refusal.of_one_node()
        } else {
            refusal
        })
    }
}

/// One for a slot that has moved, one for the next that is moving, and as many again. Two nodes that
/// name each other would go on for ever.
const MOST_REDIRECTS: usize = 4;

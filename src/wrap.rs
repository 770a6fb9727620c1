//! Any client as the end of the line: stamps its errors with a verdict, and feeds it a batch record by
//! record.
//!
//! The layers are not only for seawall's own connection. [`wrap`] makes a leaf of any
//! [`tower::Service`] or async function and any error type; [`RetryLayer`](crate::retry::RetryLayer)
//! and [`BreakerLayer`](crate::breaker::BreakerLayer) go around it as around ours. [`OneByOne`] stands
//! between it and a [`SpoolLayer`](crate::spool::SpoolLayer).
//!
//! Give the client a timeout of its own: one that never answers is given up after some seconds, and its
//! records are sent again.
//!
//! A foreign client gets each record **at least once, in order**: only seawall's own scripts can make a
//! batch exactly once. A record whose reply was lost is sent again only if its
//! [`repeat`](Request::repeat) says that it may be; otherwise the record is refused to its caller, or
//! parked, with an error that [may have landed](Error::may_have_landed).
//!
//! # Default
//!
//! ```
//! use seawall::{call::Request, classify::{Class, Landed, Verdict}, wrap::wrap};
//!
//! #[derive(Clone)]
//! struct Email(String);
//! impl Request for Email {}
//!
//! async fn push(email: Email) -> Result<(), std::io::Error> {
//!     let _ = email.0;
//!     Ok(())
//! }
//!
//! let leaf = wrap(tower::service_fn(push), |error: &std::io::Error| match error.kind() {
//!     std::io::ErrorKind::InvalidData => Verdict::new(Class::Permanent, Landed::No),
//!     std::io::ErrorKind::ConnectionRefused => Verdict::new(Class::Outage, Landed::No),
//!     _ => Verdict::new(Class::Transient, Landed::Maybe),
//! });
//! # fn is_service<S: tower::Service<Email, Error = seawall::Error>>(_: S) {}
//! # is_service(leaf);
//! ```
//!
//! # Customised
//!
//! With a spool in front: see `examples/wrap_your_client.rs`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    call::Request,
    classify::{Class, Landed, Verdict},
    error::{BoxError, Error, ErrorKind},
    spool::{Applied, Batch},
};

/// A leaf made of `client`; `classify` reads its errors.
///
/// `classify` answers whose fault a failure is and whether the work was done: see
/// [`classify`](crate::classify). When in doubt, `Transient` and `Maybe`.
pub fn wrap<S, C>(client: S, classify: C) -> Wrapped<S, C> {
    Wrapped { client, classify }
}

/// A foreign client with seawall's error. Made by [`wrap`].
#[derive(Clone, Debug)]
pub struct Wrapped<S, C> {
    client: S,
    classify: C,
}

impl<S, C, Req> Service<Req> for Wrapped<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Fn(&S::Error) -> Verdict + Clone,
    Req: Request,
{
    type Response = S::Response;
    type Error = Error;
    type Future = WrappedFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client
            .poll_ready(cx)
            .map_err(|error| stamp(error, &self.classify, "ready"))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let name = request.name();
        let answer = self.client.call(request);
        WrappedFuture {
            answer,
            classify: self.classify.clone(),
            name,
        }
    }
}

fn stamp<E: Into<BoxError>>(
    error: E,
    classify: &impl Fn(&E) -> Verdict,
    name: &'static str,
) -> Error {
    Error::foreign(classify(&error), error).with_call(name)
}

pin_project! {
    /// The future of a [`Wrapped`] client's call.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct WrappedFuture<F, C> {
        #[pin]
        answer: F,
        classify: C,
        name: &'static str,
    }
}

impl<F, C, T, E> Future for WrappedFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&E) -> Verdict,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        Poll::Ready(answer.map_err(|error| stamp(error, this.classify, this.name)))
    }
}

/// Makes [`OneByOne`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneByOneLayer(());

impl OneByOneLayer {
    /// The layer; there is nothing to set.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for OneByOneLayer {
    type Service = OneByOne<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OneByOne { inner }
    }
}

/// Takes a batch and calls the inner service with one record after the other.
///
/// It stops at the first that fails, and between two records once the batch's time is up. A permanent error refuses that record only; any other leaves the
/// rest of the batch for later. A record that may have landed and is not
/// [`Repeat::Safe`](crate::call::Repeat::Safe) is refused as well: nothing may do it twice.
#[derive(Clone, Debug)]
pub struct OneByOne<S> {
    inner: S,
}

impl<S, T> Service<Batch<T>> for OneByOne<S>
where
    S: Service<T, Error = Error> + Clone,
    T: Request + Clone,
{
    type Response = Applied;
    type Error = Error;
    type Future = OneByOneFuture<S, T>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Each record waits for the inner service's readiness by itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch<T>) -> Self::Future {
        let through = batch.first() - 1;
        OneByOneFuture {
            inner: self.inner.clone(),
            batch,
            through,
            calling: None,
        }
    }
}

pin_project! {
    /// The future of one batch, record by record.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the record that is on its way in doubt, and the rest untried.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct OneByOneFuture<S: Service<T>, T> {
        inner: S,
        batch: Batch<T>,
        // The last number that is done.
        through: u64,
        #[pin]
        calling: Option<S::Future>,
    }
}

impl<S, T> Future for OneByOneFuture<S, T>
where
    S: Service<T, Error = Error>,
    T: Request + Clone,
{
    type Output = Result<Applied, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(calling) = this.calling.as_mut().as_pin_mut() {
                let answer = ready!(calling.poll(cx));
                this.calling.set(None);
                if let Err(error) = answer {
                    let repeat = this.batch.record(*this.through + 1).map(Request::repeat);
                    let again = repeat.is_some_and(|repeat| error.is_repeatable(repeat));
                    return Poll::Ready(Ok(if again {
                        Applied::stopped(*this.through, error)
                    } else {
                        Applied::refused(*this.through, 1, error)
                    }));
                }
                *this.through += 1;
            }
            if *this.through == this.batch.last() || this.batch.ends_lane() {
                return Poll::Ready(Ok(Applied::all()));
            }
            match this.batch.record(*this.through + 1) {
                // Expired: its number is spent on nothing.
                None => *this.through += 1,
                Some(_) if this.batch.deadline().is_some_and(|at| at <= Instant::now()) => {
                    let verdict = Verdict::new(Class::Transient, Landed::No);
                    let error = Error::new(ErrorKind::Timeout, verdict);
                    return Poll::Ready(Ok(Applied::stopped(*this.through, error)));
                }
                Some(record) => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        return Poll::Ready(Ok(Applied::stopped(*this.through, error)));
                    }
                    let call = this.inner.call(record.clone());
                    this.calling.set(Some(call));
                }
            }
        }
    }
}

//! What executes jobs: async functions and [`tower::Service`]s, made one by [`IntoHandler`].

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tower::{Service, ServiceExt};

use super::{Delivery, Failure};
use crate::error::BoxError;

/// What can be given to [`Builder::run`](super::Builder::run):
///
/// - an async function or closure of a [`Delivery`];
/// - one of a payload and a [`Delivery`]: the payload is read from JSON, and one that can't be read fails the job
///   for good, with the error type `invalid_payload`, without calling the function;
/// - a [`tower::Service`] of a [`Delivery`]: tower's layers can be wrapped around any handler. It is cloned for each
///   job, and not called before it is ready.
///
/// Functions return a `Result` of anything that is [`Serialize`], which is kept as JSON if a `result_ttl` asks for
/// it, and of any error that is `Into<Failure>`. A service responds with what is `Into<Output>`, and fails with any
/// error, a [`Failure`], or one of them in a box, as tower's own layers have it.
///
/// `M` only tells the three apart, and is never named.
pub trait IntoHandler<M> {
    /// Makes it one.
    fn into_handler(self) -> Handler;
}

/// What executes jobs: see [`IntoHandler`].
pub struct Handler(Box<dyn Handle>);

impl Handler {
    pub(super) fn handle(&mut self, delivery: Delivery) -> Handling {
        self.0.handle(delivery)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

/// An execution to come.
pub(super) type Handling = BoxFuture<'static, Result<Output, Failure>>;

trait Handle: Send {
    /// Never runs anything of the handler's own: that is for the future to do.
    fn handle(&mut self, delivery: Delivery) -> Handling;
}

/// What a job that has succeeded leaves behind, for [`result_ttl`](super::Builder::result_ttl).
#[derive(Clone, Default)]
pub struct Output(Bytes);

impl Output {
    /// `value` as JSON; nothing if it can't be written as that.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            // What `()` is written as: there is nothing to be known.
            Ok(bytes) if bytes != b"null" => Self(bytes.into()),
            _ => Self::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<()> for Output {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Bytes> for Output {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// Shows no content.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Output").field(&self.0.len()).finish()
    }
}

/// Of a function of a [`Delivery`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Plain;

/// Of a function of a payload and a [`Delivery`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Typed<T>(std::marker::PhantomData<T>);

/// Of a [`tower::Service`].
#[derive(Debug)]
#[non_exhaustive]
pub struct OfService;

impl<F, Fut, T, E> IntoHandler<Plain> for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize,
    E: Into<Failure>,
{
    fn into_handler(self) -> Handler {
        let function = Arc::new(self);
        of(move |delivery: Delivery| {
            let function = function.clone();
            async move {
                let keeps = delivery.keeps_result();
                concluded(function(delivery).await, keeps)
            }
            .boxed()
        })
    }
}

impl<F, Fut, P, T, E> IntoHandler<Typed<P>> for F
where
    F: Fn(P, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    P: DeserializeOwned + Send + 'static,
    T: Serialize,
    E: Into<Failure>,
{
    fn into_handler(self) -> Handler {
        let function = Arc::new(self);
        of(move |delivery: Delivery| {
            let function = function.clone();
            async move {
                let keeps = delivery.keeps_result();
                let payload = delivery.json();
                let payload =
                    payload.map_err(|error| Failure::invalid_payload(error.to_string()))?;
                concluded(function(payload, delivery).await, keeps)
            }
            .boxed()
        })
    }
}

impl<S> IntoHandler<OfService> for S
where
    S: Service<Delivery> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Into<Output>,
    S::Error: Into<BoxError> + 'static,
{
    fn into_handler(self) -> Handler {
        // It is the future that clones it, as that may panic, and a service need not be `Sync`.
        let service = Arc::new(Mutex::new(self));
        of(move |delivery| {
            let service = service.clone();
            async move {
                let service = service.lock().clone();
                let response = service.oneshot(delivery).await;
                response.map(Into::into).map_err(Failure::of_service)
            }
            .boxed()
        })
    }
}

fn of(handle: impl FnMut(Delivery) -> Handling + Send + 'static) -> Handler {
    Handler(Box::new(Closure(handle)))
}

fn concluded<T: Serialize, E: Into<Failure>>(
    result: Result<T, E>,
    keeps: bool,
) -> Result<Output, Failure> {
    match result {
        Ok(value) if keeps => Ok(Output::json(&value)),
        Ok(_) => Ok(Output::default()),
        Err(error) => Err(error.into()),
    }
}

struct Closure<F>(F);

impl<F: FnMut(Delivery) -> Handling + Send> Handle for Closure<F> {
    fn handle(&mut self, delivery: Delivery) -> Handling {
        (self.0)(delivery)
    }
}

//! What a handler is given: [`Delivery`].

use std::{
    fmt, str,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::{TaskError, extensions::Extensions};
use crate::job::{JobId, task::Record};

/// One execution of a job. Cheap to clone, so that tower layers may keep one.
///
/// An execution may happen more than once for a job: see the [module docs](super). Its [`id`](Self::id) is there
/// to be idempotent by.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    id: JobId,
    queue: Arc<str>,
    attempt: u32,
    retries_left: u32,
    record: Record,
    error: Option<TaskError>,
    keeps_result: bool,
    cancellation: Cancellation,
    extensions: Arc<Extensions>,
}

/// What a [`Delivery`] is made of.
pub(super) struct Parts {
    pub(super) id: JobId,
    pub(super) queue: Arc<str>,
    pub(super) attempt: u32,
    pub(super) retries_left: u32,
    pub(super) record: Record,
    pub(super) error: Option<TaskError>,
    pub(super) keeps_result: bool,
    pub(super) extensions: Arc<Extensions>,
}

impl Delivery {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            id,
            queue,
            attempt,
            retries_left,
            record,
            error,
            keeps_result,
            extensions,
        } = parts;
        let inner = Inner {
            id,
            queue,
            attempt,
            retries_left,
            record,
            error,
            keeps_result,
            cancellation: Cancellation(CancellationToken::new()),
            extensions,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The job's id: the same in each execution.
    pub fn id(&self) -> JobId {
        self.inner.id
    }

    /// Its queue.
    pub fn queue(&self) -> &str {
        &self.inner.queue
    }

    /// Which execution this is: 1 is the first. Those count that failed, or in which the worker died.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// How many more there may be if this one fails; 0 if it is the last.
    pub fn retries_left(&self) -> u32 {
        self.inner.retries_left
    }

    /// What was enqueued.
    pub fn payload(&self) -> &Bytes {
        &self.inner.record.payload
    }

    /// What was enqueued, read from JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidPayload`], which fails the job for good: it will not be another `T` the next time.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, InvalidPayload> {
        // serde_json's own message may quote the payload, so only where it is is told.
        serde_json::from_slice(self.payload()).map_err(|error| InvalidPayload {
            line: error.line(),
            column: error.column(),
        })
    }

    /// The header of this name, if it is there and is text: `traceparent`, for example.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers();
        let (_, value) = headers.find(|(known, _)| *known == name.as_bytes())?;
        str::from_utf8(value).ok()
    }

    /// All headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let headers = self.inner.record.headers.iter();
        headers.map(|(name, value)| (&name[..], &value[..]))
    }

    /// When the job was enqueued, by the producer's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.inner.record.enqueued_ms)
    }

    /// How the last execution failed, if this is not the first.
    pub fn error(&self) -> Option<&TaskError> {
        self.inner.error.as_ref()
    }

    /// What the worker was given with [`extension`](super::Builder::extension).
    pub fn extension<T: 'static>(&self) -> Option<&T> {
        self.inner.extensions.get()
    }

    /// Tells when the execution is no longer wanted: its time is up, the worker ends, or it has lost the job. The
    /// handler's future is dropped then; this is for what it has started elsewhere.
    pub fn cancellation(&self) -> &Cancellation {
        &self.inner.cancellation
    }

    /// Whether anybody will be able to ask for what the handler returns.
    pub(super) fn keeps_result(&self) -> bool {
        self.inner.keeps_result
    }

    pub(super) fn record(&self) -> &Record {
        &self.inner.record
    }
}

/// Shows no payload and no headers.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id())
            .field("queue", &self.queue())
            .field("attempt", &self.attempt())
            .field("bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Tells that an execution is no longer wanted. A clone tells the same.
#[derive(Clone, Debug)]
pub struct Cancellation(CancellationToken);

impl Cancellation {
    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is. Cancel safe.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    pub(super) fn cancel(&self) {
        self.0.cancel();
    }
}

/// The payload is not the JSON of what the handler takes. It says where, and nothing of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not the JSON that is expected: line {line}, column {column}")]
pub struct InvalidPayload {
    line: usize,
    column: usize,
}

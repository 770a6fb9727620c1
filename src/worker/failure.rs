//! What a handler fails with: [`Failure`].

use std::{
    any::{TypeId, type_name},
    borrow::Cow,
    error::Error as StdError,
    fmt,
    fmt::Write as _,
    io,
    time::Duration,
};

use crate::{
    classify::Class,
    error::{BoxError, Error},
};

/// Why an execution of a job failed, and what its handler wants done about it.
///
/// Any error becomes one, so that `?` works in a handler. Its [type](Self::error_type) is what a job's
/// [`retry_on` and `ignore_on`](crate::job::Retries) name, and what is counted and listed.
///
/// | from | `error_type` | tried again, unless something says otherwise |
/// |---|---|---|
/// | an error of type `app::mail::Bounced<T>` | `Bounced` | yes |
/// | an error of a type that is just called `Error`, of the crate `mailer` | `mailer::Error` | yes |
/// | [`std::io::Error`] | `io::` and its kind: `io::TimedOut` | not if it is `InvalidInput`, `NotFound`, `PermissionDenied` or `Unsupported` |
/// | [`seawall::Error`](crate::Error) | `seawall::` and its kind: `seawall::BreakerOpen` | not if it is [permanent](crate::Error::is_permanent) |
/// | [`status(503, ..)`](Self::status) | `http_503` | 408, 409, 423, 425, 429; 500 and up but 501 and 505; nothing else from 400 on |
/// | [`new("quota", ..)`](Self::new) | `quota` | yes |
/// | the time for it being over | `timeout` | yes |
/// | a panic | `panic` | yes |
/// | the death of its worker | `worker_died` | yes, at once |
/// | a payload that can't be read | `invalid_payload` | no |
///
/// It is kept with the job, and shown by whoever shows that: keep secrets out of its message.
///
/// It is no [`std::error::Error`] itself, as any of those becomes one. Tower layers that box errors take it as it is;
/// [`boxed`](Self::boxed) gets it out of the box.
///
/// # Default
///
/// ```
/// use seawall::worker::Failure;
///
/// async fn handle(path: &str) -> Result<usize, Failure> {
///     let letter = std::fs::read(path)?; // not there: to the dead letters; cut off: again
///     if letter.is_empty() {
///         return Err(Failure::new("empty_letter", "nothing to send").permanently());
///     }
///     Ok(letter.len())
/// }
/// # let _ = handle("");
/// ```
///
/// # Customised
///
/// ```
/// use std::time::Duration;
/// use seawall::worker::Failure;
///
/// fn failure(status: u16, retry_after: Option<u64>) -> Failure {
///     let failure = Failure::status(status, "the mail provider refused it");
///     match retry_after {
///         Some(seconds) => failure.retry_after(Duration::from_secs(seconds)),
///         None if status == 410 => failure.discard(),
///         None => failure,
///     }
/// }
/// assert_eq!(failure(429, Some(30)).error_type(), "http_429");
/// assert!(failure(404, None).is_permanent());
/// ```
#[must_use = "a failure does nothing until a handler returns it"]
pub struct Failure {
    error_type: Cow<'static, str>,
    message: String,
    fate: Fate,
}

/// What becomes of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody has said: it goes by what the failure looks like.
    Unsaid(Class),
    RetryAfter(Duration),
    Permanent,
    Discard,
}

impl Failure {
    /// A failure of this type, of at most 256 bytes, with a message of at most 2 KiB. What is longer is cut off.
    pub fn new(error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::of(error_type, message, Class::Transient)
    }

    /// The answer of an HTTP server, or of anything else that has its codes.
    ///
    /// The type is `http_` and the code. It is tried again if the code says that the next time may be better: 408,
    /// 409, 423, 425, 429, and from 500 on all but 501 and 505. Below 400 too, as those are no failures. Any other is
    /// permanent: 400, 401, 403, 404, 410, 422 ...
    pub fn status(code: u16, message: impl Into<String>) -> Self {
        let class = match code {
            408 | 409 | 423 | 425 | 429 => Class::Transient,
            400..=499 | 501 | 505 => Class::Permanent,
            _ => Class::Transient,
        };
        Self::of(format!("http_{code}"), message, class)
    }

    /// An error in a box, as tower layers return it: the failure that is in there, or one of the type `error`.
    ///
    /// What the box hides of its content's type is lost, but for [`std::io::Error`] and [`seawall::Error`](crate::Error).
    pub fn boxed(error: BoxError) -> Self {
        match error.downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(error) => Self::read(&*error, UNKNOWN),
        }
    }

    /// Asks for the next execution after this time, instead of the delay that the job's schedule has.
    ///
    /// It is still one of the job's retries, and not made if there are none left. At most a year.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.fate = Fate::RetryAfter(delay.min(LONGEST_DELAY));
        self
    }

    /// Asks for no other execution: the job goes to the dead letters.
    pub fn permanently(mut self) -> Self {
        self.fate = Fate::Permanent;
        self
    }

    /// Asks for the end of the job: not executed again, and no dead letter either.
    pub fn discard(mut self) -> Self {
        self.fate = Fate::Discard;
        self
    }

    /// What kind of failure it is.
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether another execution would fail too, as the handler says, or else as it looks.
    pub fn is_permanent(&self) -> bool {
        matches!(self.fate, Fate::Permanent | Fate::Unsaid(Class::Permanent))
    }

    pub(super) fn fate(&self) -> Fate {
        self.fate
    }

    /// The handler was given up after this time.
    pub(super) fn timeout(after: Duration) -> Self {
        Self::new(TIMEOUT, format!("not finished after {after:?}"))
    }

    /// What a service has failed with: an error of its own, a failure, or one of them in a box.
    pub(super) fn of_service<E: Into<BoxError> + 'static>(error: E) -> Self {
        let is_boxed = TypeId::of::<E>() == TypeId::of::<BoxError>();
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(error) if is_boxed => Self::boxed(error),
            Err(error) => Self::read(&*error, type_name::<E>()),
        }
    }

    pub(super) fn panicked(message: impl Into<String>) -> Self {
        Self::new(PANIC, message)
    }

    /// The worker that had the job did not renew its lease.
    pub(super) fn worker_died() -> Self {
        Self::new(WORKER_DIED, "the worker died, or was cut off from Redis")
    }

    /// `why` says it without the payload.
    pub(super) fn invalid_payload(why: impl Into<String>) -> Self {
        Self::of(INVALID_PAYLOAD, why, Class::Permanent)
    }

    fn of(
        error_type: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        class: Class,
    ) -> Self {
        let mut error_type = error_type.into();
        if error_type.len() > LONGEST_TYPE {
            error_type = Cow::Owned(cut(error_type.into_owned(), LONGEST_TYPE));
        }
        Self {
            error_type,
            message: cut(message.into(), LONGEST_MESSAGE),
            fate: Fate::Unsaid(class),
        }
    }

    /// `name` is the type's, for all but those that have a better one.
    fn read(error: &(dyn StdError + 'static), name: &'static str) -> Self {
        let message = chain(error);
        if let Some(ours) = error.downcast_ref::<Error>() {
            let name = format!("seawall::{:?}", ours.kind());
            Self::of(name, message, ours.verdict().class)
        } else if let Some(io) = error.downcast_ref::<io::Error>() {
            let name = format!("io::{:?}", io.kind());
            Self::of(name, message, class_of(io.kind()))
        } else {
            Self::of(short(name), message, Class::Transient)
        }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::read(&error, type_name::<E>())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("error_type", &self.error_type)
            .field("message", &self.message)
            .field("fate", &self.fate)
            .finish()
    }
}

/// For tower layers that box the errors of what they wrap. [`Failure::boxed`] is the way back.
impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        Box::new(Boxed(failure))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Boxed(Failure);

pub(super) const LONGEST_TYPE: usize = 256;
pub(super) const LONGEST_MESSAGE: usize = 2 * 1024;
const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const TIMEOUT: &str = "timeout";
const PANIC: &str = "panic";
const WORKER_DIED: &str = "worker_died";
const INVALID_PAYLOAD: &str = "invalid_payload";
const UNKNOWN: &str = "error";

/// What would fail in the same way with the same job is permanent. Not what another job, or the weather, may change.
fn class_of(kind: io::ErrorKind) -> Class {
    use io::ErrorKind as Kind;
    match kind {
        Kind::InvalidInput | Kind::NotFound | Kind::PermissionDenied | Kind::Unsupported => {
            Class::Permanent
        }
        _ => Class::Transient,
    }
}

/// What it says, and what its sources say.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if message.len() > LONGEST_MESSAGE {
            break;
        }
        // Writing to a string does not fail, but a `Display` may.
        let _ = write!(message, ": {error}");
        source = error.source();
    }
    message
}

/// The name of a type without its path and its parameters; with its crate where it is called `Error`, as most are.
fn short(name: &'static str) -> Cow<'static, str> {
    let plain = name.split('<').next().unwrap_or(name);
    let last = plain.rsplit("::").next().unwrap_or(plain);
    match plain.split_once("::") {
        Some((of_crate, _)) if last == "Error" => format!("{of_crate}::{last}").into(),
        _ => last.into(),
    }
}

/// The beginning of a text that is too long, up to a whole character.
pub(super) fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let end = (0..=longest - ELLIPSIS.len()).rev();
        let end = end.into_iter().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push_str(ELLIPSIS);
    }
    text
}

const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        classify::{Landed, Verdict},
        error::ErrorKind,
    };

    #[derive(Debug, thiserror::Error)]
    #[error("could not send")]
    struct Bounced<T: fmt::Debug>(#[source] T);

    #[derive(Debug, thiserror::Error)]
    #[error("quite generic")]
    struct Error;

    #[test]
    fn any_error_tells_its_type_and_what_is_behind_it() {
        let failure = Failure::from(Bounced(Bounced(io::Error::other("no route"))));
        assert_eq!(failure.error_type(), "Bounced");
        assert_eq!(
            failure.message(),
            "could not send: could not send: no route"
        );
        assert!(!failure.is_permanent());
        assert_eq!(
            failure.to_string(),
            "Bounced: could not send: could not send: no route"
        );
    }

    #[test]
    fn an_error_that_is_called_error_is_told_with_its_crate() {
        assert_eq!(Failure::from(Error).error_type(), "seawall::Error");
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        assert_eq!(Failure::from(json).error_type(), "serde_json::Error");
        assert_eq!(short("Error"), "Error");
        assert_eq!(short("a::B<c::D<e::F>>"), "B");
    }

    #[test]
    fn transient_codes_are_tried_again_and_wrong_requests_are_not() {
        for code in [408, 409, 423, 425, 429, 500, 502, 503, 504, 507, 599, 302] {
            assert!(!Failure::status(code, "").is_permanent(), "{code}");
        }
        for code in [400, 401, 403, 404, 405, 410, 413, 422, 451, 499, 501, 505] {
            assert!(Failure::status(code, "").is_permanent(), "{code}");
        }
        assert_eq!(Failure::status(503, "").error_type(), "http_503");
    }

    #[test]
    fn invalid_input_is_permanent_and_a_broken_connection_is_not() {
        use io::ErrorKind as Kind;
        let failure = |kind: Kind| Failure::from(io::Error::from(kind));
        for kind in [
            Kind::TimedOut,
            Kind::ConnectionRefused,
            Kind::ConnectionReset,
            Kind::UnexpectedEof,
            Kind::Interrupted,
        ] {
            assert!(!failure(kind).is_permanent(), "{kind:?}");
        }
        for kind in [Kind::InvalidInput, Kind::NotFound, Kind::PermissionDenied] {
            assert!(failure(kind).is_permanent(), "{kind:?}");
        }
        assert_eq!(failure(Kind::TimedOut).error_type(), "io::TimedOut");
    }

    #[test]
    fn an_error_of_ours_brings_its_verdict() {
        let error = |class| {
            let verdict = Verdict::new(class, Landed::No);
            Failure::from(crate::Error::new(ErrorKind::Redis, verdict))
        };
        assert!(error(Class::Permanent).is_permanent());
        assert!(!error(Class::Transient).is_permanent());
        assert!(!error(Class::Outage).is_permanent());
        assert_eq!(error(Class::Outage).error_type(), "seawall::Redis");
    }

    #[test]
    fn a_failure_comes_out_of_a_box_as_it_went_in() {
        let delay = Duration::from_secs(9);
        let boxed = BoxError::from(Failure::status(429, "slow down").retry_after(delay));
        assert_eq!(boxed.to_string(), "http_429: slow down");
        let failure = Failure::boxed(boxed);
        assert_eq!(failure.error_type(), "http_429");
        assert_eq!(failure.fate(), Fate::RetryAfter(delay));

        let io = Failure::boxed(io::Error::from(io::ErrorKind::NotFound).into());
        assert!(io.is_permanent() && io.error_type() == "io::NotFound");
        let other = Failure::boxed("overloaded".into());
        assert_eq!(
            (other.error_type(), other.message()),
            ("error", "overloaded")
        );
    }

    #[test]
    fn what_the_worker_itself_sees_has_its_types() {
        let second = Duration::from_secs(1);
        let rows = [
            (Failure::timeout(second), "timeout", false),
            (Failure::panicked("index out of bounds"), "panic", false),
            (Failure::worker_died(), "worker_died", false),
            (Failure::invalid_payload("no JSON"), "invalid_payload", true),
        ];
        for (failure, error_type, permanent) in rows {
            assert_eq!(failure.error_type(), error_type);
            assert_eq!(failure.is_permanent(), permanent, "{error_type}");
        }
        assert_eq!(Failure::timeout(second).message(), "not finished after 1s");
    }

    #[test]
    fn the_last_word_of_a_handler_counts() {
        let failure = Failure::new("x", "").discard().permanently();
        assert!(failure.is_permanent());
        let failure = Failure::status(404, "").retry_after(Duration::MAX);
        assert!(!failure.is_permanent());
        assert_eq!(failure.fate(), Fate::RetryAfter(LONGEST_DELAY));
    }

    proptest! {
        #[test]
        fn no_text_is_too_long_to_be_kept(
            error_type in "\\PC{0,300}",
            message in "(?s).{0,900}",
            repeat in 1..5usize,
        ) {
            let message = message.repeat(repeat);
            let failure = Failure::new(error_type.clone(), message.clone());
            prop_assert!(failure.error_type().len() <= LONGEST_TYPE);
            prop_assert!(failure.message().len() <= LONGEST_MESSAGE);
            for (kept, whole, longest) in [
                (failure.error_type(), error_type, LONGEST_TYPE),
                (failure.message(), message, LONGEST_MESSAGE),
            ] {
                if whole.len() <= longest {
                    prop_assert_eq!(kept, whole);
                } else {
                    let beginning = kept.strip_suffix(ELLIPSIS).expect("it shows the cut");
                    prop_assert!(whole.starts_with(beginning));
                    prop_assert!(kept.len() + 4 > longest, "as much as there is room for");
                }
            }
        }
    }
}

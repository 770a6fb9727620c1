//! How a command ends that does not end well: what it says, and its exit code.

use std::{
    error::Error as StdError,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use seawall::{
    spool::{OpenError, stopped::Unrestorable},
    stack::BuildError,
};
use serde_json::json;

use crate::text;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command fails, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    next: Option<String>,
}

/// `EXIT_CODES` in the helps, and `docs/operations.md`, say them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Whoever read our output wants no more of it.
    Unheard = 0,
    Error = 1,
    Usage = 2,
    InUse = 3,
    Damaged = 4,
    Left = 5,
    Away = 6,
    Interrupted = 130,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: Code::Error,
            message: message.into(),
            next: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).with_code(Code::Usage)
    }

    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// What to do about it.
    pub(crate) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says what it is about.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.message = format!("{}: {}", text::plain(what), self.message);
        self
    }

    /// What became of `action`, for `map_err`.
    pub(crate) fn of(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |error| Self::new(format!("cannot {action}: {error}"))
    }

    /// Says it on stderr, and gives the exit code. A stderr that is closed changes nothing.
    pub(crate) fn report(self, as_json: bool) -> ExitCode {
        let code = ExitCode::from(self.code as u8);
        if self.code == Code::Unheard {
            return code;
        }
        let message = text::redact(&self.message);
        let next = self.next.as_deref().map(text::redact);
        let mut stderr = io::stderr().lock();
        if as_json {
            let error = json!({"code": self.code as u8, "message": message, "next": next});
            let _ = writeln!(stderr, "{}", json!({"error": error}));
        } else {
            let _ = writeln!(stderr, "seawall: {message}");
            if let Some(next) = next {
                let _ = writeln!(stderr, "next: {next}");
            }
        }
        code
    }
}

/// What is wrong with the arguments, or the help that was asked for. A password in what was typed is not
/// repeated.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    let clean = text::redact(&text);
    if clean == text {
        let _ = error.print();
    } else {
        let _ = write!(io::stderr(), "{clean}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage as u8))
}

/// Writing to stdout failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::new("").with_code(Code::Unheard),
            _ => Self::new(format!("cannot write the output: {error}")),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let failure = Self::new(chain(&error));
        match &error {
            OpenError::Locked { .. } => failure.with_code(Code::InUse).with_next(
                "stop the process that has it, or ask that process: its metrics and health() tell what is in it",
            ),
            OpenError::Damaged { .. } => failure.with_code(Code::Damaged),
            OpenError::Loss { .. } => failure.with_code(Code::Damaged).with_next(
                "copy the directory; then give --damaged to go on with what is left",
            ),
            OpenError::NotASpool { path, .. } if path.join("slot-1").is_dir() => {
                Self::new(format!("{path:?} is shared by many processes, each with a slot of it"))
                    .with_next(format!("give one of its slots: {:?}", path.join("slot-1")))
            }
            OpenError::NotASpool { path, .. } => {
                Self::new(format!("{path:?} is not a spool: it has no FORMAT file")).with_next(NO_SPOOL)
            }
            OpenError::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                Self::new(format!("there is no spool in {path:?}")).with_next(NO_SPOOL)
            }
            OpenError::Io { path, source, .. } if source.kind() == ErrorKind::NotADirectory => {
                Self::new(format!("{path:?} is a file, and a spool is a directory"))
                    .with_next(NO_SPOOL)
            }
            OpenError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                failure.with_next("run this as the user that the application runs as")
            }
            _ => failure,
        }
    }
}

const NO_SPOOL: &str =
    "give the directory that the application is given (SEAWALL_SPOOL_DIR, or spool_dir in its URL)";

impl From<seawall::Error> for Failure {
    fn from(error: seawall::Error) -> Self {
        Self::new(chain(&error))
    }
}

impl From<Unrestorable> for Failure {
    fn from(error: Unrestorable) -> Self {
        Self::new(chain(&error))
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Spool(error) => error.into(),
            other => Self::usage(chain(&other)),
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! One record as Redis sees it: a push, or a group of commands.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};

use super::Procedure;
use crate::spool::{Spoolable, Undecodable};

/// What one record does to Redis: one push to one list, a group of write commands applied as one, or what a
/// [`Procedure`] makes of it.
///
/// Made from a [`Job`](crate::Job), or by hand.
#[derive(Clone, PartialEq)]
pub struct Write {
    queue: Arc<str>,
    expires_at_ms: Option<u64>,
    pub(super) effect: Effect,
}

#[derive(Clone, PartialEq)]
pub(super) enum Effect {
    Push {
        key: Option<Arc<str>>,
        side: Side,
        value: Bytes,
    },
    Group(Vec<Command>),
    Procedure {
        name: Cow<'static, str>,
        argument: Bytes,
    },
}

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a list has two ends")]
pub enum Side {
    /// The head: LPUSH.
    Front,
    /// The tail: RPUSH.
    Back,
}

impl Side {
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Front => "LPUSH",
            Self::Back => "RPUSH",
        }
    }
}

/// One command of a group, with its arguments.
#[derive(Clone, PartialEq)]
pub struct Command {
    pub(super) arguments: Vec<Bytes>,
    pub(super) must_add: bool,
}

impl Command {
    /// A command by its name.
    pub fn new(name: &'static str) -> Self {
        Self {
            arguments: vec![Bytes::from_static(name.as_bytes())],
            must_add: false,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Bytes>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// How many arguments a command may have, its name included: what Lua passes to a function at once.
    pub const MOST_ARGUMENTS: usize = 4000;

    /// How many arguments it has, its name included. Never 0.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a command has its name at least"
    )]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Its name, then its arguments.
    pub fn arguments(&self) -> &[Bytes] {
        &self.arguments
    }

    /// Takes an answer of 0, "nothing added", for a refusal: where the same member twice would be one
    /// record lost.
    #[must_use]
    pub fn must_add(mut self) -> Self {
        self.must_add = true;
        self
    }
}

impl Write {
    /// Appends `value` to the list that is named like the queue (RPUSH).
    pub fn push_back(queue: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self::push(queue, None, Side::Back, value)
    }

    /// Pushes `value` to the list `key`, or to the one that is named like the queue.
    pub fn push(
        queue: impl Into<Arc<str>>,
        key: Option<Arc<str>>,
        side: Side,
        value: impl Into<Bytes>,
    ) -> Self {
        let effect = Effect::Push {
            key,
            side,
            value: value.into(),
        };
        Self {
            queue: queue.into(),
            expires_at_ms: None,
            effect,
        }
    }

    /// Applies `commands` one after the other with nothing in between.
    ///
    /// A command that Redis refuses for good parks the record; the commands before it in the group have
    /// been carried out by then.
    pub fn group(queue: impl Into<Arc<str>>, commands: Vec<Command>) -> Self {
        Self {
            queue: queue.into(),
            expires_at_ms: None,
            effect: Effect::Group(commands),
        }
    }

    /// Has `procedure` apply `argument`: bytes that mean something to it.
    ///
    /// The line must [know](super::SequenceLayer::with_procedure) it; one that does not parks the record.
    pub fn procedure(
        queue: impl Into<Arc<str>>,
        procedure: &Procedure,
        argument: impl Into<Bytes>,
    ) -> Self {
        Self {
            queue: queue.into(),
            expires_at_ms: None,
            effect: Effect::Procedure {
                name: Cow::Borrowed(procedure.name()),
                argument: argument.into(),
            },
        }
    }

    /// Is not delivered from this moment on, to the millisecond.
    #[must_use]
    pub fn with_expiry(mut self, at: SystemTime) -> Self {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // 0 stands for never.
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        self.expires_at_ms = Some(ms);
        self
    }

    /// What it does, for whoever wants to show it.
    pub fn action(&self) -> Action<'_> {
        match &self.effect {
            Effect::Push { key, side, value } => Action::Push {
                key: key.as_deref().unwrap_or(&self.queue),
                side: *side,
                value,
            },
            Effect::Group(commands) => Action::Group(commands),
            Effect::Procedure { name, argument } => Action::Procedure { name, argument },
        }
    }
}

/// What a [`Write`] does to Redis. Holds keys and payloads: not for logs.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// One push to one list.
    #[non_exhaustive]
    Push {
        /// The list.
        key: &'a str,
        /// Which end of it.
        side: Side,
        /// What is pushed.
        value: &'a Bytes,
    },
    /// Commands that are applied as one.
    Group(&'a [Command]),
    /// Something that a [`Procedure`] does.
    #[non_exhaustive]
    Procedure {
        /// Its name.
        name: &'a str,
        /// What it is given.
        argument: &'a Bytes,
    },
}

/// Shows its shape, never its content.
impl fmt::Debug for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push { side, .. } => f.debug_tuple("Push").field(side).finish(),
            Self::Group(commands) => f.debug_tuple("Group").field(&commands.len()).finish(),
            Self::Procedure { name, .. } => f.debug_tuple("Procedure").field(name).finish(),
        }
    }
}

/// Shows its shape, never its content.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Write");
        shown.field("queue", &self.queue);
        match &self.effect {
            Effect::Push { side, value, .. } => {
                shown.field("push", side).field("bytes", &value.len())
            }
            Effect::Group(commands) => shown.field("commands", &commands.len()),
            Effect::Procedure { name, .. } => shown.field("procedure", name),
        };
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// The bytes on disk, version 1: see `docs/spool-format.md`.
impl Spoolable for Write {
    fn queue(&self) -> &str {
        &self.queue
    }

    fn size(&self) -> usize {
        match &self.effect {
            Effect::Push { key, value, .. } => {
                HEADER + key.as_ref().map_or(0, |key| key.len()) + value.len()
            }
            Effect::Group(commands) => commands.iter().fold(HEADER, |size, command| {
                command
                    .arguments
                    .iter()
                    .fold(size + 8, |size, argument| size + 4 + argument.len())
            }),
            Effect::Procedure { name, argument } => HEADER + 4 + name.len() + argument.len(),
        }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let kind = match &self.effect {
            Effect::Push {
                key: None,
                side: Side::Front,
                ..
            } => FRONT,
            Effect::Push {
                key: None,
                side: Side::Back,
                ..
            } => BACK,
            Effect::Push {
                key: Some(_),
                side: Side::Front,
                ..
            } => FRONT | WITH_KEY,
            Effect::Push {
                key: Some(_),
                side: Side::Back,
                ..
            } => BACK | WITH_KEY,
            Effect::Group(_) => GROUP,
            Effect::Procedure { .. } => PROCEDURE,
        };
        into.extend([VERSION, kind]);
        into.extend(self.expires_at_ms.unwrap_or(0).to_le_bytes());
        match &self.effect {
            Effect::Push { key, value, .. } => {
                if let Some(key) = key {
                    put(into, key.as_bytes());
                }
                into.extend_from_slice(value);
            }
            Effect::Group(commands) => {
                into.extend((commands.len() as u32).to_le_bytes());
                for command in commands {
                    into.push(u8::from(command.must_add));
                    into.extend((command.arguments.len() as u32).to_le_bytes());
                    for argument in &command.arguments {
                        put(into, argument);
                    }
                }
            }
            Effect::Procedure { name, argument } => {
                put(into, name.as_bytes());
                into.extend_from_slice(argument);
            }
        }
    }

    fn decode(queue: &Arc<str>, mut bytes: Bytes) -> Result<Self, Undecodable> {
        if bytes.len() < HEADER {
            return Err(SHORT);
        }
        if bytes.get_u8() != VERSION {
            return Err(Undecodable::new("it was written by a newer version"));
        }
        let kind = bytes.get_u8();
        let expires_at_ms = Some(bytes.get_u64_le()).filter(|at| *at > 0);
        let effect = if kind == GROUP {
            Effect::Group(decode_group(&mut bytes)?)
        } else if kind == PROCEDURE {
            Effect::Procedure {
                name: Cow::Owned(take_text(&mut bytes)?),
                argument: bytes,
            }
        } else {
            let side = match kind & !WITH_KEY {
                FRONT => Side::Front,
                BACK => Side::Back,
                _ => return Err(Undecodable::new("it is of an unknown kind")),
            };
            let key = match kind & WITH_KEY {
                0 => None,
                _ => Some(take_text(&mut bytes)?.into()),
            };
            Effect::Push {
                key,
                side,
                value: bytes,
            }
        };
        Ok(Self {
            queue: queue.clone(),
            expires_at_ms,
            effect,
        })
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at_ms
            .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }
}

fn decode_group(bytes: &mut Bytes) -> Result<Vec<Command>, Undecodable> {
    let count = take_u32(bytes)?;
    let mut commands = Vec::new();
    for _ in 0..count {
        let must_add = bytes.try_get_u8().map_err(|_| SHORT)? != 0;
        commands.push(Command {
            arguments: take_arguments(bytes)?,
            must_add,
        });
    }
    nothing_is_left(bytes).map(|()| commands)
}

fn take_arguments(bytes: &mut Bytes) -> Result<Vec<Bytes>, Undecodable> {
    let count = take_u32(bytes)?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        arguments.push(take(bytes)?);
    }
    Ok(arguments)
}

fn take_text(bytes: &mut Bytes) -> Result<String, Undecodable> {
    let not_text = Undecodable::new("a name in it is not UTF-8");
    String::from_utf8(take(bytes)?.into()).map_err(|_| not_text)
}

fn nothing_is_left(bytes: &Bytes) -> Result<(), Undecodable> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(Undecodable::new("it is too long"))
    }
}

fn put(into: &mut Vec<u8>, part: &[u8]) {
    into.extend((part.len() as u32).to_le_bytes());
    into.extend_from_slice(part);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, Undecodable> {
    let len = take_u32(bytes)? as usize;
    if bytes.len() < len {
        Err(SHORT)
    } else {
        Ok(bytes.split_to(len))
    }
}

fn take_u32(bytes: &mut Bytes) -> Result<u32, Undecodable> {
    bytes.try_get_u32_le().map_err(|_| SHORT)
}

const SHORT: Undecodable = Undecodable::new("it is too short");
const VERSION: u8 = 1;
const HEADER: usize = 10;
const FRONT: u8 = 0;
const BACK: u8 = 1;
const GROUP: u8 = 2;
const PROCEDURE: u8 = 3;
const WITH_KEY: u8 = 0x10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writes() -> impl Strategy<Value = Write> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let side = prop_oneof![Just(Side::Front), Just(Side::Back)];
        let key = proptest::option::of("[a-z:{}é]{0,12}");
        let push = (side, key, bytes())
            .prop_map(|(side, key, value)| Write::push("q", key.map(Into::into), side, value));
        let command = (proptest::collection::vec(bytes(), 0..5), any::<bool>()).prop_map(
            |(arguments, must_add)| Command {
                arguments,
                must_add,
            },
        );
        let group = proptest::collection::vec(command, 0..5)
            .prop_map(|commands| Write::group("q", commands));
        let procedure = ("[a-z]{0,9}", bytes()).prop_map(|(name, argument)| Write {
            queue: "q".into(),
            expires_at_ms: None,
            effect: Effect::Procedure {
                name: name.into(),
                argument,
            },
        });
        (
            prop_oneof![push, group, procedure],
            proptest::option::of(1u64..1 << 45),
        )
            .prop_map(|(mut write, at)| {
                write.expires_at_ms = at;
                write
            })
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(write in writes()) {
            let mut bytes = Vec::new();
            write.encode(&mut bytes);
            prop_assert_eq!(Write::decode(&"q".into(), bytes.into()).unwrap(), write);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Write::decode(&"q".into(), bytes.into());
        }
    }
}

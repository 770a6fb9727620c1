//! Scripts of somebody else's that apply records: [`Procedure`].

use std::{fmt, sync::Arc};

use redis::Script;

use super::script::GROUP_SOURCE;

/// A Lua script that applies records which are neither a push nor a group of commands, exactly once and in order
/// with the others of their queue.
///
/// The records of a batch that stand next to each other are applied by one call of it, so that it can do for
/// all of them at once what Redis has variadic commands for.
///
/// The script is the body of a function. It is given
///
/// - `keys`, the names that the function `keys` makes of the queue's name, in that order;
/// - `first` and `last`: from where to where in `ARGV` the records are, the oldest first, each as the bytes that
///   [`Write::procedure`](super::Write::procedure) was given;
/// - `done`, a function: `done(at)` notes that those up to this place are applied.
///
/// It ends by itself when all are applied, or with an error: that of the record after those it has noted. As
/// with a group, Redis has no rollback.
#[derive(Clone, Copy)]
pub struct Procedure {
    name: &'static str,
    source: &'static str,
    keys: fn(&str) -> Vec<String>,
}

impl Procedure {
    /// `source` under the name that records are spooled with: a constant, without blanks, never changed.
    ///
    /// All keys must be in the hash slot of the queue.
    pub const fn new(
        name: &'static str,
        source: &'static str,
        keys: fn(&str) -> Vec<String>,
    ) -> Self {
        Self { name, source, keys }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn keys(&self, queue: &str) -> Vec<String> {
        (self.keys)(queue)
    }
}

impl fmt::Debug for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Procedure").field(&self.name).finish()
    }
}

/// The procedures that are known, and the general script with them in it.
#[derive(Clone, Debug)]
pub(super) struct Procedures(Arc<Known>);

#[derive(Debug)]
struct Known {
    all: Vec<Procedure>,
    source: Arc<str>,
    sha1: String,
}

impl Procedures {
    pub(super) fn new(all: Vec<Procedure>) -> Self {
        let mut source = String::from("local procedures = {}\n");
        for Procedure {
            name, source: body, ..
        } in &all
        {
            source +=
                &format!("procedures['{name}'] = function(keys, first, last, done)\n{body}\nend\n");
        }
        source += GROUP_SOURCE;
        Self(Arc::new(Known {
            all,
            sha1: Script::new(&source).get_hash().to_owned(),
            source: source.into(),
        }))
    }

    pub(super) fn with(&self, procedure: Procedure) -> Self {
        let mut all = self.0.all.clone();
        all.retain(|known| known.name != procedure.name);
        all.push(procedure);
        Self::new(all)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Procedure> {
        self.0.all.iter().find(|known| known.name == name)
    }

    pub(super) fn source(&self) -> &Arc<str> {
        &self.0.source
    }

    pub(super) fn sha1(&self) -> &str {
        &self.0.sha1
    }
}

impl Default for Procedures {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

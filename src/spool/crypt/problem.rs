//! Why a key cannot be used.

use std::fmt;

use tower::BoxError;

use super::KeyId;

/// What is wrong with a key that the spool needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The spool was opened without keys.
    NotGiven,
    /// There is no key with that id among those that were given.
    Unknown,
    /// A key was given, but it is not the one that the records were encrypted with.
    Wrong,
    /// What gives the keys has failed; the error's source says why.
    Failed,
    /// This seawall was built without the feature `encrypt`.
    NotSupported,
}

/// What is wrong, and what to do.
impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotGiven => {
                "and no keys were given: give them with SpoolOptions::with_keys"
            }
            Self::Unknown => {
                "which is not among those given: add it, for it is needed until Spool::keys_in_use \
                 no longer names it"
            }
            Self::Wrong => {
                "and none of its records can be read with the one given: give the key that they were \
                 written with under this id"
            }
            Self::Failed => "and what gives the keys has failed: see the cause, and open it again",
            Self::NotSupported => {
                "and this program's seawall cannot decrypt: build it with the feature `encrypt`"
            }
        })
    }
}

/// Why a key is not to be had.
#[derive(Debug)]
pub(in crate::spool) struct Trouble {
    pub(in crate::spool) key: KeyId,
    pub(in crate::spool) problem: KeyProblem,
    pub(in crate::spool) source: Option<BoxError>,
}

impl Trouble {
    pub(super) fn new(key: KeyId, problem: KeyProblem) -> Self {
        Self {
            key,
            problem,
            source: None,
        }
    }
}

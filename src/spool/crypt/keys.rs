//! The keys that an application gives.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::Mutex;
use tower::BoxError;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Cipher, KeyId, KeyProblem, Trouble};

/// The keys that a spool is encrypted with, each with an id: see
/// [`SpoolOptions::with_keys`](super::super::SpoolOptions::with_keys).
///
/// Every record, and the reason why one is parked, is encrypted with XChaCha20-Poly1305 before it is
/// written, under the *current* key; what is on disk says in clear by which id it is to be read. The names
/// of queues, how many records there are, how long, and when they were written stay in clear. Nobody
/// without the key can read a record, alter it, or make it pass for another one; who may write to the directory
/// can still remove records, put old ones back, or add some that are not encrypted.
///
/// # Default
///
/// One key. Make it once, `openssl rand -hex 32`, and keep it where secrets are kept: without it what waits
/// on disk is lost.
///
/// ```no_run
/// use seawall::spool::{Keys, SpoolOptions};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let key = std::env::var("SPOOL_KEY")?.parse()?;
/// let options = SpoolOptions::new("/var/lib/app/spool").with_keys(Keys::single(1, key));
/// # let _ = options;
/// # Ok(())
/// # }
/// ```
///
/// # Customised
///
/// A key is replaced by giving the new one another id, and both: what is written from then on is
/// encrypted with the current one, and what waits is read with the one it was written with. When
/// [`Spool::keys_in_use`](super::super::Spool::keys_in_use) names the old id no longer, it can go.
///
/// ```
/// use seawall::spool::{Key, Keys};
///
/// # fn run(old: Key, new: Key) {
/// let keys = Keys::new(2, [(1, old), (2, new)]);
/// # let _ = keys;
/// # }
/// ```
///
/// Keys can come from elsewhere, too, such as a key management service, and are asked for as they are
/// needed: [`Keys::from_fn`].
#[derive(Clone)]
#[must_use]
pub struct Keys {
    current: KeyId,
    look_up: Arc<LookUp>,
    /// What it has given.
    found: Arc<Mutex<BTreeMap<KeyId, Key>>>,
}

type LookUp = dyn Fn(KeyId) -> Result<Option<Key>, BoxError> + Send + Sync;

impl Keys {
    /// One key for all.
    pub fn single(id: u32, key: Key) -> Self {
        Self::new(id, [(id, key)])
    }

    /// Some keys, each with its id. New records are encrypted with the one whose id is `current`; if
    /// there is none, the spool is not opened. Of two keys with one id, the last counts.
    pub fn new(current: u32, keys: impl IntoIterator<Item = (u32, Key)>) -> Self {
        let keys: BTreeMap<KeyId, Key> = keys.into_iter().collect();
        Self::from_fn(current, move |id| Ok(keys.get(&id).cloned()))
    }

    /// Keys that `look_up` gives: `None` if there is no key with that id, an error if it cannot be had now.
    ///
    /// It is asked when the spool is opened, for `current` and for each other id that is found on disk, on a
    /// thread where it may block. A key that it has given it is not asked for again. If it has no key that is needed, [`Spool::open`] fails with
    /// [`OpenError::Key`], and nothing is changed on disk; an error of its own is the source of that one.
    ///
    /// [`Spool::open`]: super::super::Spool::open
    /// [`OpenError::Key`]: super::super::OpenError::Key
    pub fn from_fn<F>(current: u32, look_up: F) -> Self
    where
        F: Fn(u32) -> Result<Option<Key>, BoxError> + Send + Sync + 'static,
    {
        Self {
            current,
            look_up: Arc::new(look_up),
            found: Arc::default(),
        }
    }

    pub(super) fn current(&self) -> KeyId {
        self.current
    }

    pub(super) fn cipher(&self, id: KeyId) -> Result<Cipher, Trouble> {
        let found = self.found.lock().get(&id).cloned();
        if let Some(key) = found {
            return Ok(Cipher::new(id, &key));
        }
        match catch_unwind(AssertUnwindSafe(|| (self.look_up)(id))) {
            Ok(Ok(Some(key))) => {
                let cipher = Cipher::new(id, &key);
                self.found.lock().insert(id, key);
                Ok(cipher)
            }
            Ok(Ok(None)) => Err(Trouble::new(id, KeyProblem::Unknown)),
            Ok(Err(error)) => Err(Trouble {
                source: Some(error),
                ..Trouble::new(id, KeyProblem::Failed)
            }),
            Err(_) => Err(Trouble {
                source: Some("it panicked".into()),
                ..Trouble::new(id, KeyProblem::Failed)
            }),
        }
    }
}

/// Shows no key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// A key of 32 bytes, which are all random: no password, and nothing that was made of one without a
/// function for that.
///
/// It is read from text with [`str::parse`], and cleared from memory when the last of its users is gone.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<[u8; Self::LEN]>>);

impl Key {
    /// How many bytes a key has.
    pub const LEN: usize = 32;

    /// The key with these bytes, whose copy here is cleared.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; Self::LEN]) -> Self {
        let key = Self(Arc::new(Zeroizing::new(bytes)));
        bytes.zeroize();
        key
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; 32]> for Key {
    fn from(bytes: [u8; 32]) -> Self {
        Self::from_bytes(bytes)
    }
}

/// Shows nothing.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

pub(super) const NOT_GIVEN: KeyProblem = KeyProblem::NotGiven;

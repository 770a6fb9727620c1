//! What is known of each key while a spool is open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rand::{TryRngCore as _, rngs::OsRng};

use super::{Cipher, KeyId, KeyProblem, Keys, NONCE, NOT_GIVEN, OVERHEAD, Trouble};
use crate::spool::{
    chunk::{Chunk, Damaged, Frame},
    error::StoreError,
};

/// Encrypts what is written, and decrypts what is read.
///
/// A key is *right* once one chunk has been decrypted with it, or written. From then on a chunk that says it
/// is of that key and cannot be decrypted is damaged: somebody has altered it, checksum and all. That is looked
/// for where chunks are read, and in all of them from the first such chunk on.
#[derive(Default)]
pub(in crate::spool) struct Ring {
    keys: Option<Keys>,
    current: Option<Arc<Cipher>>,
    has_written: AtomicBool,
    known: Mutex<BTreeMap<KeyId, Known>>,
    check_all: AtomicBool,
}

struct Known {
    cipher: Result<Arc<Cipher>, Trouble>,
    is_right: bool,
    /// A chunk was let pass that could not be decrypted, since the key might be wrong.
    has_doubts: bool,
}

impl Ring {
    /// Asks for the current key. `check_all` is to look for altered chunks from the beginning.
    pub(in crate::spool) fn new(keys: Option<Keys>, check_all: bool) -> Result<Self, Trouble> {
        let mut ring = Self {
            check_all: check_all.into(),
            ..Self::default()
        };
        if let Some(keys) = &keys {
            let current = Arc::new(keys.cipher(keys.current())?);
            let known = Known::new(Ok(current.clone()));
            ring.known.get_mut().insert(current.id(), known);
            ring.current = Some(current);
        }
        ring.keys = keys;
        Ok(ring)
    }

    /// What encryption adds to a chunk, in bytes.
    pub(in crate::spool) fn overhead(&self) -> usize {
        if self.current.is_some() { OVERHEAD } else { 0 }
    }

    /// The id of the key that is written with.
    pub(in crate::spool) fn current(&self) -> Option<KeyId> {
        self.current.as_ref().map(|cipher| cipher.id())
    }

    /// Encrypts what is about to be handed to the store, if there are keys.
    ///
    /// The nonces are the operating system's random numbers: a process that forks would repeat its own.
    pub(in crate::spool) fn encrypt(&self, chunks: &mut [Chunk]) -> Result<(), StoreError> {
        let Some(cipher) = &self.current else {
            return Ok(());
        };
        for chunk in chunks {
            let mut nonce = [0; NONCE];
            OsRng
                .try_fill_bytes(&mut nonce)
                .map_err(|_| StoreError::NoRandom)?;
            chunk.encrypt(cipher, &nonce);
        }
        if !self.has_written.swap(true, Relaxed)
            && let Some(known) = self.known.lock().get_mut(&cipher.id())
        {
            known.is_right = true;
        }
        Ok(())
    }

    /// The frame with its body in clear.
    pub(in crate::spool) fn decrypt(&self, frame: Frame) -> Result<Frame, Damaged> {
        let Some(id) = frame.encrypted_with() else {
            return Ok(frame);
        };
        let known = self.known.lock();
        let cipher = known.get(&id).and_then(|known| known.cipher.as_ref().ok());
        let cipher = cipher.cloned();
        drop(known);
        let cipher = cipher.ok_or(Damaged("encrypted with a key that was not there"))?;
        frame.decrypt(&cipher).inspect_err(|_| {
            // It is not the only one, then.
            self.check_all.store(true, Relaxed);
        })
    }

    /// Whether the chunk, found sound as far as its checksum goes, is to be taken for one. It is, unless it
    /// is known to be altered.
    pub(in crate::spool) fn takes(&self, frame: &Frame) -> bool {
        let Some(id) = frame.encrypted_with() else {
            return true;
        };
        if !self.known.lock().contains_key(&id) {
            // What gives the keys may take its time.
            let found = Known::new(self.look_up(id).map(Arc::new));
            self.known.lock().insert(id, found);
        }
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(&id) else {
            return true;
        };
        let Ok(cipher) = &known.cipher else {
            return true;
        };
        if known.is_right && !self.check_all.load(Relaxed) {
            return true;
        }
        let is_sound = frame.clone().decrypt(cipher).is_ok();
        known.is_right |= is_sound;
        known.has_doubts |= !known.is_right;
        is_sound || !known.is_right
    }

    /// Whether all is to be looked through once more, since altered chunks were taken before their key
    /// turned out to be right.
    pub(in crate::spool) fn looks_again(&self) -> bool {
        let mut known = self.known.lock();
        let mut again = false;
        for known in known.values_mut() {
            again |= known.is_right && std::mem::take(&mut known.has_doubts);
        }
        if again {
            self.check_all.store(true, Relaxed);
        }
        again
    }

    /// Whether all of these keys, which what waits on disk needs, are there and right.
    pub(in crate::spool) fn check(&self, needed: &BTreeSet<KeyId>) -> Result<(), Trouble> {
        let mut known = self.known.lock();
        for id in needed {
            if known.get(id).is_some_and(|known| known.is_right) {
                continue;
            }
            // It is asked for again the next time.
            return Err(match known.remove(id) {
                Some(Known {
                    cipher: Err(trouble),
                    ..
                }) => trouble,
                _ => Trouble::new(*id, KeyProblem::Wrong),
            });
        }
        Ok(())
    }

    fn look_up(&self, id: KeyId) -> Result<Cipher, Trouble> {
        match &self.keys {
            Some(keys) => keys.cipher(id),
            None => Err(Trouble::new(id, NOT_GIVEN)),
        }
    }
}

impl Known {
    fn new(cipher: Result<Arc<Cipher>, Trouble>) -> Self {
        Self {
            cipher,
            is_right: false,
            has_doubts: false,
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}

//! XChaCha20-Poly1305 with one key.
//!
//! Its nonces are long enough to be drawn at random, for ever and by any number of processes. AES-GCM's
//! are not: with one key it is safe for some 2^32 chunks.

use std::fmt;

use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, aead::AeadInOut as _};

use super::{Key, KeyId, NONCE, TAG};

pub(in crate::spool) struct Cipher {
    id: KeyId,
    /// Clears its key when it is dropped.
    aead: XChaCha20Poly1305,
}

impl Cipher {
    pub(in crate::spool) fn new(id: KeyId, key: &Key) -> Self {
        Self {
            id,
            aead: XChaCha20Poly1305::new(key.bytes().into()),
        }
    }

    pub(in crate::spool) fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts `bytes` where they are, and gives what proves them and `aad`.
    pub(in crate::spool) fn encrypt(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        bytes: &mut [u8],
    ) -> [u8; TAG] {
        let tag = self
            .aead
            .encrypt_inout_detached(nonce.into(), aad, bytes.into());
        tag.expect("a chunk is shorter than the 256 GiB one nonce is good for")
            .into()
    }

    /// Decrypts `bytes` where they are, if `tag` proves them and `aad`. If not, they are what they were.
    #[must_use]
    pub(in crate::spool) fn decrypt(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        let proven = self
            .aead
            .decrypt_inout_detached(nonce.into(), aad, bytes.into(), tag.into());
        proven.is_ok()
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

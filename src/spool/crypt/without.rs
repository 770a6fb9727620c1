//! What stands for keys in a build without the feature `encrypt`: nothing can be made of these.

use super::{KeyId, KeyProblem, NONCE, TAG, Trouble};

#[derive(Clone, Debug)]
pub(in crate::spool) enum Keys {}

impl Keys {
    pub(super) fn current(&self) -> KeyId {
        match *self {}
    }

    pub(super) fn cipher(&self, _: KeyId) -> Result<Cipher, Trouble> {
        match *self {}
    }
}

#[derive(Debug)]
pub(in crate::spool) enum Cipher {}

impl Cipher {
    pub(in crate::spool) fn id(&self) -> KeyId {
        match *self {}
    }

    pub(in crate::spool) fn encrypt(&self, _: &[u8; NONCE], _: &[u8], _: &mut [u8]) -> [u8; TAG] {
        match *self {}
    }

    pub(in crate::spool) fn decrypt(
        &self,
        _: &[u8; NONCE],
        _: &[u8],
        _: &mut [u8],
        _: &[u8; TAG],
    ) -> bool {
        match *self {}
    }
}

pub(super) const NOT_GIVEN: KeyProblem = KeyProblem::NotSupported;

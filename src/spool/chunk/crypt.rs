//! A chunk whose body is encrypted: a nonce, the encrypted bytes, and the tag that proves them.
//!
//! The tag proves the header as well, as far as it was known when the chunk was made: all but the stamp,
//! the spool's id and the checksum, which are put on each chunk by the thread that commits it.

use bytes::BytesMut;

use super::{Chunk, Damaged, FIXED, Frame, LONGEST, header, header::field};
use crate::spool::crypt::{Cipher, NONCE, OVERHEAD, TAG};

impl Chunk {
    /// Encrypts the body. But for the stamp, nothing is to be changed after that.
    pub(in crate::spool) fn encrypt(&mut self, cipher: &Cipher, nonce: &[u8; NONCE]) {
        let value = &mut self.value;
        let begin = header::body(value);
        let encrypted = value.len() - begin + OVERHEAD;
        debug_assert!(value.len() + OVERHEAD <= LONGEST, "room was left for it");
        header::set_flag(value, header::ENCRYPTED);
        field::KEY.put(value, cipher.id().to_le_bytes());
        field::BODY.put(value, (encrypted as u32).to_le_bytes());
        value.reserve(OVERHEAD);
        value.splice(begin..begin, *nonce);
        let proven = proven(&value[..begin]);
        let tag = cipher.encrypt(nonce, &proven, &mut value[begin + NONCE..]);
        value.extend_from_slice(&tag);
    }

    /// The key that it is encrypted with, if it is.
    pub(in crate::spool) fn encrypted_with(&self) -> Option<u32> {
        let head = self.value.first_chunk::<FIXED>()?;
        header::encrypted_with(head)
    }
}

impl Frame {
    /// The same with its body in clear, which this is the key for.
    pub(in crate::spool) fn decrypt(mut self, cipher: &Cipher) -> Result<Self, Damaged> {
        let (nonce, rest) = self.body.split_first_chunk::<NONCE>().ok_or(ALTERED)?;
        let (encrypted, tag) = rest.split_last_chunk::<TAG>().ok_or(ALTERED)?;
        let mut body = BytesMut::from(encrypted);
        if !cipher.decrypt(nonce, &proven(&self.head), &mut body, tag) {
            return Err(ALTERED);
        }
        self.body = body.freeze();
        self.encrypted_with = None;
        Ok(self)
    }
}

const ALTERED: Damaged =
    Damaged("it was altered after it was encrypted, or its key is another one");

/// What the tag proves besides the body, of a header with the queue's name and all.
fn proven(head: &[u8]) -> Vec<u8> {
    let made = [
        0..field::CHECKSUM.0,
        field::LANE.0..field::SPOOL.0,
        field::REFUSED.0..field::COMMIT.0,
        FIXED..head.len(),
    ];
    made.map(|range| &head[range]).concat()
}

#[cfg(feature = "encrypt")]
#[cfg(test)]
mod tests;

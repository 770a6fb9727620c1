//! Encryption at rest: the keys, and what becomes of a chunk that was encrypted with one.
//!
//! A [`Ring`] stands between those who make chunks and the thread that keeps them: what is written is
//! encrypted in the task of the queue it is of, and the store sees nothing else. How an encrypted
//! chunk looks is the business of [`chunk`](super::chunk); which cipher it is, of [`Cipher`].
//!
//! Without the feature `encrypt` there are no keys, and all there is to do is to say so.

#[cfg(feature = "encrypt")]
mod cipher;
#[cfg(feature = "encrypt")]
mod keys;
mod problem;
mod ring;
#[cfg(feature = "encrypt")]
mod text;
#[cfg(not(feature = "encrypt"))]
mod without;

#[cfg(feature = "encrypt")]
pub(super) use self::cipher::Cipher;
#[cfg(feature = "encrypt")]
use self::keys::NOT_GIVEN;
pub use self::problem::KeyProblem;
#[cfg(not(feature = "encrypt"))]
use self::without::NOT_GIVEN;
#[cfg(not(feature = "encrypt"))]
pub(super) use self::without::{Cipher, Keys};
#[cfg(feature = "encrypt")]
pub use self::{
    keys::{Key, Keys},
    text::InvalidKey,
};
pub(super) use self::{problem::Trouble, ring::Ring};

/// Which key, by the number that its owner has given it.
pub(super) type KeyId = u32;

/// Stands before the encrypted bytes, and is never used twice with one key.
pub(super) const NONCE: usize = 24;

/// Stands behind them, and proves them.
pub(super) const TAG: usize = 16;

/// What encryption adds to a chunk.
pub(super) const OVERHEAD: usize = NONCE + TAG;

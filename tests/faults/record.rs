//! Records that know when they are not what they were.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use seawall::spool::{Spoolable, Undecodable};

/// A number, whether the far end takes it, as many bytes as are wanted, and a checksum over it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    queue: Arc<str>,
    bytes: Bytes,
}

impl Record {
    pub(crate) fn new(queue: &str, id: u64, is_welcome: bool, padding: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(13 + padding);
        bytes.put_u64(id);
        bytes.put_u8(is_welcome.into());
        let filler = (0..padding).map(|at| (at as u64 * 31).wrapping_add(id) as u8);
        bytes.extend(filler);
        let sum = crc32fast::hash(&bytes);
        bytes.put_u32(sum);
        Self {
            queue: queue.into(),
            bytes: bytes.freeze(),
        }
    }

    /// `None` if it is not what was made.
    pub(crate) fn id(&self) -> Option<u64> {
        let (bytes, sum) = self.bytes.split_last_chunk::<4>()?;
        let id = bytes.first_chunk::<8>()?;
        (crc32fast::hash(bytes) == u32::from_be_bytes(*sum)).then(|| u64::from_be_bytes(*id))
    }

    pub(crate) fn is_welcome(&self) -> bool {
        self.bytes[8] == 1
    }
}

impl Spoolable for Record {
    fn queue(&self) -> &str {
        &self.queue
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.bytes);
    }

    /// Takes anything: that it is damaged is for the far end to find out.
    fn decode(queue: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        Ok(Self {
            queue: queue.clone(),
            bytes,
        })
    }
}

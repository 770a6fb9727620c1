//! What Redis keeps of a job until it is finished: [`Record`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};

use super::Handling;

/// A job as it is stored, in the hash `jobs` under its id. It never changes: what happens to the job is noted
/// elsewhere.
///
/// Version 1, numbers little-endian: the version (1 byte); when it was enqueued, is due and expires (8 bytes each,
/// milliseconds since 1970, 0 for none); the [`Handling`] as JSON, behind its length (4); the number of headers (2);
/// the names and values of these, each behind its length (4); the payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) enqueued_ms: u64,
    pub(crate) due_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) handling: Handling,
    pub(crate) headers: Vec<(Bytes, Bytes)>,
    pub(crate) payload: Bytes,
}

impl Record {
    /// How long it is, about.
    pub(super) fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.fold(0, |size, (name, value)| size + 8 + name.len() + value.len());
        31 + headers + self.payload.len()
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u8(VERSION);
        into.put_u64_le(self.enqueued_ms);
        into.put_u64_le(self.due_ms);
        into.put_u64_le(self.expires_ms);
        put(into, &self.handling.to_json());
        // As many as `Job::with_header` takes.
        into.put_u16_le(u16::try_from(self.headers.len()).unwrap_or(u16::MAX));
        for (name, value) in &self.headers {
            put(into, name);
            put(into, value);
        }
        into.put_slice(&self.payload);
    }

    /// How much of a record [`times`](Self::times) needs.
    pub(crate) const TIMES: usize = 17;

    /// When the job was enqueued, and is due: from the beginning of its record.
    pub(crate) fn times(mut bytes: &[u8]) -> Option<(u64, u64)> {
        let version = bytes.try_get_u8().ok()?;
        let enqueued_ms = bytes.try_get_u64_le().ok()?;
        let due_ms = bytes.try_get_u64_le().ok()?;
        (version == VERSION).then_some((enqueued_ms, due_ms))
    }

    /// When the job was enqueued, from where the record of any version has it; 0 if there is nothing there.
    pub(crate) fn enqueued(bytes: &[u8]) -> u64 {
        let number = bytes.get(1..9).and_then(|bytes| bytes.try_into().ok());
        number.map_or(0, u64::from_le_bytes)
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Unreadable> {
        if bytes.try_get_u8().map_err(|_| SHORT)? != VERSION {
            return Err(Unreadable("it was written by a newer version"));
        }
        let mut number = || bytes.try_get_u64_le().map_err(|_| SHORT);
        let (enqueued_ms, due_ms, expires_ms) = (number()?, number()?, number()?);
        let handling = Handling::from_json(&take(&mut bytes)?).ok_or(Unreadable(
            "how it is to be handled was written by a newer version",
        ))?;
        let count = bytes.try_get_u16_le().map_err(|_| SHORT)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((take(&mut bytes)?, take(&mut bytes)?));
        }
        Ok(Self {
            enqueued_ms,
            due_ms,
            expires_ms,
            handling,
            headers,
            payload: bytes,
        })
    }
}

/// The bytes in Redis are no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the job: {0}")]
pub(crate) struct Unreadable(&'static str);

/// Milliseconds since 1970; never 0, which stands for no time at all.
pub(crate) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, LATEST)
}

/// What a sorted set's score can still tell apart.
pub(super) const LATEST: u64 = 1 << 53;

fn put(into: &mut Vec<u8>, part: &[u8]) {
    into.put_u32_le(u32::try_from(part.len()).expect("no part of a job has 4 GiB"));
    into.put_slice(part);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, Unreadable> {
    let len = bytes.try_get_u32_le().map_err(|_| SHORT)? as usize;
    if bytes.len() < len {
        return Err(SHORT);
    }
    Ok(bytes.split_to(len))
}

const SHORT: Unreadable = Unreadable("it is too short");
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Retries;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    prop_compose! {
        fn records()(
            (enqueued_ms, due_ms, expires_ms) in any::<(u64, u64, u64)>(),
            timeout in proptest::option::of(1u64..1 << 40),
            headers in proptest::collection::vec((bytes(), bytes()), 0..4),
            payload in bytes(),
        ) -> Record {
            let handling = match timeout {
                Some(ms) => Handling::new()
                    .with_timeout(Duration::from_millis(ms))
                    .with_retries(Retries::fixed(Duration::from_millis(ms))),
                None => Handling::new(),
            };
            Record { enqueued_ms, due_ms, expires_ms, handling, headers, payload }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(record in records()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let bytes = Bytes::from(bytes);
            let times = Some((record.enqueued_ms, record.due_ms));
            prop_assert_eq!(Record::times(&bytes[..Record::TIMES]), times);
            prop_assert_eq!(Record::enqueued(&bytes), record.enqueued_ms);
            prop_assert_eq!(Record::decode(bytes), Ok(record));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Record::decode(bytes.into());
        }
    }
}

//! What is read back from files, whatever has become of them.

mod carve;
mod generations;
mod merge;

use bytes::Bytes;

use super::*;
use crate::spool::chunk::{Frame, Stamp, Writer};

const ID: SpoolId = SpoolId::from_bytes(*b"of tests");

/// The chunks of one commit, as the ledger would stamp them.
fn commit(id: SpoolId, commit: u64, mut chunks: Vec<Chunk>) -> Vec<Chunk> {
    let stamp = Stamp {
        commit,
        chunks: chunks.len() as u32,
        ..Stamp::default()
    };
    for chunk in &mut chunks {
        chunk.stamp(id, &stamp);
    }
    chunks
}

/// One chunk, or more if there are long records, with `first` and so on.
fn chunks(lane: LaneId, first: u64, records: &[&[u8]]) -> Vec<Chunk> {
    let mut writer = Writer::new(lane, "emails", first, 0, 1, 0);
    for record in records {
        writer.push_if(|buffer| buffer.extend_from_slice(record), |_| true);
    }
    writer.finish()
}

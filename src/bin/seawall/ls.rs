//! `ls`: the lanes.

use std::time::SystemTime;

use clap::Args;
use seawall::spool::stopped::Lane;
use serde::Serialize;

use crate::{
    Out, Result,
    output::{Column, Side::Left, Side::Right, Table},
    place::{Choice, Place, named},
    text::{age, count, size, unix_ms},
};

/// Its lanes: each is one process's stream of records to one queue
///
/// Or a queue's tail: what Redis has acknowledged, and its replicas may lack.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let spool = arguments.place.open().await?;
    let mut table = Table::new(COLUMNS);
    let now = unix_ms(SystemTime::now());
    for lane in arguments.choice.of(&spool) {
        if out.is_json() {
            out.record(&Row::of(lane))?;
            continue;
        }
        table.push(vec![
            named(lane),
            lane.id.to_string(),
            count(lane.first),
            count(lane.last),
            count(lane.records),
            size(lane.bytes),
            age(unix_ms(lane.oldest), now),
            count(lane.acknowledged),
        ]);
    }
    if !out.is_json() {
        table.write(out)?;
    }
    Ok(spool.close().await?)
}

const COLUMNS: &[Column] = &[
    ("QUEUE", Left),
    ("LANE", Left),
    ("FIRST", Right),
    ("LAST", Right),
    ("RECORDS", Right),
    ("BYTES", Right),
    ("OLDEST", Left),
    ("ACKNOWLEDGED", Right),
];

#[derive(Serialize)]
struct Row<'a> {
    queue: &'a str,
    tail: bool,
    lane: String,
    first: u64,
    last: u64,
    records: u64,
    bytes: u64,
    oldest_ms: u64,
    acknowledged: u64,
}

impl<'a> Row<'a> {
    fn of(lane: &'a Lane) -> Self {
        Self {
            queue: &lane.queue,
            tail: lane.tail,
            lane: lane.id.to_string(),
            first: lane.first,
            last: lane.last,
            records: lane.records,
            bytes: lane.bytes,
            oldest_ms: unix_ms(lane.oldest),
            acknowledged: lane.acknowledged,
        }
    }
}

//! What is on disk cannot be read back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use seawall::{
    Error,
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    spool::{Applied, Batch, Spool, SpoolLayer, SpoolOptions, Spoolable, Undecodable},
};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Of a version that is not known any more; counts the tries.
struct Foreign;

static TRIES: AtomicU32 = AtomicU32::new(0);

impl Spoolable for Foreign {
    fn queue(&self) -> &str {
        "notes"
    }

    fn size(&self) -> usize {
        1
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.push(0);
    }

    fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
        TRIES.fetch_add(1, Relaxed);
        Err(Undecodable::new("of a version that is not known"))
    }
}

/// The pauses are 50, 100, 200 .. ms, each at least half of that.
#[tokio::test]
async fn what_cannot_be_read_is_tried_again_with_growing_pauses_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(dir.path())).await.unwrap();
    let service = service_fn(|_: Batch<Foreign>| async {
        let outage = Verdict::new(Class::Outage, Landed::No);
        Err::<Applied, _>(Error::foreign(outage, "out"))
    });
    let spooling = SpoolLayer::new(&spool).layer(service);
    assert!(spooling.oneshot(Foreign).await.unwrap().is_spooled());
    let begun = Instant::now();
    wait_until("five tries", Duration::from_secs(60), || async {
        TRIES.load(Relaxed) >= 5
    })
    .await
    .unwrap();
    // A machine that is slow only makes it longer.
    assert!(begun.elapsed() >= Duration::from_millis((100 + 200 + 400) / 2));
    assert_eq!(spool.shutdown(Duration::from_millis(10)).await.unwrap(), 1);
}

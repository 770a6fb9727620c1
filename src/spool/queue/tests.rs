//! What only a disk that stalls can show. The far end and the rest of the disk's faults are tested
//! from outside, in `tests/crash`.

mod tails;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, Service, service_fn, util::BoxCloneSyncService};

use super::*;
use crate::spool::{
    Owner, Spool, SpoolLayer, SpoolOptions, Spooling, Undecodable,
    commit::{Disk, DiskOptions, Durability},
    dir::tests::Scratch,
    slots::{Adoption, Opened, Place},
    stopped::{Record, Stopped},
    store::memory::{Call, Fault, MemoryStore},
};
use crate::{
    classify::{Class, Landed, Verdict},
    error::ErrorKind,
};

struct Note;

impl Spoolable for Note {
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
        Ok(Self)
    }
}

/// A spool over a store that a test has in its hands.
fn open_on<T, F, A>(store: &MemoryStore, options: SpoolOptions, far_end: F) -> Arc<Owner<T>>
where
    T: Spoolable,
    F: Fn(Batch<T>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Applied, Error>> + Send + 'static,
{
    let disk_options = DiskOptions {
        path: options.dir.path().to_owned(),
        durability: Durability::ProcessCrash,
        strict: false,
        network: false,
        generation_bytes: options.generation_bytes,
        min_free: None,
        stalled_after: options.stalled_after,
        ring: Arc::default(),
        metrics: options.metrics.clone(),
    };
    let (disk, left) = {
        let store = store.clone();
        Disk::start(&disk_options, move || store.open()).expect("it opens")
    };
    let opened = Opened {
        disk,
        left,
        place: Place::Alone(disk_options.path),
    };
    let shared = Arc::new(Shared::new(options, opened, CancellationToken::new()));
    shared.set_way_out(BoxCloneSyncService::new(service_fn(far_end)));
    Arc::new(Owner {
        shared,
        adoption: Adoption::default(),
    })
}

/// The second record is overdue behind the first and goes to disk, which stalls; then the first comes
/// back from the far end, and has to wait for that disk too; the third has gathered.
#[tokio::test(start_paused = true)]
async fn when_the_disk_stalls_everyone_who_waits_for_it_is_told_in_time() {
    let options = SpoolOptions::new("no directory");
    let store = MemoryStore::default();
    store.set_fault((Call::Apply, Fault::Stall));
    let (answer_after, disk_timeout) = (options.spool_after * 3, options.disk_timeout);
    let owner = open_on(&store, options, move |_: Batch<Note>| async move {
        tokio::time::sleep(answer_after).await;
        let lost = Verdict::new(Class::Transient, Landed::Maybe);
        Err::<Applied, _>(Error::new(ErrorKind::Timeout, lost))
    });
    let mut spooling = Spooling::new(owner);
    let since = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(spooling.call(Note));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answers = tokio::time::timeout(disk_timeout * 3, join_all(answers));
    let answers = answers.await.expect("somebody waits for ever");
    for answer in answers {
        assert_eq!(answer.expect_err("it is nowhere").kind(), ErrorKind::Spool);
    }
    assert!(since.elapsed() < disk_timeout * 2);
    store.set_fault(None);
}

/// The clock was ahead in the run before, so that its lane has an id of the future.
#[tokio::test]
async fn with_the_clock_set_back_the_lanes_of_a_queue_keep_their_order() {
    let scratch = Scratch::new();
    let left =
        LaneId::from_bytes(*b"\x03\xbb\x2c\xc3\xd8\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x01");
    let mut before = Stopped::create(scratch.path()).await.expect("it opens");
    let record = Record {
        lane: left,
        queue: "notes".to_owned(),
        number: 1,
        acknowledged: 0,
        written: SystemTime::now(),
        refusal: None,
        known_as: None,
        bytes: Bytes::from_static(b"0"),
    };
    before.restore(vec![record]).await.expect("it is restored");
    before.close().await.expect("it is closed");

    let spool = Spool::open(SpoolOptions::new(scratch.path()).with_ack(Ack::Spooled));
    let spool = spool.await.expect("it opens");
    let mut line = SpoolLayer::new(&spool).layer(service_fn(|_: Batch<Note>| async {
        let out = Verdict::new(Class::Outage, Landed::No);
        Err::<Applied, _>(Error::new(ErrorKind::Timeout, out))
    }));
    let receipt = line.call(Note).await.expect("the disk takes it");
    spool.shutdown(Duration::ZERO).await.expect("it ends");

    let after = Stopped::open(scratch.path()).await.expect("it opens");
    let lanes: Vec<_> = after.lanes().iter().map(|lane| lane.id).collect();
    assert_eq!(lanes, [left, receipt.lane()]);
}

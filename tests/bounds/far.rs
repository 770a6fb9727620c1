//! A far end that does what it is told, and a spool in front of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use seawall::{
    Error,
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    metrics::Metrics,
    spool::{
        Applied, Batch, LaneId, OpenError, Place, Receipt, Replay, Spool, SpoolLayer, SpoolOptions,
        Spoolable, Spooling, Undecodable,
    },
};
use tokio::sync::watch;
use tower::{Layer as _, Service as _, service_fn};

use super::PLENTY;

/// A number and so many bytes behind it.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) queue: Arc<str>,
    pub(crate) number: u64,
    pub(crate) padding: usize,
}

impl Spoolable for Note {
    fn queue(&self) -> &str {
        &self.queue
    }

    fn size(&self) -> usize {
        8 + self.padding
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.number.to_le_bytes());
        into.resize(into.len() + self.padding, b'-');
    }

    fn decode(queue: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let (number, padding) = bytes.split_at(8);
        Ok(Self {
            queue: queue.clone(),
            number: u64::from_le_bytes(number.try_into().unwrap()),
            padding: padding.len(),
        })
    }
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    /// Requests wait until it is something else.
    Hangs,
    Up,
}

/// What Redis and the script are to the lanes.
pub(crate) struct Far {
    way: watch::Sender<Way>,
    log: Mutex<Vec<(Arc<str>, u64)>>,
    last: Mutex<HashMap<LaneId, u64>>,
    /// How many requests wait for the way to change.
    pub(crate) hanging: watch::Sender<usize>,
}

impl Far {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            way: watch::Sender::new(Way::Down),
            log: Mutex::default(),
            last: Mutex::default(),
            hanging: watch::Sender::new(0),
        })
    }

    pub(crate) fn is(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// The numbers that have come in from one queue.
    pub(crate) fn has(&self, queue: &str) -> Vec<u64> {
        let log = self.log.lock();
        let of_queue = log.iter().filter(|(name, _)| **name == *queue);
        of_queue.map(|(_, number)| *number).collect()
    }

    async fn take(self: Arc<Self>, batch: Batch<Note>) -> Result<Applied, Error> {
        let mut way = self.way.subscribe();
        let hangs = Hangs::new(&self.hanging);
        let way = *way.wait_for(|way| *way != Way::Hangs).await.unwrap();
        drop(hangs);
        if way == Way::Down {
            let outage = Verdict::new(Class::Outage, Landed::No);
            return Err(Error::foreign(outage, "it is down"));
        }
        if !batch.ends_lane() {
            let mut last = self.last.lock();
            let last = last.entry(batch.lane()).or_default();
            for (number, note) in batch.iter() {
                let note = note.unwrap();
                if number > *last {
                    self.log.lock().push((note.queue.clone(), note.number));
                    *last = number;
                }
            }
        }
        Ok(Applied::all())
    }
}

/// A request that hangs; a run that ends takes its own with it.
struct Hangs<'a>(&'a watch::Sender<usize>);

impl<'a> Hangs<'a> {
    fn new(hanging: &'a watch::Sender<usize>) -> Self {
        hanging.send_modify(|hanging| *hanging += 1);
        Self(hanging)
    }
}

impl Drop for Hangs<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|hanging| *hanging -= 1);
    }
}

/// One run of a spool.
pub(crate) struct Run {
    pub(crate) spool: Spool<Note>,
    spooling: Spooling<Note>,
    registry: prometheus::Registry,
}

impl Run {
    /// In `dir`, as soon as the run before has let go of it. Every record goes to disk at once.
    pub(crate) async fn open(
        dir: &tempfile::TempDir,
        far: &Arc<Far>,
        bounds: impl FnOnce(SpoolOptions) -> SpoolOptions,
    ) -> Self {
        let registry = prometheus::Registry::new();
        let millis = Duration::from_millis;
        let options = SpoolOptions::new(dir.path().join("spool"))
            .with_ack(seawall::spool::Ack::Spooled)
            .with_replay(Replay::unpaced().with_delays(millis(5), millis(20)))
            .with_metrics(Metrics::register(&registry).unwrap().spool);
        let options = bounds(options);
        let spool = loop {
            match Spool::open(options.clone()).await {
                Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let far = far.clone();
        let service = service_fn(move |batch| far.clone().take(batch));
        Self {
            spooling: SpoolLayer::new(&spool).layer(service),
            spool,
            registry,
        }
    }

    pub(crate) fn hand_in(
        &self,
        queue: &str,
        number: u64,
        padding: usize,
    ) -> impl Future<Output = Result<Receipt, Error>> + Send + use<> {
        let note = Note {
            queue: queue.into(),
            number,
            padding,
        };
        let receipt = self.spooling.clone().call(note);
        async move {
            tokio::time::timeout(PLENTY, receipt)
                .await
                .expect("it hangs")
        }
    }

    pub(crate) async fn place(&self, queue: &str, number: u64) -> Place {
        self.hand_in(queue, number, 0).await.unwrap().place()
    }

    /// All at once, in their order. Says where they are.
    pub(crate) async fn places(
        &self,
        queue: &str,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Vec<Place> {
        let numbers = numbers.into_iter();
        let receipts = numbers.map(|number| self.hand_in(queue, number, 0));
        let receipts: Vec<_> = receipts.collect();
        let answers = join_all(receipts).await.into_iter();
        answers.map(|answer| answer.unwrap().place()).collect()
    }

    /// The sum over all labels but those given.
    pub(crate) fn counted(&self, family: &str, labels: &[(&str, &str)]) -> u64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|found| found.name() == family);
        let metrics = metrics.flat_map(|family| family.get_metric());
        let wanted = metrics.filter(|metric| {
            labels.iter().all(|(name, value)| {
                let mut pairs = metric.get_label().iter();
                pairs.any(|pair| pair.name() == *name && pair.value() == *value)
            })
        });
        wanted
            .map(|metric| metric.get_counter().get_value())
            .sum::<f64>() as u64
    }

    pub(crate) fn dropped(&self, which: &str) -> u64 {
        self.counted("seawall_dropped_total", &[("which", which)])
    }

    /// Waits until it holds so many records.
    pub(crate) async fn holds(&self, records: u64) {
        wait_until("the records", PLENTY, || async {
            self.spool.stats().records == records
        })
        .await
        .unwrap();
    }

    /// With the far end up: delivers all there is, and checks that the books are even.
    pub(crate) async fn drain(&self) {
        tokio::time::timeout(PLENTY, self.spool.flush())
            .await
            .expect("it drains");
        let stats = self.spool.stats();
        assert_eq!((stats.records, stats.bytes), (0, 0));
    }
}

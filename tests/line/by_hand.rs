//! The line built from the public layers, and other clients at its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use seawall::{
    Error, Job,
    breaker::{BreakerLayer, BreakerOptions},
    call::{Repeat, Request},
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    connect::{ConnectOptions, Connection},
    error::ErrorKind,
    retry::{Backoff, Jitter, RetryLayer, RetryPolicy},
    sequence::{SequenceLayer, Write},
    spool::{
        Ack, Applied, Batch, Replay, Spool, SpoolLayer, SpoolOptions, Spoolable, Spooling,
        Undecodable,
    },
    wrap::{OneByOneLayer, wrap},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Bench, numbers};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_line_built_by_hand_does_the_same() {
    let mut bench = Bench::new().await;
    let spool = Spool::<Write>::open(SpoolOptions::new(bench.spool_dir()))
        .await
        .expect("it opens");
    let options = ConnectOptions::from_url(&bench.redis.url()).expect("the URL is right");
    let connection = Connection::open(options).expect("it starts");
    connection.wait_ready(PATIENCE).await.expect("it connects");
    let mut line = ServiceBuilder::new()
        .layer(SpoolLayer::new(&spool))
        .layer(SequenceLayer::new())
        // Somebody else's layer, which boxes errors: the verdict survives it.
        .map_err(Error::from)
        .timeout(Duration::from_secs(5))
        .layer(RetryLayer::new(RetryPolicy::default()))
        .layer(BreakerLayer::new(BreakerOptions::default()))
        .service(connection);

    for number in 0..50 {
        let write = Write::try_from(Job::new("q", number.to_string())).expect("it fits together");
        let receipt = line
            .ready()
            .await
            .expect("ready")
            .call(write)
            .await
            .expect("accepted");
        assert!(receipt.is_delivered());
    }
    bench.redis.kill().await.expect("it is killed");
    for number in 50..100 {
        let write = Write::push_back("q", number.to_string());
        let receipt = line
            .ready()
            .await
            .expect("ready")
            .call(write)
            .await
            .expect("accepted");
        assert!(receipt.is_spooled());
    }
    bench.redis.restart().await.expect("it starts again");
    tokio::time::timeout(PATIENCE, spool.flush())
        .await
        .expect("it drains");
    assert_eq!(bench.list("q").await, numbers(0..100));
}

/// A job that seawall knows nothing about.
#[derive(Clone, Debug)]
struct Email {
    number: u64,
    repeat: Repeat,
}

impl Request for Email {
    fn repeat(&self) -> Repeat {
        self.repeat
    }
}

impl Spoolable for Email {
    fn queue(&self) -> &str {
        "emails"
    }

    fn size(&self) -> usize {
        9
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.push(u8::from(self.repeat == Repeat::Safe));
        into.extend(self.number.to_le_bytes());
    }

    fn decode(_: &Arc<str>, bytes: Bytes) -> Result<Self, Undecodable> {
        let (repeat, number) = bytes.split_first().ok_or(Undecodable::new("it is empty"))?;
        let number = number
            .try_into()
            .map_err(|_| Undecodable::new("it is cut"))?;
        let repeat = if *repeat == 1 {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        Ok(Self {
            number: u64::from_le_bytes(number),
            repeat,
        })
    }
}

/// A queue client with an error of its own.
#[derive(Clone, Default)]
struct Broker {
    sent: Arc<Mutex<Vec<u64>>>,
    down: Arc<AtomicBool>,
    /// Sends, but says that it has not, every so many calls.
    lies_every: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
enum BrokerError {
    #[error("the broker is down")]
    Down,
    #[error("no answer from the broker")]
    NoAnswer,
    #[error("the broker does not take 13")]
    Superstitious,
}

impl Broker {
    fn send(&self, email: &Email) -> Result<(), BrokerError> {
        if self.down.load(Relaxed) {
            return Err(BrokerError::Down);
        }
        if email.number == 13 {
            return Err(BrokerError::Superstitious);
        }
        self.sent.lock().push(email.number);
        let (call, every) = (
            self.calls.fetch_add(1, Relaxed),
            self.lies_every.load(Relaxed),
        );
        if every > 0 && call % every == every - 1 {
            Err(BrokerError::NoAnswer)
        } else {
            Ok(())
        }
    }
}

fn verdict(error: &BrokerError) -> Verdict {
    match error {
        BrokerError::Down => Verdict::new(Class::Outage, Landed::No),
        BrokerError::NoAnswer => Verdict::new(Class::Transient, Landed::Maybe),
        BrokerError::Superstitious => Verdict::new(Class::Permanent, Landed::No),
    }
}

async fn wrapped(broker: &Broker, dir: &tempfile::TempDir) -> (Spool<Email>, Spooling<Email>) {
    let options = SpoolOptions::new(dir.path())
        .with_replay(Replay::unpaced().with_delays(PATIENCE / 10_000, PATIENCE / 1_000));
    let spool = Spool::open(options).await.expect("it opens");
    let client = broker.clone();
    let leaf = service_fn(move |email: Email| {
        let client = client.clone();
        async move { client.send(&email) }
    });
    let backoff = Backoff::fixed(Duration::from_millis(1)).with_jitter(Jitter::none());
    let breaker = BreakerOptions::default().with_open_time(Duration::from_millis(20));
    let line = ServiceBuilder::new()
        .layer(SpoolLayer::new(&spool))
        .layer(OneByOneLayer::new())
        .layer(RetryLayer::new(RetryPolicy::new(backoff)))
        .layer(BreakerLayer::new(breaker))
        .service(wrap(leaf, verdict));
    (spool, line)
}

#[tokio::test]
async fn a_wrapped_client_gets_every_job_at_least_once_and_in_order() {
    let (broker, dir) = (
        Broker::default(),
        tempfile::tempdir().expect("a temp directory"),
    );
    let (spool, line) = wrapped(&broker, &dir).await;
    broker.lies_every.store(7, Relaxed);
    for number in 0..300 {
        broker.down.store((100..200).contains(&number), Relaxed);
        let number = if number == 13 { 1313 } else { number };
        let email = Email {
            number,
            repeat: Repeat::Safe,
        };
        let _ = line.clone().oneshot(email).await.expect("accepted");
    }
    tokio::time::timeout(PATIENCE, spool.flush())
        .await
        .expect("it drains");
    let sent = broker.sent.lock().clone();
    let mut once = sent.clone();
    once.dedup();
    let expected: Vec<_> = (0..300).map(|n| if n == 13 { 1313 } else { n }).collect();
    assert_eq!(
        once, expected,
        "each at least once, repetitions next to each other"
    );
    assert!(
        sent.len() > once.len(),
        "no reply was lost: the test shows nothing"
    );
}

#[tokio::test]
async fn a_wrapped_client_is_not_asked_again_what_it_may_have_done() {
    let (broker, dir) = (
        Broker::default(),
        tempfile::tempdir().expect("a temp directory"),
    );
    let (spool, line) = wrapped(&broker, &dir).await;
    broker.lies_every.store(3, Relaxed);
    let mut in_doubt = Vec::new();
    for number in 100..200 {
        let email = Email {
            number,
            repeat: Repeat::Unsafe,
        };
        if let Err(error) = line.clone().oneshot(email).await {
            assert!(error.may_have_landed(), "{error:?}");
            in_doubt.push(number);
        }
    }
    tokio::time::timeout(PATIENCE, spool.flush())
        .await
        .expect("it drains");
    assert!(!in_doubt.is_empty());
    let expected: Vec<u64> = (100..200).collect();
    assert_eq!(*broker.sent.lock(), expected, "each exactly once");
}

#[tokio::test]
async fn what_a_wrapped_client_refuses_goes_to_its_caller_or_is_parked() {
    let (broker, dir) = (
        Broker::default(),
        tempfile::tempdir().expect("a temp directory"),
    );
    let (spool, line) = wrapped(&broker, &dir).await;
    let send = |number| {
        line.clone().oneshot(Email {
            number,
            repeat: Repeat::Safe,
        })
    };
    let error = send(13).await.expect_err("the broker does not take it");
    assert!(
        error.is_permanent() && error.kind() == ErrorKind::Foreign,
        "{error:?}"
    );

    broker.down.store(true, Relaxed);
    for number in [12, 13, 14] {
        assert!(send(number).await.expect("accepted").is_spooled());
    }
    broker.down.store(false, Relaxed);
    wait_until("the others", PATIENCE, || async {
        *broker.sent.lock() == [12, 14]
    })
    .await
    .expect("one that is refused does not hold up the others");
    tokio::time::timeout(PATIENCE, spool.flush())
        .await
        .expect("it drains");
    let parked = spool.parked(10).await.expect("it can be read");
    assert_eq!(parked.len(), 1);
    assert!(
        parked[0].reason().contains("does not take 13"),
        "{:?}",
        parked[0]
    );
    assert_eq!((spool.stats().records, spool.stats().parked), (0, 1));
    let email = Email::decode(&"emails".into(), parked[0].record().clone()).expect("it is whole");
    assert_eq!(email.number, 13);
}

#[tokio::test]
async fn a_service_that_never_answers_holds_no_caller() {
    let dir = tempfile::tempdir().expect("a temp directory");
    let spool = Spool::<Write>::open(SpoolOptions::new(dir.path()))
        .await
        .expect("it opens");
    let line = SpoolLayer::new(&spool).layer(service_fn(|_: Batch<Write>| {
        std::future::pending::<Result<Applied, Error>>()
    }));
    let receipt = line
        .oneshot(Write::push_back("q", "x"))
        .await
        .expect("accepted");
    assert!(receipt.is_spooled());
}

#[tokio::test]
async fn a_service_that_panics_costs_no_job() {
    let dir = tempfile::tempdir().expect("a temp directory");
    let spool = Spool::<Write>::open(SpoolOptions::new(dir.path()))
        .await
        .expect("it opens");
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let line = SpoolLayer::new(&spool).layer(service_fn(move |_: Batch<Write>| {
        let call = counted.fetch_add(1, Relaxed);
        async move {
            assert!(call > 0, "the first call panics, for this test");
            Ok::<_, Error>(Applied::all())
        }
    }));
    let receipt = line
        .oneshot(Write::push_back("q", "x"))
        .await
        .expect("accepted");
    assert!(receipt.is_spooled());
    tokio::time::timeout(PATIENCE, spool.flush())
        .await
        .expect("it drains");
    assert_eq!(calls.load(Relaxed), 2);
}

/// A record whose own code panics.
#[derive(Clone)]
struct Bad;

impl Spoolable for Bad {
    fn queue(&self) -> &str {
        "bad"
    }

    fn size(&self) -> usize {
        0
    }

    fn encode(&self, _: &mut Vec<u8>) {
        panic!("encode panics, for this test");
    }

    fn decode(_: &Arc<str>, _: Bytes) -> Result<Self, Undecodable> {
        Ok(Self)
    }
}

#[tokio::test]
async fn a_record_that_panics_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().expect("a temp directory");
    let options = SpoolOptions::new(dir.path()).with_ack(Ack::Spooled);
    let spool = Spool::<Bad>::open(options).await.expect("it opens");
    let line = SpoolLayer::new(&spool).layer(service_fn(|_: Batch<Bad>| async {
        Ok::<_, Error>(Applied::all())
    }));
    for _ in 0..3 {
        let error = line
            .clone()
            .oneshot(Bad)
            .await
            .expect_err("its task is gone");
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

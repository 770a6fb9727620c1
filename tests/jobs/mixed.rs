//! Random batches of everything that a queue can carry, some of it refused, over a connection that breaks: each
//! record is applied once, or refused once.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, rngs::SmallRng};
use seawall::{
    Job, Seawall,
    chaos::{Fault, FaultProxy},
    job::Destination,
    sequence::{Command, Write},
};

use crate::{
    queue::{Queue, key, operation},
    seeds::{dice, seeds},
};

/// What one record does to Redis, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Push,
    Group,
    /// It is refused, for its first command.
    NoGroup,
    Procedure,
    /// The procedure does not know it.
    Unknown,
}

impl Kind {
    fn any(dice: &mut SmallRng) -> Self {
        match dice.random_range(0..20) {
            0..6 => Self::Push,
            6..11 => Self::Group,
            11 => Self::NoGroup,
            12..19 => Self::Procedure,
            _ => Self::Unknown,
        }
    }

    fn write(self, number: u32) -> Write {
        let text = number.to_string();
        let count = |key: &'static str| {
            let field = number.to_string();
            Command::new("HINCRBY").arg(key).arg(field).arg("1")
        };
        let group = |commands| Job::new("q", "").with_destination(Destination::commands(commands));
        match self {
            Self::Push => Job::new("q", text).into_write().unwrap(),
            Self::Group => group(vec![count("first"), count("second")])
                .into_write()
                .unwrap(),
            Self::NoGroup => group(vec![count("text"), count("first")])
                .into_write()
                .unwrap(),
            Self::Procedure => Job::new("q", text).for_worker().into_write().unwrap(),
            Self::Unknown => operation("?", number as u8, &[]),
        }
    }

    fn is_refused(self) -> bool {
        matches!(self, Self::NoGroup | Self::Unknown)
    }
}

#[tokio::test]
async fn whatever_is_in_a_batch_is_applied_once_however_often_it_is_sent() {
    let queue = Queue::new().await;
    for seed in seeds(20) {
        println!("SEAWALL_SEED={seed}");
        let mut dice = dice(seed);
        let _: String = queue.tell(&redis::cmd("FLUSHALL")).await;
        let _: String = queue.tell(redis::cmd("SET").arg("text").arg("x")).await;
        let proxy = FaultProxy::start(queue.redis.addr()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let builder = Seawall::builder(&proxy.url(), dir.path()).unwrap();
        let seawall = builder.connect().await.unwrap();
        let mut sent = BTreeMap::new();
        let mut number = 0;
        for _ in 0..dice.random_range(2..6) {
            let kinds: Vec<_> = (0..dice.random_range(1..60))
                .map(|_| Kind::any(&mut dice))
                .collect();
            let writes = kinds
                .iter()
                .zip(number..)
                .map(|(kind, number)| kind.write(number));
            proxy.set(match dice.random_range(0..4) {
                0 => Fault::DropNextReply,
                1 => Fault::CutReplyAfter(dice.random_range(1..40)),
                2 => Fault::CutRequestAfter(dice.random_range(1..4000)),
                _ => Fault::None,
            });
            let receipts = seawall.enqueue_all(writes.collect::<Vec<_>>()).await;
            for (kind, receipt) in kinds.into_iter().zip(receipts) {
                // One that went to disk is refused later, and parked.
                assert!(receipt.is_ok() || kind.is_refused(), "{kind:?} {receipt:?}");
                sent.insert(number, kind);
                number += 1;
            }
            proxy.heal();
        }
        seawall.flush().await;
        let of = |kinds: &[Kind]| -> Vec<u32> {
            let of = sent.iter().filter(|(_, kind)| kinds.contains(kind));
            of.map(|(number, _)| *number).collect()
        };
        let list: Vec<u32> = queue
            .tell(redis::cmd("LRANGE").arg("q").arg(0).arg(-1))
            .await;
        assert_eq!(list, of(&[Kind::Push]));
        let once: BTreeMap<_, _> = of(&[Kind::Group])
            .into_iter()
            .map(|number| (number, 1))
            .collect();
        for hash in ["first", "second"] {
            let counts: BTreeMap<u32, u32> = queue.tell(redis::cmd("HGETALL").arg(hash)).await;
            assert_eq!(counts, once, "{hash}");
        }
        let ready: Vec<Vec<u8>> = queue
            .tell(redis::cmd("LRANGE").arg(key("ready")).arg(0).arg(-1))
            .await;
        let distinct: BTreeSet<_> = ready.iter().collect();
        assert_eq!(distinct.len(), ready.len());
        let mut added = Vec::new();
        for id in &ready {
            let record: Vec<u8> = queue
                .tell(redis::cmd("HGET").arg(key("jobs")).arg(id))
                .await;
            // Its payload is at its end, behind nothing: no handling, no headers.
            let payload = String::from_utf8(record[31..].to_vec()).unwrap();
            added.push(payload.parse::<u32>().unwrap());
        }
        assert_eq!(added, of(&[Kind::Procedure]));
        let _ = seawall.shutdown(std::time::Duration::ZERO).await;
    }
}

//! How the records of a procedure get along with others in a batch, and with a Redis that refuses them.

use seawall::{
    Job,
    chaos::{RedisServer, wait_until},
    job::{Destination, Handling, PROCEDURE},
    sequence::{Action, Command, Write},
};
use std::time::Duration;

use crate::queue::{Queue, id, key, operation};

#[tokio::test]
async fn jobs_of_all_kinds_share_a_queue_and_keep_their_order() {
    let queue = Queue::new().await;
    let mut jobs = Vec::new();
    for number in 0..300_u32 {
        jobs.push(match number % 3 {
            0 => Job::new("q", number.to_string()).for_worker(),
            1 => Job::new("q", number.to_string()),
            _ => {
                let push = Command::new("RPUSH").arg("q").arg(number.to_string());
                Job::new("q", "").with_destination(Destination::commands(vec![push]))
            }
        });
    }
    for receipt in queue.seawall.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    queue.seawall.flush().await;
    let list: Vec<u32> = queue
        .tell(redis::cmd("LRANGE").arg("q").arg(0).arg(-1))
        .await;
    let pushed: Vec<_> = (0..300).filter(|number| number % 3 != 0).collect();
    assert_eq!(list, pushed);
    let ready: usize = queue.tell(redis::cmd("LLEN").arg(key("ready"))).await;
    assert_eq!(ready, 100);
}

#[tokio::test]
async fn a_batch_of_more_than_lua_can_pass_at_once_is_applied_whole() {
    let queue = Queue::new().await;
    let jobs = (0..20_000_u32).map(|number| Job::new("q", number.to_string()).for_worker());
    for receipt in queue.seawall.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    queue.seawall.flush().await;
    let ready: usize = queue.tell(redis::cmd("LLEN").arg(key("ready"))).await;
    let jobs: usize = queue.tell(redis::cmd("HLEN").arg(key("jobs"))).await;
    assert_eq!((ready, jobs), (20_000, 20_000));
}

#[tokio::test]
async fn a_job_whose_queue_is_something_else_in_redis_is_refused_and_others_go_on() {
    let queue = Queue::new().await;
    let _: () = queue
        .tell(redis::cmd("SET").arg(key("later")).arg("not ours"))
        .await;
    let refused = queue.seawall.enqueue(Job::new("q", "x").for_worker()).await;
    let error = refused.expect_err("its keys are not free");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("WRONGTYPE"), "{error}: {why}");
    assert_eq!(queue.contents_of("jobs").await, 0);
    let _ = queue.seawall.enqueue(Job::new("q", "x")).await.unwrap();
    let _: () = queue.tell(redis::cmd("DEL").arg(key("later"))).await;
    let _ = queue
        .seawall
        .enqueue(Job::new("q", "x").for_worker())
        .await
        .unwrap();
    assert_eq!(queue.contents_of("jobs").await, 1);
}

#[tokio::test]
async fn a_full_redis_takes_no_part_of_a_batch_and_all_of_it_later() {
    let queue = Queue::new().await;
    let _: () = queue
        .tell(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1))
        .await;
    let jobs = (0..50_u32).map(|number| Job::new("q", number.to_string()).for_worker());
    for receipt in queue.seawall.enqueue_all(jobs).await {
        let _ = receipt.unwrap();
    }
    assert_eq!(queue.contents_of("jobs").await, 0);
    let _: () = queue
        .tell(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0))
        .await;
    queue.seawall.flush().await;
    let ready: usize = queue.tell(redis::cmd("LLEN").arg(key("ready"))).await;
    assert_eq!((ready, queue.contents_of("jobs").await), (50, 50));
}

#[tokio::test]
async fn an_operation_of_a_newer_version_is_parked_and_what_is_beside_it_is_applied() {
    let queue = Queue::new().await;
    let operations = vec![
        operation("A", 1, &["job 1", "0"]),
        operation("?", 2, &[]),
        operation("A", 3, &["job 3", "0"]),
    ];
    let receipts = queue.seawall.enqueue_all(operations).await;
    let fine: Vec<_> = receipts.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true]);
    assert_eq!(queue.contents_of("jobs").await, 2);
}

#[tokio::test]
async fn jobs_enqueued_while_redis_is_out_are_there_once_when_it_is_back() {
    let mut queue = Queue::new().await;
    queue.redis.kill().await.unwrap();
    let handling = Handling::new().with_timeout(Duration::from_secs(5));
    for number in 0..500_u32 {
        let job = Job::new("q", number.to_string());
        let job = job.with_destination(Destination::worker(handling.clone()));
        let _ = queue.seawall.enqueue(job).await.unwrap();
    }
    queue.redis.restart().await.unwrap();
    queue.seawall.flush().await;
    let ready: usize = queue.tell(redis::cmd("LLEN").arg(key("ready"))).await;
    assert_eq!((ready, queue.contents_of("jobs").await), (500, 500));
}

#[tokio::test]
async fn an_idle_worker_is_woken_by_new_jobs_and_by_one_that_is_due_earlier() {
    let queue = Queue::new().await;
    let tokens = async || -> usize { queue.tell(redis::cmd("LLEN").arg(key("wake"))).await };
    let taken = async || -> Option<(String, String)> {
        queue
            .tell(redis::cmd("BLPOP").arg(key("wake")).arg(30))
            .await
    };
    queue
        .apply(vec![
            operation("A", 1, &["x", "0"]),
            operation("A", 2, &["x", "0"]),
        ])
        .await;
    assert_eq!(tokens().await, 1, "one is enough");
    taken().await.unwrap();
    queue
        .apply(vec![operation("A", 3, &["x", "4000000000000"])])
        .await;
    taken().await.unwrap();
    queue
        .apply(vec![operation("A", 4, &["x", "4000000000001"])])
        .await;
    assert_eq!(tokens().await, 0, "there is an earlier one");
    queue
        .apply(vec![operation("A", 5, &["x", "3900000000000"])])
        .await;
    assert_eq!(tokens().await, 1);
}

#[tokio::test]
async fn a_lost_connection_in_the_middle_adds_no_job_twice() {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let builder = seawall::Seawall::builder(redis.url().as_str(), dir.path()).unwrap();
    let seawall = builder.connect().await.unwrap();
    let mut handed_in = 0_usize;
    for round in 0..5 {
        let jobs = (0..2_000).map(|number| Job::new("q", format!("{round} {number}")).for_worker());
        let receipts = seawall.enqueue_all(jobs);
        redis.kill().await.unwrap();
        redis.restart().await.unwrap();
        handed_in += receipts.await.into_iter().filter(Result::is_ok).count();
    }
    wait_until("all is in Redis", Duration::from_secs(60), || async {
        seawall.spool().stats().records == 0
    })
    .await
    .unwrap();
    seawall.flush().await;
    let ready: Vec<Vec<u8>> = redis
        .command(redis::cmd("LRANGE").arg(key("ready")).arg(0).arg(-1))
        .await
        .unwrap();
    let different: std::collections::BTreeSet<_> = ready.iter().collect();
    assert_eq!((ready.len(), different.len()), (handed_in, handed_in));
}

impl Queue {
    async fn contents_of(&self, hash: &str) -> usize {
        self.tell(redis::cmd("HLEN").arg(key(hash))).await
    }
}

#[tokio::test]
async fn a_part_of_an_operation_is_refused_alone() {
    let queue = Queue::new().await;
    queue.apply(vec![operation("A", 2, &["job 2", "0"])]).await;
    let mut begun = redis::cmd("HSET");
    begun.arg(key("running")).arg(id(2).as_bytes()).arg("1 ann");
    let _: u64 = queue.tell(&begun).await;
    let whole = [
        operation("A", 4, &["job 4", "0"]),
        operation("E", 2, &["1", "ann", "s", "0", ""]),
        operation("R", 2, &["1", "ann", "0", ""]),
        operation("D", 2, &["1", "ann", "4000000000000", "10", ""]),
        operation("G", 2, &["1", "ann"]),
    ];
    let parts = whole.iter().flat_map(|write| {
        let Action::Procedure { argument, .. } = write.action() else {
            panic!("{write:?}");
        };
        let part = |length| Write::procedure("q", &PROCEDURE, argument.slice(..length));
        (0..argument.len()).map(part).collect::<Vec<_>>()
    });
    let parts: Vec<_> = parts.collect();
    let count = parts.len();
    let between = |number| operation("A", number, &[&format!("job {number}"), "0"]);
    let mut all = vec![between(1)];
    all.extend(parts);
    all.push(between(3));
    let receipts = queue.seawall.enqueue_all(all).await;
    let refused = receipts.iter().filter(|receipt| receipt.is_err()).count();
    assert_eq!(refused, count);
    let contents = queue.contents().await;
    assert_eq!(contents.jobs.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(contents.ready, [1, 2, 3].into());
    assert_eq!(contents.running.len(), 1);
}

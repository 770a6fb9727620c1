//! Redis and a worker that do not agree on who executes what.

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    Job, Seawall,
    chaos::{Fault, FaultProxy, RedisServer, wait_until},
    connect::ConnectOptions,
    job::{JobId, Retries},
    spool::Replay,
    worker::{Builder, Delivery, Failure},
};

use crate::support::{
    Bench, Executed, Gate, PATIENCE, Run, connected, counter, enqueue, gated, gauge, text,
};

const LEASE: Duration = Duration::from_secs(1);

fn worker(seawall: &Seawall) -> Builder {
    let retries = Retries::fixed(Duration::ZERO).with_jitter(0.0);
    let worker = seawall.worker("q").concurrency(4);
    worker.lease(LEASE).retries(retries).poison_after(5)
}

fn field(id: JobId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// The token of the only worker there is.
async fn token(bench: &Bench) -> String {
    let mut tokens: Vec<String> = bench.hand("ZRANGE", "workers", ("0", "-1")).await;
    assert_eq!(tokens.len(), 1);
    tokens.remove(0)
}

/// A worker that has a lease, and is never heard of.
async fn somebody(bench: &Bench) {
    let _: u64 = bench.hand("ZADD", "workers", ("9e15", "somebody")).await;
}

/// Notes when it is dropped.
struct Ends(Executed, String);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.note(&self.1);
    }
}

#[tokio::test]
async fn executions_that_are_no_longer_the_workers_are_cancelled() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let taken = enqueue(&seawall, "taken").await;
    let decided = enqueue(&seawall, "decided").await;
    let kept = enqueue(&seawall, "kept").await;
    let gate = Gate::default();
    let run = Run::start(worker(&seawall), {
        let gated = gated(&executed, &gate);
        let executed = executed.clone();
        move |job: Delivery| {
            let (executed, cancellation) = (executed.clone(), job.cancellation().clone());
            let payload = text(job.payload());
            let ends = Ends(executed.clone(), format!("{payload} has ended"));
            tokio::spawn(async move {
                cancellation.cancelled().await;
                executed.note(format!("{payload} is cancelled"));
            });
            let handling = gated(job);
            async move {
                let _ends = ends;
                handling.await
            }
        }
    });
    executed.reach(3).await;
    // As a failover may leave it: another has it now, and nothing is known of a lease that ended.
    somebody(&bench).await;
    let _: u64 = bench
        .hand("HSET", "running", (field(taken), "2 somebody"))
        .await;
    // Its failure is known, and what it is to wait for.
    let _: u64 = bench
        .hand("HSET", "failures", (field(decided), "1 0\n"))
        .await;
    let _: u64 = bench.hand("ZADD", "later", ("9e15", field(decided))).await;
    let _: u64 = bench.hand("HDEL", "running", field(decided)).await;
    // Nothing is known of that it has begun.
    let _: u64 = bench.hand("HDEL", "running", field(kept)).await;
    executed.reach(7).await;
    let mut cancelled = executed.all().split_off(3);
    cancelled.sort();
    assert_eq!(
        cancelled,
        [
            "decided has ended",
            "decided is cancelled",
            "taken has ended",
            "taken is cancelled",
        ]
    );
    gate.open();
    wait_until("the third to end", PATIENCE, || async {
        bench.places().await == [2, 0, 1, 1, 0]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.lost, report.succeeded, report.released), (2, 1, 0));
    let by: String = bench.hand("HGET", "running", field(taken)).await;
    assert_eq!(by, "2 somebody");
}

#[tokio::test]
async fn a_later_job_of_the_same_id_takes_the_place_of_one_that_redis_has_lost() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    // Long before the two would be compared.
    let long = worker(&seawall).lease(30 * LEASE);
    let run = Run::start(long, {
        let gated = gated(&executed, &gate);
        let executed = executed.clone();
        move |job: Delivery| {
            let ends = Ends(executed.clone(), format!("{} ends", text(job.payload())));
            let handling = gated(job);
            async move {
                let _ends = ends;
                handling.await
            }
        }
    });
    let id = enqueue(&seawall, "one").await;
    executed.reach(1).await;
    let _: u64 = bench.hand("HDEL", "running", field(id)).await;
    let _: u64 = bench.hand("HDEL", "jobs", field(id)).await;
    let two = Job::new("q", "two").for_worker().with_id(id);
    let _ = seawall.enqueue(two).await.unwrap();
    executed.reach(3).await;
    assert_eq!(gauge(&registry, "seawall_worker_in_flight"), 1.0);
    gate.open();
    bench.emptied().await;
    let report = run.stop().await;
    let mut all = executed.all();
    all.sort();
    assert_eq!(all, ["one 1", "one ends", "two 1", "two ends"]);
    assert_eq!((report.succeeded, report.released), (1, 0));
}

#[tokio::test]
async fn a_job_that_is_anothers_before_there_is_a_slot_for_it_is_not_begun() {
    let bench = Bench::new().await;
    let registry = Registry::new();
    let seawall = connected(bench.builder().metrics(&registry)).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    enqueue(&seawall, "first").await;
    let one = worker(&seawall).concurrency(1).prefetch(4);
    let run = Run::start(one, gated(&executed, &gate));
    executed.reach(1).await;
    let waits = enqueue(&seawall, "waits").await;
    wait_until("it to be fetched", PATIENCE, || async {
        bench.places().await[3] == 2
    })
    .await
    .unwrap();
    somebody(&bench).await;
    let _: u64 = bench
        .hand("HSET", "running", (field(waits), "2 somebody"))
        .await;
    wait_until("it to be noticed", PATIENCE, || async {
        counter(&registry, "seawall_worker_leases_lost_total", &["q"]) > 0.0
    })
    .await
    .unwrap();
    enqueue(&seawall, "last").await;
    gate.open();
    executed.reach(2).await;
    let report = run.stop().await;
    assert_eq!(executed.all(), ["first 1", "last 1"]);
    assert_eq!((report.lost, report.succeeded), (1, 2));
}

#[tokio::test]
async fn what_redis_has_lost_the_beginning_of_stays_with_the_worker_that_executes_it() {
    let mut bench = Bench {
        redis: RedisServer::start().await.unwrap(),
        dir: tempfile::tempdir().unwrap(),
    };
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    for number in 0..3 {
        enqueue(&seawall, number).await;
    }
    // All jobs wait.
    let _: String = bench.ask(&["SAVE"]).await;
    // Long before the two would be compared in any case.
    let long = worker(&seawall).lease(30 * LEASE).concurrency(3);
    let run = Run::start(long, gated(&executed, &gate));
    executed.reach(3).await;
    bench.redis.kill().await.unwrap();
    bench.redis.restart().await.unwrap();
    wait_until("it to be known that they run", PATIENCE, || async {
        bench.places().await[3] == 3
    })
    .await
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let other = connected(Seawall::builder(&bench.redis.url(), dir.path()).unwrap()).await;
    let other = Run::start(worker(&other), gated(&executed, &gate));
    wait_until("nobody to find them waiting", PATIENCE, || async {
        bench.places().await == [3, 0, 0, 3, 0]
    })
    .await
    .unwrap();
    gate.open();
    bench.emptied().await;
    assert_eq!(other.stop().await.started, 0);
    run.stop().await;
    assert_eq!(executed.len(), 3, "{:?}", executed.all());
}

/// A job has been handed out, executed and ended, and Redis is told of the end later than it is asked what it has
/// handed out.
#[tokio::test]
async fn what_is_handed_out_once_more_before_its_end_has_arrived_is_not_executed_again() {
    let mut bench = Bench::new().await;
    let slowly = Replay::new().with_rate(1).with_jitter(Duration::ZERO);
    let builder = bench.builder();
    let seawall = connected(builder.spool(|spool| spool.with_replay(slowly))).await;
    let (executed, gate) = (Executed::default(), Gate::default());
    enqueue(&seawall, "job").await;
    // No other turn is due before Redis is away.
    let alone = worker(&seawall).lease(30 * LEASE).concurrency(1);
    let run = Run::start(alone, gated(&executed, &gate));
    executed.reach(1).await;
    bench.redis.kill().await.unwrap();
    // What goes before the end.
    for _ in 0..3 {
        let job = Job::new("q", "later").for_worker();
        let job = job.delayed(Duration::from_secs(3600));
        let _ = seawall.enqueue(job).await.unwrap();
    }
    gate.open();
    wait_until("the end to be on disk", PATIENCE, || async {
        seawall.health().spool.records == 4
    })
    .await
    .unwrap();
    bench.redis.restart().await.unwrap();
    wait_until("all to have arrived", PATIENCE, || async {
        bench.places().await == [3, 0, 3, 0, 0] && seawall.health().spool.records == 0
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!(executed.all(), ["job 1"]);
    assert_eq!((report.started, report.succeeded), (1, 1));
    assert_eq!(bench.counted("succeeded").await, 1);
}

#[tokio::test]
async fn what_dead_workers_left_counts_as_such_although_the_answer_that_had_it_was_lost() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let behind = connected(Seawall::builder(&proxy.url(), dir.path()).unwrap()).await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let dies = enqueue(&seawall, "dies").await;
    let first = Run::start(worker(&seawall), gated(&executed, &gate));
    executed.reach(1).await;
    first.abort().await;
    let by = async || -> String { bench.hand("HGET", "running", field(dies)).await };
    let before = by().await;
    // Long enough to see what an answer has in it before it arrives.
    proxy.set(Fault::Latency(Duration::from_millis(300)));
    let run = Run::start(worker(&behind).lease(3 * LEASE), gated(&executed, &gate));
    wait_until("it to be taken over", PATIENCE, || async {
        by().await != before
    })
    .await
    .unwrap();
    proxy.cut();
    // So is the answer to what it asks then.
    let token = by().await.split_off(2);
    let turn = async || -> Vec<u8> { bench.hand("HGET", "turns", &token).await };
    let claim = turn().await;
    wait_until("another turn", PATIENCE, || async { turn().await != claim })
        .await
        .unwrap();
    proxy.heal();
    proxy.cut();
    gate.open();
    executed.reach(2).await;
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.all(), ["dies 1", "dies 2"]);
    assert_eq!((report.claimed, report.retried, report.started), (1, 1, 1));
}

#[tokio::test]
async fn jobs_that_do_not_fit_into_an_answer_once_more_are_executed_all_the_same() {
    let bench = Bench::new().await;
    let proxy = FaultProxy::start(bench.redis.addr()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let builder = Seawall::builder(&proxy.url(), dir.path()).unwrap();
    let patient = |options: ConnectOptions| options.with_response_timeout(Duration::from_secs(5));
    let behind = connected(builder.connection(patient)).await;
    let seawall = bench.seawall().await;
    let executed = Executed::default();
    let large = "x".repeat(3 << 20);
    for _ in 0..2 {
        enqueue(&seawall, &large).await;
    }
    seawall.flush().await;
    proxy.set(Fault::Latency(Duration::from_millis(300)));
    let noting = executed.clone();
    let long = worker(&behind).lease(30 * LEASE);
    let run = Run::start(long, move |job: Delivery| {
        noting.note(format!("{} {}", job.payload().len(), job.attempt()));
        async { Ok::<_, Failure>(()) }
    });
    wait_until("them to be handed out", PATIENCE, || async {
        bench.places().await[3] == 2
    })
    .await
    .unwrap();
    proxy.heal();
    proxy.cut();
    executed.reach(2).await;
    bench.emptied().await;
    let report = run.stop().await;
    let whole = format!("{} 1", large.len());
    assert_eq!(executed.all(), [whole.clone(), whole]);
    assert_eq!((report.succeeded, report.dead), (2, 0));
}

/// What looks at everything that runs do, if nobody has looked lately.
async fn looks(bench: &Bench) -> u64 {
    let _: u64 = bench.hand("HDEL", "turns", "clean until").await;
    let info: String = bench.ask(&["INFO", "commandstats"]).await;
    let scans = info.split_once("cmdstat_hscan:calls=");
    scans.map_or(0, |(_, rest)| {
        rest.split(',').next().unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn what_a_worker_executes_is_never_taken_for_left_behind() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    enqueue(&seawall, "job").await;
    let run = Run::start(worker(&seawall), gated(&executed, &gate));
    executed.reach(1).await;
    wait_until("some looks", PATIENCE, || async { looks(&bench).await > 5 })
        .await
        .unwrap();
    gate.open();
    bench.emptied().await;
    let report = run.stop().await;
    assert_eq!(executed.all(), ["job 1"]);
    assert_eq!((report.released, report.succeeded), (0, 1));
}

#[tokio::test]
async fn what_runs_under_a_workers_name_and_was_finished_by_it_is_not_executed_again() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    let id = enqueue(&seawall, "job").await;
    let run = Run::start(worker(&seawall), gated(&executed, &gate));
    executed.reach(1).await;
    let record: Vec<u8> = bench.hand("HGET", "jobs", field(id)).await;
    gate.open();
    bench.emptied().await;
    // As a failover may leave it.
    let running = format!("1 {}", token(&bench).await);
    let _: u64 = bench.hand("HSET", "jobs", (field(id), record)).await;
    let _: u64 = bench.hand("HSET", "running", (field(id), running)).await;
    wait_until("it to be found", PATIENCE, || async {
        looks(&bench).await > 0 && bench.places().await == [0; 5]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!(executed.all(), ["job 1"]);
    assert_eq!((report.started, report.released), (1, 0));
}

#[tokio::test]
async fn what_a_dead_worker_left_is_found_among_very_much_that_runs() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (executed, gate) = (Executed::default(), Gate::default());
    gate.open();
    somebody(&bench).await;
    for part in 0..30u32 {
        let mut entries = Vec::new();
        for number in 0..1000u32 {
            let mut id = [0xff; 16];
            id[..4].copy_from_slice(&part.to_be_bytes());
            id[4..8].copy_from_slice(&number.to_be_bytes());
            entries.push((id.to_vec(), "1 somebody"));
        }
        let _: u64 = bench.hand("HSET", "running", entries).await;
    }
    for number in 0..20 {
        let job = Job::new("q", number.to_string()).for_worker();
        let job = job.delayed(Duration::from_secs(3600));
        let id = field(job.id());
        let _ = seawall.enqueue(job).await.unwrap();
        let _: u64 = bench
            .hand("HSET", "running", (id.clone(), "1 nobody"))
            .await;
        let _: u64 = bench.hand("ZREM", "later", id).await;
    }
    let run = Run::start(worker(&seawall), gated(&executed, &gate));
    executed.reach(20).await;
    wait_until("all to end", PATIENCE, || async {
        bench.places().await == [0, 0, 0, 30_000, 0]
    })
    .await
    .unwrap();
    let report = run.stop().await;
    assert_eq!((report.claimed, report.started), (20, 20));
    assert!(executed.all().iter().all(|it| it.ends_with(" 2")));
}

//! Jobs that Redis will never take: an error for a caller that waits, parked with the reason if none does.

use seawall::{
    Error, Job,
    error::ErrorKind,
    job::Destination,
    sequence::Command,
    spool::{Parked, Receipt},
};

use crate::support::{Line, chain, list, numbers, server, tell};

const PAYLOAD: &str = "p4yload";

async fn parked(line: &Line) -> Vec<Parked> {
    let parked = line.seawall.spool().parked(100).await.unwrap();
    assert_eq!(line.seawall.health().spool.parked, parked.len() as u64);
    let shown = format!("{parked:?}");
    assert!(
        !shown.contains(PAYLOAD) && !shown.contains("k3y"),
        "{shown}"
    );
    parked
}

/// Who waits for the job learns what is wrong with it, and nothing is kept.
async fn is_refused(line: &Line, job: Job, why: &str) {
    let error: Error = line.seawall.enqueue(job).await.expect_err(why);
    assert_eq!(error.kind(), ErrorKind::Redis);
    assert!(
        error.is_permanent() && !error.may_have_landed(),
        "{error:?}"
    );
    assert!(chain(&error).contains(why), "{}", chain(&error));
    assert!(parked(line).await.is_empty());
}

async fn spooled(line: &Line, jobs: impl IntoIterator<Item = Job>) {
    for receipt in line.seawall.enqueue_all(jobs).await {
        assert!(receipt.expect("accepted").is_spooled());
    }
}

fn list_job(queue: &'static str, number: u64) -> Job {
    Job::new(queue, number.to_string())
}

#[tokio::test]
async fn a_queue_whose_key_has_the_wrong_type_parks_its_jobs_and_no_other_waits() {
    let mut redis = server().await;
    tell(&redis, "SET wrong x").await;
    let line = Line::to(&redis.url()).await.connected().await;
    redis.kill().await.unwrap();
    spooled(&line, (0..10).map(|_| Job::new("wrong", PAYLOAD))).await;
    spooled(&line, (0..10).map(|number| list_job("right", number))).await;
    redis.restart().await.unwrap();
    line.drained().await;
    assert_eq!(list(&redis, "right").await, numbers(0..10));
    let kept = parked(&line).await;
    assert_eq!(kept.len(), 10);
    for (number, parked) in (1..).zip(&kept) {
        assert_eq!((parked.queue(), parked.number()), ("wrong", number));
        assert!(parked.reason().contains("WRONGTYPE"), "{}", parked.reason());
        assert!(!parked.reason().contains(PAYLOAD));
        assert!(String::from_utf8_lossy(parked.record()).contains(PAYLOAD));
    }
    assert!(line.shows("seawall_spool_records{state=\"parked\"} 10"));
    assert!(line.shows("seawall_spool_parked_total{queue=\"wrong\"} 10"));
    // The lane goes on: what comes next is answered directly.
    tell(&redis, "DEL wrong").await;
    let next = line.seawall.enqueue(list_job("wrong", 0)).await.unwrap();
    assert!(next.is_delivered());
}

#[tokio::test]
async fn a_caller_that_waits_gets_the_refusal() {
    let redis = server().await;
    tell(&redis, "SET k3y x").await;
    let line = Line::to(&redis.url()).await.connected().await;
    let to = |destination| Job::new("q", PAYLOAD).with_destination(destination);
    is_refused(&line, to(Destination::list("k3y")), "WRONGTYPE").await;
    is_refused(&line, to(Destination::stream("k3y")), "WRONGTYPE").await;
    is_refused(&line, to(Destination::sorted_set("k3y")), "WRONGTYPE").await;
    let unknown = vec![Command::new("NOSUCHCOMMAND").arg("k3y")];
    is_refused(&line, to(Destination::commands(unknown)), "ERR").await;
    let malformed = vec![Command::new("HSET").arg("other").arg("field")];
    is_refused(&line, to(Destination::commands(malformed)), "ERR").await;
    assert!(line.shows("seawall_enqueued_total{queue=\"q\",receipt=\"refused\"} 5"));
    let receipt: Receipt = line.seawall.enqueue(list_job("q", 0)).await.unwrap();
    assert!(receipt.is_delivered());
}

#[tokio::test]
async fn the_same_member_twice_is_refused_not_lost() {
    let mut redis = server().await;
    let line = Line::to(&redis.url()).await.connected().await;
    let job = || Job::new("later", PAYLOAD).with_destination(Destination::sorted_set("later"));
    let first = line.seawall.enqueue(job()).await.unwrap();
    assert!(first.is_delivered());
    is_refused(&line, job(), "EXISTS").await;
    redis.kill().await.unwrap();
    spooled(&line, [job()]).await;
    redis.restart().await.unwrap();
    line.drained().await;
    let kept = parked(&line).await;
    assert_eq!(kept.len(), 1);
    assert!(kept[0].reason().contains("EXISTS"), "{}", kept[0].reason());
}

/// Three jobs, of which Redis refuses the one in the middle.
fn middle_one_wrong() -> [Job; 3] {
    ["right", "k3y", "right"].map(|key| {
        let add = Command::new("RPUSH").arg(key).arg(PAYLOAD);
        let count = Command::new("INCR").arg("count");
        Job::new("q", PAYLOAD).with_destination(Destination::commands(vec![add, count]))
    })
}

#[tokio::test]
async fn one_refusal_in_the_middle_of_a_batch_is_one_refusal() {
    let mut redis = server().await;
    tell(&redis, "SET k3y x").await;
    let line = Line::to(&redis.url()).await.connected().await;
    let answers = line.seawall.enqueue_all(middle_one_wrong()).await;
    let [Ok(first), Err(error), Ok(last)] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(first.is_delivered() && last.is_delivered());
    assert!(error.is_permanent(), "{error:?}");
    assert_eq!(list(&redis, "right").await.len(), 2);
    assert!(parked(&line).await.is_empty());

    redis.kill().await.unwrap();
    spooled(&line, middle_one_wrong()).await;
    redis.restart().await.unwrap();
    line.drained().await;
    assert_eq!(list(&redis, "right").await.len(), 4);
    assert_eq!(parked(&line).await.len(), 1);
    let counted: u8 = redis.command(redis::cmd("GET").arg("count")).await.unwrap();
    assert_eq!(counted, 4);
}

/// Redis has no rollback, so whoever looks at the parked job must know how far it came.
#[tokio::test]
async fn a_group_that_is_refused_half_way_says_how_far_it_came() {
    let redis = server().await;
    tell(&redis, "SET k3y x").await;
    let line = Line::to(&redis.url()).await.connected().await;
    let half = vec![
        Command::new("RPUSH").arg("right").arg(PAYLOAD),
        Command::new("RPUSH").arg("k3y").arg(PAYLOAD),
    ];
    let job = Job::new("q", PAYLOAD).with_destination(Destination::commands(half));
    let error = line.seawall.enqueue(job).await.expect_err("refused");
    assert!(
        chain(&error).contains("command 2 of 2"),
        "{}",
        chain(&error)
    );
    assert_eq!(list(&redis, "right").await, [PAYLOAD]);
}

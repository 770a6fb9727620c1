//! The scripts of a worker, asked by hand, with what a queue can have in it that no worker meets every day.

use std::time::Duration;

use redis::{FromRedisValue, ToRedisArgs, Value};
use seawall::{Job, Seawall, job::JobId};

use crate::support::{Bench, enqueue};

const TURN: &str = include_str!("../../src/worker/turn.lua");
const LEAVE: &str = include_str!("../../src/worker/leave.lua");
const KEYS: [&str; 14] = [
    "jobs", "ready", "later", "running", "failures", "dead", "done", "results", "counters", "wake",
    "workers", "about", "turns", "gone",
];

type Id = Vec<u8>;

/// What a worker asks.
#[derive(Default)]
struct Asks<'a> {
    number: u64,
    wanted: usize,
    claims: usize,
    /// Redis comes to it when nobody waits for it any more.
    late: bool,
    about: &'a str,
    alone: bool,
    /// What it executes, if it asks for a comparison.
    known: Option<Vec<(Id, u32)>>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    cursor: String,
    jobs: Vec<Id>,
    claimed: Vec<Id>,
}

async fn run<T: FromRedisValue>(
    bench: &Bench,
    script: &str,
    args: impl FnOnce(&mut redis::Cmd),
) -> redis::RedisResult<T> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(script).arg(KEYS.len());
    for key in KEYS {
        cmd.arg(format!("seawall:{{q}}:{key}"));
    }
    args(&mut cmd);
    bench.redis.command(&cmd).await
}

async fn try_turn(bench: &Bench, asks: Asks<'_>) -> redis::RedisResult<Answer> {
    let answer: Vec<Value> = run(bench, TURN, |cmd| {
        let until = if asks.late { "1" } else { "9000000000000000" };
        cmd.arg(("me", asks.number, 60_000, asks.wanted));
        cmd.arg((asks.claims, until, "0"));
        cmd.arg((
            asks.about,
            i32::from(asks.alone),
            i32::from(asks.known.is_some()),
        ));
        for (id, attempt) in asks.known.unwrap_or_default() {
            cmd.arg(id).arg(attempt);
        }
    })
    .await?;
    let ids = |at: usize| -> Vec<Id> {
        let all: Vec<Vec<u8>> = answer.get(at).map_or(vec![], read);
        all.iter().map(|job| job[..16].to_vec()).collect()
    };
    Ok(Answer {
        status: read(&answer[0]),
        cursor: answer.get(3).map_or(String::new(), read),
        jobs: ids(5),
        claimed: ids(6),
    })
}

fn read<T: FromRedisValue>(value: &Value) -> T {
    redis::from_redis_value(value.clone()).unwrap()
}

async fn turn(bench: &Bench, asks: Asks<'_>) -> Answer {
    let answer = try_turn(bench, asks).await.unwrap();
    assert_eq!(answer.status, "ok");
    answer
}

async fn leave(bench: &Bench, in_doubt: bool) {
    let args = |cmd: &mut redis::Cmd| {
        cmd.arg("me").arg(i32::from(in_doubt));
    };
    let _: u64 = run(bench, LEAVE, args).await.unwrap();
}

async fn put(bench: &Bench, command: &str, key: &str, args: impl ToRedisArgs) {
    let _: u64 = bench.hand(command, key, args).await;
}

async fn ready(seawall: &Seawall) -> Id {
    let id = field(enqueue(seawall, "job").await);
    seawall.flush().await;
    id
}

/// A job that is nowhere but in `jobs`, and was not to be executed at once.
async fn nowhere(bench: &Bench, seawall: &Seawall, payload: &str) -> Id {
    let job = Job::new("q", payload.to_owned()).for_worker();
    let job = job.delayed(Duration::from_secs(3600));
    let id = field(job.id());
    let _ = seawall.enqueue(job).await.unwrap();
    seawall.flush().await;
    put(bench, "ZREM", "later", &id).await;
    id
}

fn field(id: JobId) -> Id {
    id.as_bytes().to_vec()
}

#[tokio::test]
async fn a_turn_that_comes_behind_a_later_one_does_nothing() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let number = |number| Asks {
        number,
        wanted: 1,
        ..Asks::default()
    };
    turn(&bench, number(2)).await;
    ready(&seawall).await;
    for late in [1, 2] {
        let answer = try_turn(&bench, number(late)).await.unwrap();
        assert_eq!(answer.status, "late");
    }
    assert_eq!(bench.places().await, [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn ids_that_were_left_behind_begin_nothing() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let twice = ready(&seawall).await;
    put(&bench, "RPUSH", "ready", &twice).await;
    let scheduled = nowhere(&bench, &seawall, "").await;
    put(&bench, "ZADD", "later", ("9e15", &scheduled)).await;
    let dead = ready(&seawall).await;
    put(&bench, "ZADD", "dead", ("9e15", &dead)).await;
    put(&bench, "HSET", "failures", (&dead, "1 0\n")).await;
    let running = ready(&seawall).await;
    put(&bench, "HSET", "running", (&running, "1 other")).await;
    put(&bench, "RPUSH", "ready", (&scheduled, "0123456789abcdef")).await;
    let answer = turn(
        &bench,
        Asks {
            number: 1,
            wanted: 10,
            ..Asks::default()
        },
    )
    .await;
    assert_eq!(answer.jobs, [twice]);
    assert_eq!(bench.places().await, [4, 0, 1, 2, 1]);
}

#[tokio::test]
async fn ids_that_were_left_behind_among_suspects_begin_nothing() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = nowhere(&bench, &seawall, "").await;
        put(&bench, "ZADD", "later", ("-1", &id)).await;
        ids.push(id);
    }
    ids.sort();
    let [ended, running, dead, other] = &ids[..] else {
        panic!("{ids:?}");
    };
    put(&bench, "HDEL", "jobs", ended).await;
    put(&bench, "HSET", "running", (running, "1 other")).await;
    put(&bench, "ZADD", "dead", ("9e15", dead)).await;
    let asks = Asks {
        number: 1,
        wanted: 10,
        alone: true,
        ..Asks::default()
    };
    assert_eq!(turn(&bench, asks).await.jobs, std::slice::from_ref(other));
}

#[tokio::test]
async fn what_has_expired_is_forgotten_and_nothing_else() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let (seconds, _): (u64, u64) = bench.ask(&["TIME"]).await;
    let (past, future) = ((seconds - 7200) * 1000, (seconds + 7200) * 1000);
    for (when, name) in [(past, "old"), (future, "new")] {
        put(&bench, "ZADD", "gone", (when, name)).await;
        put(&bench, "HSET", "about", (name, "{}")).await;
        put(&bench, "HSET", "turns", (name, "1")).await;
        put(&bench, "ZADD", "done", (when, name)).await;
        put(&bench, "HSET", "results", (name, "s")).await;
        let id = nowhere(&bench, &seawall, "").await;
        put(&bench, "ZADD", "dead", (when, &id)).await;
        put(&bench, "HSET", "failures", (&id, "1 0\n")).await;
    }
    let asks = |number, about| Asks {
        number,
        about,
        ..Asks::default()
    };
    turn(&bench, asks(1, "")).await;
    let sizes = async || -> Vec<u64> {
        let mut sizes = Vec::new();
        for (command, key) in [
            ("ZCARD", "gone"),
            ("HLEN", "about"),
            ("HLEN", "turns"),
            ("ZCARD", "done"),
            ("HLEN", "results"),
            ("ZCARD", "dead"),
            ("HLEN", "failures"),
            ("HLEN", "jobs"),
        ] {
            sizes.push(bench.hand(command, key, None::<&str>).await);
        }
        sizes
    };
    assert_eq!(sizes().await, [2, 2, 3, 2, 2, 2, 2, 2], "it tells nothing");
    turn(&bench, asks(2, "{}")).await;
    assert_eq!(sizes().await, [1, 2, 2, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn an_execution_whose_job_is_no_more_is_forgotten() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let id = ready(&seawall).await;
    turn(
        &bench,
        Asks {
            number: 1,
            wanted: 1,
            ..Asks::default()
        },
    )
    .await;
    put(&bench, "HDEL", "jobs", &id).await;
    let known = Some(vec![]);
    let answer = turn(
        &bench,
        Asks {
            number: 2,
            known,
            ..Asks::default()
        },
    )
    .await;
    assert_eq!((answer.jobs.len(), bench.places().await[3]), (0, 0));
    put(&bench, "HSET", "running", (&id, "1 nobody")).await;
    let answer = turn(
        &bench,
        Asks {
            number: 3,
            claims: 9,
            ..Asks::default()
        },
    )
    .await;
    assert_eq!((answer.claimed.len(), bench.places().await[3]), (0, 0));
}

#[tokio::test]
async fn what_was_handed_out_is_told_again_if_it_is_unknown_and_still_the_workers() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ready(&seawall).await);
    }
    turn(
        &bench,
        Asks {
            number: 1,
            wanted: 3,
            ..Asks::default()
        },
    )
    .await;
    put(&bench, "HSET", "running", (&ids[1], "2 other")).await;
    // However often.
    for number in 2..4 {
        let known = Some(vec![(ids[0].clone(), 1)]);
        let answer = turn(
            &bench,
            Asks {
                number,
                known,
                ..Asks::default()
            },
        )
        .await;
        assert_eq!(answer.jobs, [ids[2].clone()]);
    }
    turn(
        &bench,
        Asks {
            number: 5,
            ..Asks::default()
        },
    )
    .await;
    let known = Some(vec![]);
    let answer = turn(
        &bench,
        Asks {
            number: 6,
            known,
            ..Asks::default()
        },
    )
    .await;
    assert_eq!(answer.jobs.len(), 0, "another turn has been answered since");
}

#[tokio::test]
async fn an_answer_has_about_four_megabytes_and_the_others_come_later() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let large = "x".repeat(3 << 20);
    for _ in 0..2 {
        enqueue(&seawall, &large).await;
    }
    seawall.flush().await;
    // The first few come without a look at how large they are.
    for _ in 0..8 {
        ready(&seawall).await;
    }
    let wanted = |number| Asks {
        number,
        wanted: 10,
        ..Asks::default()
    };
    assert_eq!(turn(&bench, wanted(1)).await.jobs.len(), 4);
    assert_eq!(turn(&bench, wanted(2)).await.jobs.len(), 6);

    let _: String = bench.ask(&["FLUSHALL"]).await;
    for _ in 0..3 {
        let id = nowhere(&bench, &seawall, &large).await;
        put(&bench, "HSET", "running", (id, "1 nobody")).await;
    }
    let claims = |number| Asks {
        number,
        claims: 9,
        ..Asks::default()
    };
    assert_eq!(turn(&bench, claims(1)).await.claimed.len(), 2);
    assert_eq!(turn(&bench, claims(2)).await.claimed.len(), 1);
}

#[tokio::test]
async fn what_a_look_leaves_is_found_by_the_next_one_and_then_nobody_looks_for_a_while() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let claims = |number| Asks {
        number,
        claims: 1,
        ..Asks::default()
    };
    assert_eq!(turn(&bench, claims(1)).await.cursor, "0");
    for _ in 0..2 {
        let id = nowhere(&bench, &seawall, "").await;
        put(&bench, "HSET", "running", (id, "1 other")).await;
    }
    put(&bench, "ZADD", "workers", ("9e15", "other")).await;
    assert_eq!(turn(&bench, claims(2)).await.cursor, "clean");
    // It dies.
    put(&bench, "ZADD", "workers", ("1", "other")).await;
    for number in 3..5 {
        assert_eq!(turn(&bench, claims(number)).await.claimed.len(), 1);
    }
    turn(&bench, claims(5)).await;
    assert_eq!(turn(&bench, claims(6)).await.cursor, "clean");
}

/// It has lain in a socket while Redis stood still, and nobody could renew a lease.
#[tokio::test]
async fn a_look_that_redis_comes_to_late_takes_nobody_for_dead() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let id = nowhere(&bench, &seawall, "").await;
    put(&bench, "HSET", "running", (id, "1 other")).await;
    put(&bench, "ZADD", "workers", ("1", "other")).await;
    let claims = |number, late| Asks {
        number,
        claims: 1,
        late,
        ..Asks::default()
    };
    let late = turn(&bench, claims(1, true)).await;
    assert_eq!((&*late.cursor, late.claimed.len()), ("clean", 0));
    let gone: u64 = bench.hand("ZCARD", "gone", None::<&str>).await;
    assert_eq!(gone, 0);
    assert_eq!(turn(&bench, claims(2, false)).await.claimed.len(), 1);
}

#[tokio::test]
async fn whoever_leaves_jobs_behind_wakes_another() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let asks = |number| Asks {
        number,
        wanted: 1,
        alone: true,
        ..Asks::default()
    };
    let woken = async || -> u64 {
        let woken = bench.hand("LLEN", "wake", None::<&str>).await;
        let _: u64 = bench.hand("DEL", "wake", None::<&str>).await;
        woken
    };
    for _ in 0..2 {
        ready(&seawall).await;
    }
    woken().await;
    turn(&bench, asks(1)).await;
    assert_eq!(woken().await, 1, "one waits");
    put(&bench, "RPUSH", "wake", "1").await;
    turn(&bench, asks(2)).await;
    assert_eq!(woken().await, 0, "none waits");
    for _ in 0..2 {
        let id = nowhere(&bench, &seawall, "").await;
        put(&bench, "ZADD", "later", ("-1", id)).await;
    }
    woken().await;
    turn(&bench, asks(3)).await;
    assert_eq!(woken().await, 1, "a suspect waits");
    ready(&seawall).await;
    woken().await;
    leave(&bench, false).await;
    assert_eq!(woken().await, 1, "one waits, and nobody is there");
}

#[tokio::test]
async fn a_key_that_is_something_else_stops_a_turn_before_it_has_changed_anything() {
    for (key, at) in KEYS.iter().zip(0..) {
        if ["counters", "results", "about"].contains(key) || at == 0 || *key == "ready" {
            // The job itself is in two of them, and a turn like this has no use for the others.
            continue;
        }
        let bench = Bench::new().await;
        let seawall = bench.seawall().await;
        ready(&seawall).await;
        let _: u64 = bench.hand("DEL", key, None::<&str>).await;
        let _: String = bench.hand("SET", key, "of somebody else").await;
        let asks = Asks {
            number: 1,
            wanted: 1,
            claims: 1,
            ..Asks::default()
        };
        try_turn(&bench, asks).await.unwrap_err();
        let left: u64 = bench.hand("LLEN", "ready", None::<&str>).await;
        assert_eq!(left, 1, "{key}");
    }
}

#[tokio::test]
async fn who_leaves_is_forgotten_and_takes_no_more_if_a_turn_may_be_under_way() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let asks = |number| Asks {
        number,
        wanted: 1,
        claims: 1,
        about: "{}",
        ..Asks::default()
    };
    let known = async || -> [u64; 4] {
        [
            bench.hand("ZCARD", "workers", None::<&str>).await,
            bench.hand("HLEN", "about", None::<&str>).await,
            bench.hand("HEXISTS", "turns", "me").await,
            bench.hand("HEXISTS", "turns", "clean until").await,
        ]
    };
    turn(&bench, asks(1)).await;
    assert_eq!(known().await, [1, 1, 1, 1]);
    leave(&bench, false).await;
    assert_eq!(known().await, [0, 0, 0, 0]);
    turn(&bench, asks(1)).await;
    leave(&bench, true).await;
    ready(&seawall).await;
    let late = try_turn(&bench, asks(2)).await.unwrap();
    assert_eq!(late.status, "gone");
    assert_eq!(bench.places().await, [1, 1, 0, 0, 0]);
}

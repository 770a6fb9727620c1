//! Neither the password nor a key nor a payload is in any error, event, metric or `Debug` output.

use std::{
    error::Error as StdError,
    fmt::{Debug, Write as _},
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use seawall::{
    Error, Job, Seawall,
    chaos::{Fault, FaultProxy, RedisServer},
    connect::{ConnectOptions, Connection},
    job::Destination,
    sequence::{Command, Write},
    spool::{Spool, SpoolOptions},
};

use crate::support::{Line, call, cmd, open, pipeline, refusal, script, transaction};

const PASSWORD: &str = "s3cret";
const KEY: &str = "k3y";
const PAYLOAD: &str = "p4yload";

/// Everything that was shown to anybody.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Shown {
    fn value(&self, value: &dyn Debug) {
        let _ = write!(self.clone(), "{value:?}\n{value:#?}\n");
    }

    /// Each level of the chain, both ways of showing it.
    fn error(&self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            let _ = writeln!(self.clone(), "{error}");
            self.value(&error);
            next = error.source();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl std::fmt::Write for Shown {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.lock().extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn jobs() -> Vec<Job> {
    let job = || Job::new("q", PAYLOAD);
    let group = vec![
        Command::new("SET").arg("fine").arg(PAYLOAD),
        Command::new("LPUSH").arg(KEY).arg(PAYLOAD),
    ];
    let unknown = vec![Command::new("NOSUCH").arg(KEY).arg(PAYLOAD)];
    let malformed = vec![Command::new("SET").arg(KEY).arg(PAYLOAD).arg(PAYLOAD)];
    vec![
        job().with_destination(Destination::list(KEY)),
        job()
            .with_destination(Destination::stream(KEY))
            .with_header(KEY, PAYLOAD),
        job().with_destination(Destination::sorted_set(KEY)),
        job().with_destination(Destination::commands(group)),
        job().with_destination(Destination::commands(unknown)),
        job().with_destination(Destination::commands(malformed)),
        job().expires_at(SystemTime::UNIX_EPOCH),
        // Refused before they are sent.
        job().with_header(KEY, PAYLOAD),
        job().delayed(Duration::from_secs(1)),
        Job::new("q", PAYLOAD.repeat(10_000)),
        job(),
    ]
}

fn calls() -> Vec<seawall::RedisCall> {
    let bad = [
        format!("LPUSH {KEY} {PAYLOAD}"),
        format!("NOSUCH {KEY} {PAYLOAD}"),
        format!("SET {KEY} {PAYLOAD} {PAYLOAD}"),
        format!("CONFIG {PAYLOAD} {KEY}"),
        format!("EVAL return(redis.call('LPUSH',KEYS[1],ARGV[1])) 1 {KEY} {PAYLOAD}"),
        format!("AUTH {KEY} {PAYLOAD}"),
    ];
    let mut calls: Vec<_> = bad.iter().map(|line| call(line)).collect();
    let lines: Vec<_> = bad[..3].iter().map(String::as_str).collect();
    calls.extend([
        pipeline(&lines),
        transaction(&lines),
        transaction(&lines[..1]),
        script(),
    ]);
    calls
}

async fn hand_in(shown: &Shown, line: &Line) {
    for job in jobs() {
        shown.value(&job);
        if let Ok(write) = Write::try_from(job.clone()) {
            shown.value(&write);
        }
        match line.seawall.enqueue(job).await {
            Ok(receipt) => shown.value(&receipt),
            Err(error) => shown.error(&error),
        }
    }
}

async fn ask(shown: &Shown, line: &Line) {
    for call in calls() {
        shown.value(&call);
        match line.seawall.call(call).await {
            Ok(reply) => {
                shown.value(&reply);
                if let Err(error) = reply.decode::<Vec<(i64, i64)>>() {
                    shown.error(&Error::from(error));
                }
            }
            Err(error) => shown.error(&error),
        }
    }
}

async fn server() -> RedisServer {
    let redis = RedisServer::builder()
        .durable()
        .password(PASSWORD)
        .start()
        .await
        .unwrap();
    let _: () = redis
        .command(redis::cmd("SET").arg(KEY).arg(PAYLOAD))
        .await
        .unwrap();
    redis
}

/// What is wrong with settings is said without repeating them.
fn refused_settings(shown: &Shown, dir: &std::path::Path) {
    let login = format!("user:{PASSWORD}@localhost");
    for url in [
        format!("redis://{login}:99999"),
        format!("redis://{login}/notadatabase"),
        format!("redis://{login}/0?bogus={PASSWORD}"),
        format!("redis://{login}/0?ack=maybe"),
        format!("bogus://{login}"),
        format!("redis://user:{PASSWORD}/x@localhost"),
        format!("redis://{PASSWORD}@localhost:{PASSWORD}"),
        format!("redis+sentinel://{login}/main"),
        format!("unix:///tmp/x?pass={PASSWORD}&pass={PASSWORD}"),
    ] {
        match Seawall::builder(&url, dir) {
            Ok(builder) => shown.value(&builder),
            Err(error) => shown.error(&error),
        }
        match ConnectOptions::from_url(&url) {
            Ok(options) => shown.value(&options),
            Err(error) => shown.error(&error),
        }
    }
}

#[tokio::test]
async fn no_output_of_any_kind_shows_a_password_a_key_or_a_payload() {
    let shown = Shown::default();
    let events = {
        let shown = shown.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || shown.clone())
            .finish()
    };
    // Of all threads: the spool has one of its own. The other tests' events do no harm here.
    tracing::subscriber::set_global_default(events).expect("no other test sets it");

    let dir = tempfile::tempdir().unwrap();
    refused_settings(&shown, dir.path());
    shown.value(&Destination::list(KEY));
    shown.value(&Destination::stream(KEY));
    shown.value(&Command::new("SET").arg(KEY).arg(PAYLOAD));

    let mut redis = server().await;
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let url = format!("redis://:{PASSWORD}@{}", proxy.addr());
    shown.value(&Seawall::builder(&url, dir.path()).unwrap());
    shown.value(&ConnectOptions::from_url(&url).unwrap());
    let line = Line::with(&url, |builder| {
        builder
            .connection(|options| options.with_response_timeout(Duration::from_millis(300)))
            .spool(|spool| spool.with_max_record_bytes(10_000).with_max_records(20))
    })
    .await
    .connected()
    .await;
    shown.value(&line.seawall);
    shown.value(&line.seawall.spool());
    shown.value(&line.seawall.connection());

    // Redis is there, and refuses; then lies; then is away, and the spool gets full; then is back.
    hand_in(&shown, &line).await;
    ask(&shown, &line).await;
    for fault in [
        Fault::DropNextReply,
        Fault::SilenceOld,
        Fault::CutRequestAfter(30),
    ] {
        line.is_up().await;
        proxy.set(fault);
        ask(&shown, &line).await;
        hand_in(&shown, &line).await;
    }
    redis.kill().await.unwrap();
    for _ in 0..3 {
        hand_in(&shown, &line).await;
        ask(&shown, &line).await;
    }
    shown.value(&line.seawall.health());
    redis.restart().await.unwrap();
    line.drained().await;
    let parked = line.seawall.spool().parked(100).await.unwrap();
    assert!(!parked.is_empty(), "the test shows less than it says");
    for parked in &parked {
        shown.value(parked);
        let _ = writeln!(shown.clone(), "{}", parked.reason());
    }

    // The password is rotated, or was wrong from the start.
    let _: () = redis
        .command(&cmd("CONFIG SET requirepass an0ther"))
        .await
        .unwrap();
    let locked_out = open(&url, |options| options);
    let mut status = locked_out.status();
    drop(
        status
            .wait_for(|status| status.trouble.is_some())
            .await
            .unwrap(),
    );
    shown.error(&refusal(&locked_out, call(&format!("SET {KEY} {PAYLOAD}"))).await);
    shown.value(&*locked_out.status().borrow());
    if let Err(error) = locked_out.exclusive().await {
        shown.error(&error);
    }
    let absurd = ConnectOptions::from_url(&url).unwrap().with_connections(0);
    shown.error(&Connection::open(absurd).unwrap_err());
    shown.error(
        &Spool::<Write>::open(SpoolOptions::new("/proc/no/spool"))
            .await
            .unwrap_err(),
    );

    let _ = line.seawall.shutdown(Duration::from_secs(1)).await;
    hand_in(&shown, &line).await;
    let text = shown.text() + &line.text();
    for proof in [
        "lane spooling",
        "parked",
        "WRONGTYPE",
        "the spool is full",
        "it may have been done",
        "circuit breaker is open",
        "shut down",
        "user and password",
        "expired",
        "seawall_spool_records",
    ] {
        assert!(
            text.contains(proof),
            "the test shows less than it says: {proof}"
        );
    }
    for secret in [PASSWORD, KEY, PAYLOAD] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "shows {secret}");
    }
}
